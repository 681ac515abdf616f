"""The time of whole runs, shared out among a model's kernels, where a runtime tells no times of kernels.

Which kernel takes how much of it is not measured. It is a prior: each takes a part that goes with its multiply-adds and with the
values that it reads and writes, at rates that stand to each other about as a processor's with vectors do. What is wrong with that
in the sum of a model, the predictor corrects by what it learns from whole models (`predictor`); times of single kernels, as
`explain` shows them, stay as rough as the prior.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..spaces.kernels import Kernel
from .device.engine import RawProfile
from .kernel_profile import KernelProfile

FLOAT_WORK = 1.0  # a multiply-add in float; on an x86 core with AVX-512 about 0.03 ns
INTEGER_WORK = 0.3  # one in 8-bit integers
MOVED = 16.0  # a value that is read or written, in float; fewer bytes take less
STARTED = 2e4  # a kernel, whatever it does


def cost(kernel: Kernel) -> float:
    """Return what a kernel is taken to cost, in multiply-adds in float."""
    work = (INTEGER_WORK if kernel.integer else FLOAT_WORK) * kernel.multiply_adds
    return STARTED + work + MOVED * (0.5 if kernel.integer else 1.0) * kernel.elements


def shared_profile(raw: RawProfile, kernels: Sequence[Kernel]) -> KernelProfile:
    """Return a profile in which the kernels' times add up to each whole run.

    Args:
        raw: what a runtime tells that tells whole runs alone.
        kernels: of the model, in the order in which they run.
    """
    costs = np.array([cost(kernel) for kernel in kernels], float)
    parts = costs / costs.sum() if len(kernels) else costs
    return KernelProfile(list(kernels), raw.whole_ms[:, None] * parts, raw.whole_ms)
