"""ExecuTorch's files: a graph that a mobile lowering wrote, exported by PyTorch and lowered to XNNPACK."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .errors import BuildError, last_line, not_installed
from .quiet import quietly

if TYPE_CHECKING:
    import onnx_ir as ir


def pack(model: ir.Model, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return the .pte file of a lowered graph: inputs in the alphabetical order of their names, shapes fixed.

    Raises:
        InputError: ExecuTorch is not installed.
        BuildError: an op has no form in PyTorch or in ExecuTorch; it is named.
    """
    try:
        with quietly():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
    except ImportError:
        raise not_installed("executorch", "ExecuTorch") from None
    from .mobile_ops import EXECUTORCH_OPS
    from .mobile_torch import MobileModule

    exported = MobileModule(model, shapes, ops=EXECUTORCH_OPS).exported()
    try:
        with quietly():
            lowered = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
            return bytes(lowered.to_executorch().buffer)
    except Exception as error:
        raise BuildError(f"ExecuTorch refuses the model: {last_line(str(error)) or error}") from error
