"""LiteRT's files: a graph that a mobile lowering wrote, exported by PyTorch and converted by litert-torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .errors import BuildError, InputError, last_line
from .quiet import quietly

if TYPE_CHECKING:
    import onnx_ir as ir


def pack(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return the .tflite file of a lowered graph: inputs in the alphabetical order of their names, shapes fixed.

    Raises:
        InputError: litert-torch is not installed.
        BuildError: an op has no form in PyTorch or in LiteRT; it is named.
    """
    try:
        with quietly():
            import litert_torch
    except ImportError:
        raise InputError(
            'target.runtime "litert" needs litert-torch installed: pip install "slimfront[litert]"'
        ) from None
    from .mobile_torch import MobileModule

    module = MobileModule(model, shapes, stored=False).eval()
    try:
        with quietly():
            converted = litert_torch.convert(module, module.samples, quant_config=_rounded())
            return bytes(converted.model_content())
    except Exception as error:
        raise BuildError(f"LiteRT's converter refuses the model: {last_line(str(error)) or error}") from error


def _rounded() -> Any:
    """Say that ops between rounding ones are to become integer kernels; "static" would make inputs integers as well."""
    from litert_torch.quantize import pt2e_quantizer, quant_config

    quantizer = pt2e_quantizer.PT2EQuantizer()
    quantizer.set_global(pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    return quant_config.QuantConfig(pt2e_quantizer=quantizer)
