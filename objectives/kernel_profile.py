"""Which kernels a runtime runs for a model file, and how long each takes; ONNX Runtime's own profile of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..spaces.errors import BuildError
from ..spaces.kernels import Kernel
from .device.engine import FIRST_RUNS, RawProfile, Rounds
from .device.onnxruntime_engine import UNKNOWN

__all__ = ["FIRST_RUNS", "KernelProfile", "Rounds", "onnx_profile"]


@dataclass(frozen=True)
class KernelProfile:
    """Measured kernels of one model.

    Attributes:
        kernels: in the order in which they run.
        times_ms: of each in each run ``[runs, kernels]``, milliseconds.
        whole_ms: of each run ``[runs]``, what passes between the kernels included.
    """

    kernels: list[Kernel]
    times_ms: np.ndarray
    whole_ms: np.ndarray

    @property
    def kernel_ms(self) -> np.ndarray:
        """The median time of each kernel ``[kernels]``."""
        return np.asarray(np.median(self.times_ms, axis=0))


def onnx_profile(raw: RawProfile, kernels: list[Kernel]) -> KernelProfile:
    """Return ONNX Runtime's profile with the kernels of its graph.

    Raises:
        BuildError: they are not what ran, in its order.
    """
    expected = [(kernel.short_op, kernel.node or name) for kernel, (_, name) in zip(kernels, raw.ran, strict=False)]
    if len(raw.ran) != len(kernels) or [tuple(pair) for pair in raw.ran] != expected:
        raise BuildError(UNKNOWN)
    return KernelProfile(kernels, raw.times_ms, raw.whole_ms)
