"""Predicted peak memory: what `memory` measures, told from a file and the kernels that ONNX Runtime makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..spaces.kernels import Kernel
from .loading_memory import loading, stored_bytes
from .running_memory import Rehearsal, rehearse


@dataclass(frozen=True)
class PredictedMemory:
    """What opening and running a file will take.

    Attributes:
        loading_bytes, running_bytes: peaks.
        weight_bytes: of stored tensors as kernels hold them.
        tensors: the rehearsal of the arena.
    """

    loading_bytes: int
    running_bytes: int
    weight_bytes: int
    tensors: Rehearsal

    @property
    def peak_bytes(self) -> int:
        """The larger peak."""
        return max(self.loading_bytes, self.running_bytes)


def predict_memory(path: Path, kernels: Sequence[Kernel], outputs: Sequence[str]) -> PredictedMemory:
    """Return what ONNX Runtime will take for a file.

    Args:
        path: of the file.
        kernels: of the graph that ONNX Runtime makes of it, shapes known.
        outputs: names of the tensors that the model gives out.
    """
    tensors = rehearse(kernels, outputs)
    opened = loading(path, kernels)
    return PredictedMemory(
        max(opened.peak_bytes, opened.resident_bytes + tensors.opened_bytes),
        opened.resident_bytes + max(tensors.run_bytes),
        stored_bytes(kernels),
        tensors,
    )
