"""Rounding methods: what each must keep, and that second-order rounding never loses to plain on its own objective."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.errors import InputError
from slimfront.spaces.repaired import rounding_method
from slimfront.spaces.rounding import METHODS, Grid, damped, inverse_factor, output_error

from .random_layers import layers_of, weights_and_inputs

WIDTHS = (2, 3, 4, 5, 6, 7, 8)
METHOD_NAMES = sorted(METHODS)


def a_layer(
    seed: int, rows: int, inputs: int, samples: int, scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return weights [R, D], the centred Gram matrix of random inputs, and their mean; few samples make it singular."""
    weights, x = weights_and_inputs(seed, rows, inputs, samples, scale)
    mean = x.mean(axis=0)
    gram = (x.T @ x / samples - np.outer(mean, mean)).astype(np.float32)
    return weights, gram, mean.astype(np.float32)


layers = layers_of(a_layer)


@settings(max_examples=60, deadline=None)
@given(layer=layers, with_mean=st.booleans())
def test_second_order_is_never_worse_than_plain_on_its_own_objective(layer, with_mean):
    weights, gram, mean = layer
    mean = mean if with_mean else None
    channels = np.arange(len(weights))
    plain = METHODS["plain"]().round(weights, gram, mean, WIDTHS, channels)
    second = METHODS["second-order"]().round(weights, gram, mean, WIDTHS, channels)
    hessian = damped(gram)
    for bits in WIDTHS:
        errors = [
            output_error(weights, found[bits].codes * found[bits].scale[:, None].astype(np.float64), hessian)
            for found in (plain, second)
        ]
        resolution = 1e-12 * output_error(weights, 0 * weights, hessian)  # of float32, in terms of the squared output
        assert np.all(errors[1] <= errors[0] * (1 + 1e-5) + resolution)


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_second_order_saves_a_quarter_of_the_output_error_where_inputs_are_correlated(bits):
    weights, gram, mean = a_layer(1, 16, 64, 1000)
    channels = np.arange(len(weights))
    errors = {}
    for name in ("plain", "second-order"):
        found = METHODS[name]().round(weights, gram, mean, (bits,), channels)[bits]
        errors[name] = output_error(weights, found.codes * found.scale[:, None], gram).sum()
    assert errors["second-order"] < 0.75 * errors["plain"]


def test_the_inverse_factor_is_upper_triangular_and_gives_the_inverse():
    hessian = damped(a_layer(3, 1, 40, 100)[1])
    upper = inverse_factor(hessian)
    assert np.array_equal(upper, np.triu(upper))
    assert np.allclose(upper.T @ upper @ hessian, np.eye(40), atol=1e-3)


def test_output_error_is_the_mean_squared_error_of_the_outputs():
    random = np.random.default_rng(0)
    weights, other = random.standard_normal((2, 4, 6))
    x = random.standard_normal((50, 6))
    direct = np.mean((x @ weights.T - x @ other.T) ** 2, axis=0)
    assert np.allclose(output_error(weights, other, x.T @ x / 50), direct)


@pytest.mark.parametrize("method", METHOD_NAMES)
@settings(max_examples=25, deadline=None)
@given(layer=layers, shared=st.booleans())
def test_codes_lie_on_the_grid_and_scales_are_positive(method, layer, shared):
    weights, gram, mean = layer
    channels = np.arange(len(weights)) // 2 if shared else np.arange(len(weights))
    for bits, rows in METHODS[method]().round(weights, gram, mean, WIDTHS, channels).items():
        grid = Grid(bits)
        steps = (rows.codes.astype(int) + rows.zero[:, None]) / grid.step
        assert rows.codes.dtype == np.int8 and rows.codes.shape == weights.shape
        assert np.array_equal(steps, np.round(steps))
        assert steps.min() >= grid.lowest and steps.max() <= grid.highest
        assert set(rows.zero.tolist()) <= set(grid.zeros)
        assert np.all(rows.scale > 0) and np.all(np.isfinite(rows.scale))
        assert np.all(np.isfinite(rows.shift))
        for channel in set(channels.tolist()):
            assert len({*rows.scale[channels == channel].tolist()}) == 1


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_rounding_twice_gives_the_same(method):
    weights, gram, mean = a_layer(3, 5, 20, 40)
    first, second = (METHODS[method]().round(weights, gram, mean, WIDTHS, np.arange(5)) for _ in range(2))
    for bits in WIDTHS:
        for field in ("codes", "scale", "zero", "shift"):
            assert np.array_equal(getattr(first[bits], field), getattr(second[bits], field))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_width_is_rounded_alike_alone_and_among_others(method):
    weights, gram, mean = a_layer(4, 4, 12, 40)
    together = METHODS[method]().round(weights, gram, mean, WIDTHS, np.arange(4))
    for bits in WIDTHS:
        alone = METHODS[method]().round(weights, gram, mean, (bits,), np.arange(4))[bits]
        a, b = (rows.codes * rows.scale[:, None] for rows in (alone, together[bits]))
        assert np.allclose(output_error(weights, a, gram), output_error(weights, b, gram), rtol=0.05, atol=1e-9)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_masked_weights_stay_zero(method, bits):
    weights, gram, mean = a_layer(5, 6, 20, 40)
    mask = np.random.default_rng(0).random(weights.shape) < 0.7
    rows = METHODS[method]().round(weights * mask, gram, mean, (bits,), np.arange(6), mask)[bits]
    assert not rows.codes[~mask].any()
    assert rows.codes[mask].any()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_rows_of_zeros_stay_next_to_zero(method):
    weights, gram, mean = a_layer(6, 4, 10, 40)
    weights[1] = 0
    for rows in METHODS[method]().round(weights, gram, mean, WIDTHS, np.arange(4)).values():
        assert np.abs(rows.codes[1] * rows.scale[1]).max() < 1e-3 * np.abs(weights).max()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_a_layer_of_zeros_stays_zero(method):
    _, gram, mean = a_layer(7, 3, 10, 40)
    for rows in METHODS[method]().round(np.zeros((3, 10), np.float32), gram, mean, WIDTHS, np.arange(3)).values():
        assert np.abs(rows.codes * rows.scale[:, None]).max() < 1e-9
        assert np.abs(rows.shift).max() < 1e-6


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_inputs_that_are_always_zero_do_no_harm(method):
    weights, _, _ = a_layer(8, 3, 10, 40)
    rows = METHODS[method]().round(
        weights, np.zeros((10, 10), np.float32), np.zeros(10, np.float32), (4,), np.arange(3)
    )[4]
    assert np.abs(rows.codes * rows.scale[:, None] - weights).max() < 0.25 * np.abs(weights).max()


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_shift_keeps_the_mean_output(method):
    weights, gram, mean = a_layer(9, 4, 10, 40)
    rows = METHODS[method]().round(weights, gram, mean, (3,), np.arange(4))[3]
    rounded = rows.codes * rows.scale[:, None]
    assert np.allclose(rounded @ mean + rows.shift, weights @ mean, atol=1e-3)


@pytest.mark.parametrize("method", METHOD_NAMES)
@pytest.mark.parametrize("bits", WIDTHS)
def test_without_statistics_every_weight_takes_the_nearest_code(method, bits):
    weights, _, _ = a_layer(10, 4, 50, 40)
    rows = METHODS[method]().round(weights, None, None, (bits,), np.arange(4))[bits]
    grid = Grid(bits)
    steps = grid.step * np.arange(grid.lowest, grid.highest + 1)
    levels = (steps - rows.zero[:, None]) * rows.scale[:, None]  # [R, 2**bits]
    least = np.abs(weights[:, :, None] - levels[:, None, :]).min(axis=2)
    assert np.allclose(np.abs(rows.codes * rows.scale[:, None] - weights), least, atol=1e-6)
    assert np.mean(least**2) < 0.15 * 4.0 ** (2 - bits)  # of unit variance: an optimal 2-bit quantiser leaves 0.12


@given(st.sampled_from(WIDTHS))
def test_grids_have_as_many_codes_as_bits_allow(bits):
    grid = Grid(bits)
    for zero in grid.zeros:
        reached = set(grid.nearest(np.linspace(-300, 300, 6001), zero).tolist())
        assert len(reached) == (255 if bits == 8 else 2**bits)
        assert min(reached) >= -128 and max(reached) <= 127


def test_an_unknown_rounding_method_names_the_nearest():
    with pytest.raises(InputError, match=r"'second_order'.*did you mean 'second-order'"):
        rounding_method("second_order")


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_masked_weights_have_no_say_in_the_grid(method):
    """Weights of -3, -1, 1, 3 are exact in two bits, on a grid without zero, however many structural zeros lie between."""
    weights = np.array([[-3, 0, 1, 0, 0, 3, 0, -1, 0, 0]], np.float32)
    mask = weights != 0
    gram = np.eye(10, dtype=np.float32)
    rows = METHODS[method]().round(weights, gram, None, (2,), np.arange(1), mask)[2]
    assert np.allclose(rows.codes * rows.scale[:, None], weights, atol=1e-5)


# --- sparse layers --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_sparse_layer_that_keeps_its_zeros_has_a_code_for_them(bits):
    zeros = Grid(bits, sparse=False).zeros
    assert set(zeros) < set(Grid(bits).zeros) or bits > 4
    for zero in zeros:
        assert Grid(bits, sparse=False).nearest(np.zeros(1), zero) == 0


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_sparse_layer_that_leaves_its_zeros_out_has_one_offset(bits):
    assert len(Grid(bits, sparse=True).zeros) == 1
    assert set(Grid(bits, sparse=True).zeros) <= set(Grid(bits).zeros)


@pytest.mark.parametrize("method", METHOD_NAMES)
@settings(max_examples=25, deadline=None)
@given(layer=layers, sparsity=st.sampled_from([0.2, 0.5, 0.8]), left_out=st.sets(st.sampled_from(WIDTHS)))
def test_codes_of_a_sparse_layer_lie_on_its_grids(method, layer, sparsity, left_out):
    weights, gram, mean = layer
    mask = np.random.default_rng(0).random(weights.shape) >= sparsity
    found = METHODS[method]().round(weights * mask, gram, mean, WIDTHS, np.arange(len(weights)), mask, sparse=left_out)
    for bits, rows in found.items():
        grid = Grid(bits, sparse=bits in left_out)
        stored = mask if bits in left_out else np.ones_like(mask)
        steps = ((rows.codes.astype(int) + rows.zero[:, None]) / grid.step)[stored]
        assert set(rows.zero.tolist()) <= set(grid.zeros)
        assert not rows.codes[~mask].any()
        assert np.array_equal(steps, np.round(steps))
        assert np.all(steps >= grid.lowest) and np.all(steps <= grid.highest)
