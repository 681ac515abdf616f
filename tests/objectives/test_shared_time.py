"""Whole runs that are shared out among kernels."""

from __future__ import annotations

import numpy as np

from slimfront.objectives.device.engine import RawProfile
from slimfront.objectives.shared_time import cost, shared_profile
from slimfront.spaces.kernel_shapes import FLOAT, INT8, Tensor
from slimfront.spaces.kernels import Kernel


def kernel(op: str, dtype: int = FLOAT, channels: int = 16) -> Kernel:
    picture = Tensor(dtype, (1, channels, 32, 32))
    weight = [Tensor(dtype, (channels, channels, 3, 3))] if op == "Conv" else []
    return Kernel(op, op, op, (picture, *weight), (picture,), (False, *(True for _ in weight)), ())


def test_kernels_add_up_to_each_whole_run():
    whole = np.array([1.0, 2.0, 4.0])
    kernels = [kernel("Conv"), kernel("Relu"), kernel("Conv", INT8)]
    profile = shared_profile(RawProfile(b"", [], np.zeros((3, 0)), whole), kernels)
    np.testing.assert_allclose(profile.times_ms.sum(axis=1), whole)
    assert profile.whole_ms is whole and profile.kernels == kernels
    assert (profile.times_ms[2] == 4 * profile.times_ms[0]).all()


def test_a_model_without_kernels_has_whole_runs_alone():
    profile = shared_profile(RawProfile(b"", [], np.zeros((2, 0)), np.ones(2)), [])
    assert profile.times_ms.shape == (2, 0)


def test_more_work_costs_more_and_integers_less():
    assert cost(kernel("Conv")) > cost(kernel("Conv", INT8)) > cost(kernel("Relu", INT8)) > 0
    assert cost(kernel("Conv", channels=32)) > 2 * cost(kernel("Conv"))
    assert cost(kernel("Relu")) > cost(kernel("Relu", INT8))
