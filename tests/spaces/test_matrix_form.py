"""Layers as matrix products, against PyTorch's own convolutions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.graph import Layer
from slimfront.spaces.matrix import columns, from_matrix, has_matrix, mask, row_channels, to_matrix


def a_layer(op: str, shape: tuple[int, ...], **geometry) -> Layer:
    spatial = len(shape) - 2
    defaults = {"strides": (1,) * spatial, "pads": (0,) * 2 * spatial, "dilations": (1,) * spatial}
    defaults["output_padding"] = (0,) * spatial
    return Layer("layer", op, ("layer",), "w", shape, math.prod(shape), **(defaults | geometry))


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


CONVOLUTIONS = [
    a_layer("Conv", (4, 3, 3, 3), pads=(1, 1, 1, 1)),
    a_layer("Conv", (4, 3, 1, 1)),
    a_layer("Conv", (4, 3, 3, 5), pads=(0, 2, 1, 1), strides=(2, 1)),
    a_layer("Conv", (6, 2, 3, 3), group=2, pads=(1, 1, 1, 1), strides=(2, 2)),
    a_layer("Conv", (4, 1, 3, 3), group=4, dilations=(2, 3), pads=(2, 2, 2, 2)),
    a_layer("Conv", (4, 3, 5), pads=(2, 1), strides=(3,)),
    a_layer("Conv", (2, 3, 2, 3, 2), pads=(1, 0, 1, 0, 1, 0)),
]
TRANSPOSED = [
    a_layer("ConvTranspose", (3, 4, k, k), strides=(s, s), group=1)
    for k, s in [(4, 2), (2, 2), (3, 2), (5, 3), (3, 1), (1, 2), (6, 2), (2, 3)]
] + [
    a_layer("ConvTranspose", (6, 2, 4, 3), strides=(2, 3), group=3),
    a_layer("ConvTranspose", (3, 4, 5), strides=(2,)),
    a_layer("ConvTranspose", (2, 3, 2, 3, 4), strides=(1, 2, 2)),
]
PRODUCTS = [
    a_layer("MatMul", (5, 7)),
    a_layer("Gemm", (7, 5), transposed=True),
    a_layer("Gemm", (5, 7)),
]


def name_of(layer: Layer) -> str:
    return f"{layer.op}{list(layer.shape)}s{list(layer.strides)}g{layer.group}"


@pytest.mark.parametrize("layer", CONVOLUTIONS + TRANSPOSED + PRODUCTS, ids=name_of)
def test_from_matrix_inverts_to_matrix(layer):
    weight = values(*layer.shape)
    rows = to_matrix(layer, weight)
    assert np.array_equal(from_matrix(layer, rows), weight)
    assert row_channels(layer).shape == rows.shape[:2]
    assert set(row_channels(layer).ravel().tolist()) == set(range(layer.channels))


@settings(max_examples=60, deadline=None)
@given(
    kernel=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    data=st.data(),
    group=st.integers(1, 3),
    per_group=st.integers(1, 3),
)
def test_from_matrix_inverts_to_matrix_for_any_transposed_convolution(kernel, data, group, per_group):
    strides = tuple(data.draw(st.integers(1, 4)) for _ in kernel)
    layer = a_layer("ConvTranspose", (2 * group, per_group, *kernel), strides=strides, group=group)
    weight = values(*layer.shape)
    rows = to_matrix(layer, weight)
    assert np.array_equal(from_matrix(layer, rows), weight)
    taps = mask(layer)
    if taps is None:
        assert rows.size == weight.size
    else:
        assert int(taps.sum()) == weight.size
        assert not rows[~taps].any()


@pytest.mark.parametrize("layer", CONVOLUTIONS, ids=name_of)
def test_convolution_is_the_product_of_rows_and_columns(layer):
    import torch

    spatial = len(layer.kernel)
    x = values(2, layer.shape[1] * layer.group, *(9, 8, 7)[:spatial])
    weight = values(*layer.shape, seed=1)
    pads = [pad for axis in reversed(range(spatial)) for pad in (layer.pads[axis], layer.pads[spatial + axis])]
    conv = (torch.nn.functional.conv1d, torch.nn.functional.conv2d, torch.nn.functional.conv3d)[spatial - 1]
    expected = conv(
        torch.nn.functional.pad(torch.from_numpy(x), pads),
        torch.from_numpy(weight),
        stride=layer.strides,
        dilation=layer.dilations,
        groups=layer.group,
    ).numpy()
    product = columns(layer, x, 10**6, np.random.default_rng(0)) @ to_matrix(layer, weight).transpose(0, 2, 1)
    positions = expected.shape[2:]
    found = product.transpose(0, 2, 1).reshape(layer.channels, x.shape[0], *positions).swapaxes(0, 1)
    assert np.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("layer", TRANSPOSED, ids=name_of)
def test_transposed_convolution_is_the_product_of_rows_and_columns(layer):
    import torch

    spatial = len(layer.kernel)
    x = values(2, layer.shape[0], *(5, 4, 3)[:spatial])
    weight = values(*layer.shape, seed=1)
    functions = torch.nn.functional
    conv = (functions.conv_transpose1d, functions.conv_transpose2d, functions.conv_transpose3d)[spatial - 1]
    expected = conv(torch.from_numpy(x), torch.from_numpy(weight), stride=layer.strides, groups=layer.group).numpy()
    product = columns(layer, x, 10**6, np.random.default_rng(0)) @ to_matrix(layer, weight).transpose(0, 2, 1)
    sizes = [n + math.ceil(k / s) - 1 for n, k, s in zip(x.shape[2:], layer.kernel, layer.strides, strict=True)]
    found = np.zeros((x.shape[0], layer.channels, *(n * s for n, s in zip(sizes, layer.strides, strict=True))))
    for group in range(layer.group):
        for row in range(product.shape[2]):
            phase, channel = divmod(row, layer.shape[1])
            offsets = np.unravel_index(phase, layer.strides)
            place = tuple(slice(o, None, s) for o, s in zip(offsets, layer.strides, strict=True))
            plane = product[group, :, row].reshape(x.shape[0], *sizes)
            found[(slice(None), group * layer.shape[1] + channel, *place)] = plane
    inside = tuple(slice(0, n) for n in expected.shape[2:])
    assert np.allclose(found[(slice(None), slice(None), *inside)], expected, atol=1e-4)
    beyond = found.copy()
    beyond[(slice(None), slice(None), *inside)] = 0
    assert not beyond.any()


@pytest.mark.parametrize("layer", PRODUCTS, ids=name_of)
@pytest.mark.parametrize("leading", [(3,), (2, 3), (2, 1, 4)])
def test_linear_is_the_product_of_rows_and_columns(layer, leading):
    import torch

    weight = values(*layer.shape)
    x = values(*leading, layer.shape[1] if layer.transposed else layer.shape[0], seed=1)
    stored = weight if layer.transposed else weight.T
    expected = torch.nn.functional.linear(torch.from_numpy(x), torch.from_numpy(np.ascontiguousarray(stored))).numpy()
    found = columns(layer, x, 10**6, np.random.default_rng(0)) @ to_matrix(layer, weight).transpose(0, 2, 1)
    assert np.allclose(found[0], expected.reshape(-1, layer.channels), atol=1e-5)


def test_a_limit_samples_whole_columns_without_repetition():
    layer = CONVOLUTIONS[0]
    x = values(2, 3, 9, 8)
    all_columns = columns(layer, x, 10**6, np.random.default_rng(0))[0]
    some = columns(layer, x, 20, np.random.default_rng(0))[0]
    assert some.shape == (20, all_columns.shape[1])
    whole = [row.tobytes() for row in all_columns]
    chosen = [whole.index(row.tobytes()) for row in some]
    assert len(set(chosen)) == 20


def test_a_dilated_transposed_convolution_has_no_matrix_form():
    assert not has_matrix(a_layer("ConvTranspose", (3, 4, 3, 3), dilations=(2, 2)))
    assert has_matrix(a_layer("Conv", (4, 3, 3, 3), dilations=(2, 2)))
