"""Which nodes run in integers: what the candidate names, and between them the cheapest assignment."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.domains import PREFER_INTEGER, TO_FLOAT, TO_INTEGER, has_integer_kernel
from slimfront.spaces.errors import BuildError
from slimfront.spaces.graph import Graph
from slimfront.spaces.integer_ops import OPS
from slimfront.spaces.rules import ONNX_RUNTIME

CHAIN = (
    "(float[1,8,16,16] x) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w)\n [r] b = Relu(a)\n"
    "[l] c = Conv<pads=[1,1,1,1]>(b, v)\n [s] d = Add(b, c)\n [t] e = Relu(d)\n [p] f = LeakyRelu(e)\n"
    "[g] g = GlobalAveragePool(f)\n [q] h = Mul(f, g)\n [m] y = Conv(h, u) }"
)
OPS_BETWEEN = ("r", "s", "t", "p", "g", "q")


@pytest.fixture(scope="module")
def graph(capture, weight):
    return capture(CHAIN, w=weight(8, 8, 3, 3), v=weight(8, 8, 3, 3, seed=1), u=weight(8, 8, 1, 1))


def cost(graph: Graph, candidate: Candidate, integer: frozenset[str]) -> float:
    """The cost of an assignment, added up node by node and tensor by tensor."""
    total = 0.0
    readers: dict[str, list[bool]] = {}
    writers = {}
    for node in graph.model.graph:
        share = max(np.prod(graph.shapes[v.name]) for v in (*node.outputs, node.inputs[0])) / 2**20
        if node.name not in graph.layers:
            costs = OPS[node.op_type].costs
            total += costs[0] * share if node.name in integer else costs[1] * share + PREFER_INTEGER
        for value in node.outputs:
            writers[value.name] = node.name in integer
        for value in node.inputs:
            if not value.is_initializer():
                readers.setdefault(value.name, []).append(node.name in integer)
    readers.setdefault("y", []).append(False)
    for name, wanted in readers.items():
        share = np.prod(graph.shapes[name]) / 2**20
        written = writers.get(name, False)
        if written and not all(wanted):
            total += TO_FLOAT * share
        if not written and any(wanted):
            total += TO_INTEGER * share
    return total


@pytest.mark.parametrize("layers", [c for n in (1, 2, 3) for c in itertools.combinations("klm", n)])
def test_the_assignment_is_the_cheapest_of_all(layers, graph):
    candidate = Candidate({name: LayerChoice(8, 8) for name in layers})
    found = ONNX_RUNTIME.integer_nodes(graph, candidate)
    assert found & {"k", "l", "m"} == set(layers)
    every = (
        frozenset(layers) | {op for op, integer in zip(OPS_BETWEEN, bits, strict=True) if integer}
        for bits in itertools.product([False, True], repeat=len(OPS_BETWEEN))
    )
    least = min(cost(graph, candidate, assignment) for assignment in every)
    assert cost(graph, candidate, found) == pytest.approx(least, rel=1e-6)


def test_all_integer_layers_leave_nothing_in_float(graph):
    candidate = Candidate({name: LayerChoice(4, 8) for name in graph.layers})
    assert ONNX_RUNTIME.integer_nodes(graph, candidate) == {node.name for node in graph.model.graph}


def test_nothing_runs_in_integers_without_integer_layers(graph):
    assert ONNX_RUNTIME.integer_nodes(graph, Candidate({"k": LayerChoice(4)})) == frozenset()


@pytest.mark.parametrize(
    ("text", "shape", "able"),
    [
        ("Conv(x, w)", (8, 4, 3, 3), True),
        ("Conv<group=4>(x, w)", (4, 1, 3, 3), True),
        ("Conv<dilations=[2,2]>(x, w)", (8, 4, 3, 3), True),
        ("ConvTranspose<strides=[2,2]>(x, w)", (4, 8, 3, 3), True),
        ("ConvTranspose<group=2>(x, w)", (4, 4, 3, 3), False),
        ("ConvTranspose<dilations=[2,2]>(x, w)", (4, 8, 3, 3), False),
        ('ConvTranspose<auto_pad="SAME_UPPER",strides=[2,2]>(x, w)', (4, 8, 3, 3), False),
        ("ConvTranspose<output_shape=[17,17],strides=[2,2]>(x, w)", (4, 8, 3, 3), False),
        ("MatMul(x, w)", (8, 3), True),
    ],
)  # fmt: skip
def test_the_layers_with_integer_kernels_are_known_and_build(
    text, shape, able, capture, weight, noise, run, reference, optimized, exact_bits
):
    from slimfront.spaces.build import Builder

    graph = capture(f"(float[1,4,8,8] x) => (float[n,c,h,w] y) {{ [k] y = {text} }}", w=weight(*shape))
    assert has_integer_kernel(graph, graph.layers["k"]) == able
    x = noise(4, 4, 8, 8)
    builder = Builder(graph, {"x": x}, rounding="plain")
    candidate = Candidate({"k": LayerChoice(exact_bits, 8)})
    if able:
        built = builder.build(candidate)
        look = optimized(built)
        assert look.integer_kernels == 1 and not look.lacking
    else:
        with pytest.raises(BuildError, match="no integer kernel"):
            builder.build(candidate)
        built = builder.build(Candidate({"k": LayerChoice(8)}))
    expected = reference(graph, x[:1])
    assert np.sqrt(np.mean((run(built, x[:1]) - expected) ** 2)) < 1.2 * np.ptp(expected) / 255
