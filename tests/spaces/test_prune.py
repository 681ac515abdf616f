"""Pruning is exact: cutting channels out gives what the reference gives when nobody reads these channels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimfront.spaces.graph import Graph, serialized
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.prune import pruned, removed_entries, with_weights
from slimfront.spaces.repaired import FloatLayer

from .exactness import check, feeds_of, outputs, removal
from .networks import FREE, HEAD, NETWORKS, TAIL

ACTIVATIONS = (
    "Abs", "Atan", "Ceil", "Celu", "Cos", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu",
    "Log", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Softplus",
    "Softsign", "Sqrt", "Tanh", "ThresholdedRelu",
)  # fmt: skip


@pytest.fixture(scope="module")
def made(capture, weight) -> Callable[[str], Graph]:
    """A function (name) that returns the graph of one of the networks."""
    graphs: dict[str, Graph] = {}

    def graph(name: str) -> Graph:
        if name not in graphs:
            found = (NETWORKS | FREE)[name]
            values = {  # seeded by name: constants that are equal would become one
                key: weight(*value, seed=sum(key.encode())) if isinstance(value, tuple) else value
                for key, value in found.constants.items()
            }
            values |= {"wa": weight(8, 4, 3, 3), "ba": weight(8), "wz": weight(3, found.channels, 1, 1)}
            axes = "N,4,H,W" if name in FREE else "2,4,8,8"
            text = f"(float[{axes}] x) => (float[n,c,h,w] y) {{ {HEAD} {found.middle} {TAIL} }}"
            graphs[name] = capture(text, (2, 4, 8, 8), **values)
        return graphs[name]

    return graph


@pytest.mark.parametrize("name", NETWORKS | FREE)
def test_channels_that_belong_together_are_found(name, made):
    network, channels = (NETWORKS | FREE)[name], channel_groups(made(name))
    assert (channels.groups["a"].pieces if "a" in channels.groups else 0) == network.pieces
    if not network.pieces:
        assert network.frozen in channels.frozen["a"]


@pytest.mark.parametrize("name", NETWORKS)
def test_pruned_networks_compute_what_is_left(name, made):
    graph = made(name)
    channels = channel_groups(graph)
    for seed in range(2):
        if channels.groups:
            check(graph, removal(channels, np.random.default_rng(seed)))


@pytest.mark.parametrize("name", FREE)
def test_free_axes_stay_free(name, made):
    graph = made(name)
    channels = channel_groups(graph)
    for seed, sizes in enumerate(((2, 4, 8, 8), (3, 4, 16, 12))):
        if channels.groups:
            x = np.random.default_rng(seed).standard_normal(sizes).astype(np.float32)
            check(graph, removal(channels, np.random.default_rng(seed)), {"x": x})


def test_activations_are_followed(capture, weight):
    """All of them, one after the other, each on values between 0.2 and 0.8."""
    steps = "".join(
        f"s{i} = Sigmoid(t{i}) m{i} = Mul(s{i}, k) a{i} = Add(m{i}, l) t{i + 1} = {op}(a{i})"
        for i, op in enumerate(ACTIVATIONS)
    )
    text = f"(float[2,4,8,8] x) => (float[n,c,h,w] y) {{ [a] t0 = Conv(x, w) {steps} [z] y = Conv(t{len(ACTIVATIONS)}, v) }}"
    graph = capture(text, w=weight(8, 4, 1, 1), v=weight(3, 8, 1, 1), k=np.float32(0.6), l=np.float32(0.2))
    assert channel_groups(graph).groups["a"].pieces == 8
    check(graph, removal(channel_groups(graph), np.random.default_rng(0)))


@pytest.mark.parametrize("spatial", [(9,), (5, 4, 3)])
def test_convolutions_of_one_and_of_three_axes_are_followed(spatial, capture, weight):
    ones = [1] * len(spatial)
    sizes, pads = ",".join(map(str, spatial)), str([1] * 2 * len(spatial))
    graph = capture(
        f"(float[2,4,{sizes}] x) => (float[{','.join('nchwd'[: 2 + len(spatial)])}] y) {{ [a] p = Conv<pads={pads}>(x, wa)"
        f"r = Relu(p) [b] s = Conv<group=8>(r, wb) [c] t = ConvTranspose<strides={[2] * len(spatial)}>(s, wc)"
        "[z] y = Conv(t, wz) }",
        wa=weight(8, 4, *(3 for _ in spatial)),
        wb=weight(16, 1, *ones),
        wc=weight(16, 6, *(2 for _ in spatial)),
        wz=weight(3, 6, *ones),
    )
    assert {name: group.pieces for name, group in channel_groups(graph).groups.items()} == {"a": 8, "c": 6}
    check(graph, removal(channel_groups(graph), np.random.default_rng(1)))


def test_all_inputs_and_outputs_keep_their_channels(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x, float[1,6,8,8] u) => (float[n,c,h,w] y, float[n,d,h,w] q, float[6] b) {"
        "[a] p = Conv(x, wa) [b0] q = Conv(p, wb) r = Relu(q) [c] s = Conv(r, wc, b) t = Add(s, u) [d] v = Conv(t, wd, b)"
        "[z] y = Conv(v, wz, b) }",
        {"x": (1, 4, 8, 8), "u": (1, 6, 8, 8)},
        wa=weight(8, 4, 1, 1),
        wb=weight(5, 8, 1, 1),
        wc=weight(6, 5, 1, 1),
        wd=weight(6, 6, 1, 1, seed=1),
        wz=weight(6, 6, 1, 1),
        b=weight(6),
    )
    channels = channel_groups(graph)
    assert {name: group.pieces for name, group in channels.groups.items()} == {"a": 8, "d": 6}
    assert channels.frozen == {
        "b0": "they are the output of the model",
        "c": "they are an input of the model",
        "z": "they are the output of the model",
    }
    check(graph, removal(channels, np.random.default_rng(0), share=1))


def test_the_file_holds_what_is_left_and_nothing_else(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, wa, b) r = Mul(p, m) [b0] q = Conv(r, wb, b) s = Mul(q, m)"
        "[z] y = Conv(s, wz, bz) }",
        wa=weight(8, 4, 3, 3),
        wb=weight(8, 8, 3, 3),
        wz=weight(3, 8, 1, 1),
        b=weight(8),
        bz=weight(3),
        m=weight(8, 1, 1),
    )
    channels = channel_groups(graph)
    same = {"a": np.array([0, 2, 7]), "b0": np.array([0, 2, 7])}
    small = check(graph, removed_entries(channels, same))
    file = onnx.load_from_string(serialized(small.model))
    sizes = sorted(numpy_helper.to_array(tensor).size for tensor in file.graph.initializer)
    assert sizes == sorted([3 * 4 * 9, 3 * 3 * 9, 3 * 3, 3, 3, 3])  # the bias b and the factors m are still shared
    assert small.parameters == sum(sizes)
    other = check(graph, removed_entries(channels, {**same, "b0": np.array([1])}))
    assert other.parameters == 3 * 4 * 9 + 1 * 3 * 9 + 3 * 1 + (3 + 1) + 3 + (3 + 1)


def test_the_reference_stays_as_it_is(made):
    graph = made("window attention")
    before = graph.digest
    check(graph, removal(channel_groups(graph), np.random.default_rng(0)))
    del graph.digest
    assert graph.digest == before


@pytest.mark.parametrize("name", ["sum", "split", "window attention", "channel shuffle", "windows"])
def test_a_pruned_graph_can_be_pruned_again(name, made):
    graph = made(name)
    small = check(graph, removal(channel_groups(graph), np.random.default_rng(0)))
    channels = channel_groups(small)
    if channels.groups:
        check(small, removal(channels, np.random.default_rng(1)))


def test_new_weights_move_the_bias_of_their_own_layer_only(made, weight):
    graph = made("shared bias")
    shift = weight(8, seed=3)
    changed = with_weights(graph, {"b": FloatLayer(graph.weight(graph.layers["b"]), shift)})
    assert np.allclose(changed.bias(changed.layers["b"]), graph.bias(graph.layers["b"]) + shift)
    assert np.array_equal(changed.bias(changed.layers["c"]), graph.bias(graph.layers["c"]))


def test_a_layer_without_a_bias_gets_one_where_its_mean_moves(made, weight):
    graph = made("strided conv")
    layer, shift = graph.layers["b"], weight(8, seed=3)
    changed = with_weights(graph, {"b": FloatLayer(2 * graph.weight(layer), shift)})
    found, plain = (outputs(one.with_outputs(["q"]), feeds_of(graph))[0] for one in (changed, graph))
    assert np.allclose(found, 2 * plain + shift[:, None, None], atol=1e-5)


def test_what_is_not_removed_is_the_same_to_the_bit(made):
    graph = made("sum")
    same = pruned(graph, removed_entries(channel_groups(graph), {"a": np.arange(8)}))
    assert np.array_equal(outputs(same.model, feeds_of(graph))[0], outputs(graph.model, feeds_of(graph))[0])
