"""The table of kernel times: what was measured stays, what was not lies between its neighbours, and all of it is kept."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.objectives.kernel_family import LEAST_FITTED, MS_PER_ELEMENT, MS_PER_MULTIPLY_ADD
from slimfront.objectives.kernel_family import KernelTime as Time
from slimfront.objectives.kernel_times import KEPT, LEAST_MS, SHARES, KernelTimes, family, share, total
from slimfront.spaces.kernel_shapes import FLOAT, INT8, UINT8, Tensor
from slimfront.spaces.kernels import Kernel


def conv(inputs: int, outputs: int, size: int = 32, op: str = "Conv", kernel: int = 3) -> Kernel:
    dtype, stored = (UINT8, INT8) if op == "QLinearConv" else (FLOAT, FLOAT)
    image, result = Tensor(dtype, (1, inputs, size, size)), Tensor(dtype, (1, outputs, size, size))
    weights = Tensor(stored, (outputs, inputs, kernel, kernel))
    return Kernel(
        "",
        "y",
        op,
        (image, weights),
        (result,),
        (False, True),
        (("kernel_shape", (kernel, kernel)),),
        ("x", "w"),
        ("y",),
    )


def simple(op: str, channels: int = 8) -> Kernel:
    image = Tensor(FLOAT, (1, channels, 32, 32))
    return Kernel("", "y", op, (image,), (image,), (False,), ())


def truth(kernel: Kernel) -> float:
    return 2e-7 * kernel.multiply_adds + 1e-6 * kernel.elements + 0.002


WIDTHS = (4, 8, 16, 24, 32, 48, 64)


@pytest.fixture
def measured() -> KernelTimes:
    times = KernelTimes()
    kernels = [conv(i, o) for i in WIDTHS for o in WIDTHS]
    for _ in range(3):
        ms = np.array([truth(kernel) for kernel in kernels])
        times.add(kernels, ms)
    return times


def test_measured_kernels_keep_their_own_times(measured):
    """Even where one is far from what its family tells."""
    odd = conv(40, 40)
    for _ in range(8):
        measured.add([odd], np.array([3 * truth(odd)]))
    assert measured.time(odd.key).ms == pytest.approx(3 * truth(odd), rel=0.1)
    known = conv(16, 24)
    assert measured.knows(known.key)
    assert measured.time(known.key).ms == pytest.approx(truth(known), rel=0.05)


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 12), (20, 40), (56, 28), (10, 60)])
def test_kernels_between_measured_ones_take_times_between(inputs, outputs, measured):
    between = conv(inputs, outputs)
    key = measured.describe(between)
    assert not measured.knows(key)
    found = measured.time(key)
    assert found.ms == pytest.approx(truth(between), rel=0.08)
    assert found.spread > measured.time(measured.describe(conv(16, 24))).spread


def test_a_kernel_far_from_all_that_were_measured_is_less_sure(measured):
    near, far = (measured.time(measured.describe(conv(*widths))) for widths in ((20, 20), (2000, 2000)))
    assert far.spread > near.spread


def test_of_a_few_kernels_the_nearest_tells_by_its_work():
    times, known, other = KernelTimes(), conv(16, 16), conv(16, 32)
    times.add([known], np.array([0.5]))
    assert times.time(known.key).ms == pytest.approx(0.5)
    found = times.time(times.describe(other))
    assert found.ms == pytest.approx(1.0, rel=0.01), "twice the work"
    assert found.spread > times.time(known.key).spread


def test_a_family_without_measurements_is_guessed_by_its_work_and_very_unsure():
    times, kernel = KernelTimes(), conv(64, 64)
    found = times.time(times.describe(kernel))
    assert found.ms == pytest.approx(
        MS_PER_ELEMENT * kernel.elements + MS_PER_MULTIPLY_ADD * kernel.multiply_adds, rel=1e-6
    )
    assert found.spread > 0.5


def test_families_do_not_tell_each_other_s_times(measured):
    integer = conv(16, 16, op="QLinearConv")
    before = measured.time(measured.describe(conv(20, 20))).ms
    measured.add([integer] * 2, np.array([5.0, 7.0]))
    assert measured.time(integer.key).ms == pytest.approx(6.0), "equal kernels of a model count with their mean"
    assert measured.time(conv(20, 20).key).ms == pytest.approx(before, rel=1e-6)
    assert len({family(kernel) for kernel in (integer, conv(16, 16), conv(16, 16, kernel=1), simple("Relu"))}) == 4


def test_only_the_latest_measurements_are_kept_and_none_is_zero():
    times, kernel = KernelTimes(), conv(8, 8)
    for n in range(KEPT + 5):
        times.add([kernel], np.array([float(n >= 5)]))
    assert times.kernels[kernel.key].ms == [1.0] * KEPT
    times.add([simple("Relu")], np.array([0.0]))
    assert times.kernels[simple("Relu").key].ms == [LEAST_MS]


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (conv(8, 8, op="QLinearConv"), "integer products"),
        (conv(8, 8), "float products"),
        (simple("QuantizeLinear"), "conversions"),
        (simple("com.microsoft.nchwc.ReorderInput"), "conversions"),
        (simple("Add"), "other"),
    ],
)
def test_a_kernel_counts_as_one_share(kernel, expected):
    assert share(kernel) == expected and expected in SHARES


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 64), st.lists(st.floats(1e-3, 10.0), max_size=LEAST_FITTED)), max_size=6))
def test_a_table_is_kept_as_plain_arrays(rows):
    times = KernelTimes()
    for width, values in rows:
        times.describe(conv(width, 8))
        for value in values:
            times.add([conv(width, 8), simple("Relu")], np.array([value, 0.1]))
    stored = io.BytesIO()
    np.savez(stored, **times.to_arrays())
    stored.seek(0)
    with np.load(stored, allow_pickle=False) as arrays:
        again = KernelTimes.from_arrays(dict(arrays))
    assert again.kernels == times.kernels
    assert list(again.kernels) == list(times.kernels)
    for key in times.kernels:
        assert again.time(key).ms == pytest.approx(times.time(key).ms, rel=0.02)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 10.0), st.floats(0.0, 0.5), st.integers(1, 4)), min_size=1, max_size=8))
def test_a_sum_is_as_unsure_as_its_parts_allow(parts):
    """Between what independent errors and what common ones come to."""
    ms, spread = total([Time(ms, spread) for ms, spread, _ in parts], [count for *_, count in parts])
    errors = np.array([count * ms * spread for ms, spread, count in parts])
    assert ms == pytest.approx(sum(count * ms for ms, _, count in parts))
    assert np.sqrt((errors**2).sum()) <= spread * (1 + 1e-9) + 1e-12 and spread <= errors.sum() * (1 + 1e-9) + 1e-12
