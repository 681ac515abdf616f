"""A narrowed layer is the layer of the pruned graph: same shapes, same weights, the same columns of its matrix."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.groups import channel_groups
from slimfront.spaces.matrix import from_matrix, matrix_inputs, to_matrix
from slimfront.spaces.narrow import (
    kept_inputs,
    kept_outputs,
    matrix_columns,
    old_outputs,
    take_outputs,
    whole_axis,
    with_inputs,
)
from slimfront.spaces.prune import pruned, removed_entries

# fmt: off
MIDDLES = {  # from p [1, 8, 6, 6] to q, the shape of w, the channels of q
    "conv": ("[b] q = Conv<pads=[1,1,1,1]>(p, w)", (6, 8, 3, 3), 6),
    "grouped conv": ("[b] q = Conv<group=2>(p, w)", (6, 4, 2, 2), 6),
    "depthwise conv": ("[b] q = Conv<group=8>(p, w)", (8, 1, 3, 3), 8),
    "depthwise conv with multiplier": ("[b] q = Conv<group=8>(p, w)", (16, 1, 3, 3), 16),
    "transposed conv": ("[b] q = ConvTranspose<strides=[2,2]>(p, w)", (8, 6, 3, 3), 6),
    "grouped transposed conv": ("[b] q = ConvTranspose<group=2, strides=[2,2]>(p, w)", (8, 3, 4, 4), 6),
    "depthwise transposed conv": ("[b] q = ConvTranspose<group=8, strides=[2,2]>(p, w)", (8, 2, 2, 2), 16),
    "gemm": ("g = GlobalAveragePool(p) f = Flatten(g) [b] h = Gemm(f, w) q = Unsqueeze(h, ax)", (8, 6), 6),
    "transposed gemm": ("g = GlobalAveragePool(p) f = Flatten(g) [b] h = Gemm<transB=1>(f, w) q = Unsqueeze(h, ax)", (6, 8), 6),
    "matmul": ("t = Transpose<perm=[0,2,3,1]>(p) [b] m = MatMul(t, w) q = Transpose<perm=[0,3,1,2]>(m)", (8, 6), 6),
}
# fmt: on


@pytest.fixture(scope="module", params=MIDDLES)
def graph(request, capture, weight):
    middle, shape, channels = MIDDLES[request.param]
    constants = {"ax": np.array([2, 3])} if "gemm" in request.param else {}
    text = f"(float[1,4,6,6] x) => (float[n,c,h,w] y) {{ [a] p = Conv(x, wa) {middle} [z] y = Conv(q, wz) }}"
    return capture(text, wa=weight(8, 4, 1, 1), w=weight(*shape), wz=weight(3, channels, 1, 1), **constants)


def choices(graph) -> list[dict]:
    """Return what goes where each group, and then all of them, keep some pieces."""
    channels = channel_groups(graph)
    kept = {name: np.arange(0, group.pieces, 2) for name, group in channels.groups.items()}
    return [removed_entries(channels, part) for part in (*({name: own} for name, own in kept.items()), kept)]


def test_weights_are_those_of_the_pruned_graph(graph):
    for removed in choices(graph):
        small = pruned(graph, removed)
        for name, layer in graph.layers.items():
            weight, inputs, outputs = graph.weight(layer), kept_inputs(layer, removed), kept_outputs(layer, removed)
            if inputs is not None:
                weight = np.take(weight, whole_axis(layer, inputs), layer.input_axis)
            narrow = layer if inputs is None else with_inputs(layer, inputs)
            assert weight.shape == narrow.shape
            if outputs is not None:
                weight = take_outputs(narrow, weight, outputs)
                assert small.layers[name].channels == len(outputs)
            assert np.array_equal(weight, small.weight(small.layers[name]))


def test_rows_and_columns_of_the_matrix_are_those_that_stay(graph):
    for removed in choices(graph):
        small = pruned(graph, removed)
        for name, layer in graph.layers.items():
            inputs, outputs = kept_inputs(layer, removed), kept_outputs(layer, removed)
            whole, groups = old_outputs(layer, outputs)
            rows = to_matrix(
                whole, graph.weight(layer) if outputs is None else take_outputs(layer, graph.weight(layer), outputs)
            )
            if inputs is not None:
                rows = rows[:, :, matrix_columns(layer, inputs)]
            narrow = small.layers[name]
            assert rows.shape[2] == matrix_inputs(narrow)
            assert np.array_equal(from_matrix(narrow, rows), small.weight(narrow))
            assert len(np.arange(layer.group)[groups]) == narrow.group
