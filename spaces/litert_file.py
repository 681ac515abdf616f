"""LiteRT's files: a graph that a mobile lowering wrote, exported by PyTorch and converted by litert-torch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .errors import BuildError, last_line, not_installed
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
        raise not_installed("litert", "litert-torch") from None
    from .mobile_ops import LITERT_OPS
    from .mobile_torch import MobileModule

    module = MobileModule(model, shapes, stored=False, ops=LITERT_OPS).eval()
    try:
        with quietly(), _strictly():
            converted = litert_torch.convert(module, module.samples)
            return bytes(converted.model_content())
    except Exception as error:
        raise BuildError(f"LiteRT's converter refuses the model: {last_line(str(error)) or error}") from error


@contextlib.contextmanager
def _strictly() -> Iterator[None]:
    """Let the converter make integer kernels of what rounding ops enclose, of nothing else: its own functions do not offer it.

    By default it guesses what else was meant to be in integers, and mixes up models that are so in part.
    """
    from litert_torch._convert import litert_converter

    settings = litert_converter.converter_api_ext
    plain = settings.ConvertToTFLConfig

    def strict() -> Any:
        made = plain()
        made.strict_qdq_mode = True
        return made

    settings.ConvertToTFLConfig = strict
    try:
        yield
    finally:
        settings.ConvertToTFLConfig = plain
