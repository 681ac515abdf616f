"""Predicted peak memory: what `memory` measures, told from a file and the kernels that ONNX Runtime makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..spaces.kernels import Kernel
from .liveness import Buffer, live_bytes
from .loading_memory import file_facts, loading
from .running_memory import rehearse


@dataclass(frozen=True)
class PredictedMemory:
    """What opening and running a file will take.

    Attributes:
        loading_bytes, running_bytes: peaks.
        kernels: that are run.
        buffers: that their tensors lie in.
    """

    loading_bytes: int
    running_bytes: int
    kernels: tuple[Kernel, ...]
    buffers: tuple[Buffer, ...]

    @property
    def peak_bytes(self) -> int:
        """The larger peak."""
        return max(self.loading_bytes, self.running_bytes)

    @property
    def fullest(self) -> int:
        """The kernel, by number, while which most bytes of tensors are alive."""
        alive = live_bytes(self.buffers, len(self.kernels))
        return max(range(len(alive)), key=alive.__getitem__)

    def alive(self, step: int) -> list[Buffer]:
        """Return the buffers that are alive while a kernel runs, the largest first."""
        found = [buffer for buffer in self.buffers if buffer.first <= step <= buffer.last]
        return sorted(found, key=lambda buffer: -buffer.size)


def predict_memory(path: Path, kernels: Sequence[Kernel]) -> PredictedMemory | None:
    """Return what ONNX Runtime will take for a file; None where a shape is not known.

    Args:
        path: of the file.
        kernels: of the graph that ONNX Runtime makes of it, in the order in which they run.
    """
    if any(tensor is None or tensor.shape is None for kernel in kernels for tensor in kernel.outputs):
        return None
    file = file_facts(path)
    opened, tensors = loading(file, kernels), rehearse(kernels, file.outputs)
    return PredictedMemory(
        max(opened.peak_bytes, opened.resident_bytes + tensors.opened_bytes),
        opened.resident_bytes + max(tensors.run_bytes),
        tuple(kernels),
        tensors.buffers,
    )
