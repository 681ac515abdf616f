"""Equalised graphs compute the same function, with inner channels of like size."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.equalise import WAYS, equalised
from slimfront.spaces.statistics import activations

UNEQUAL = np.geomspace(0.01, 3, 8, dtype=np.float32)[:, None, None, None]
NETWORKS = {
    "chain": "[k] a = Conv(x, w, b)\n r = Relu(a)\n [l] c = Conv(r, v, b)\n s = LeakyRelu<alpha=0.2>(c)\n [m] y = Conv(s, u)",
    "residual": "[k] a = Conv(x, w, b)\n r = Relu(a)\n [l] c = Conv(r, v)\n d = Add(c, r)\n [m] y = Conv(d, u)",
    "prelu": "[k] a = Conv(x, w, b)\n r = PRelu(a, s)\n [m] y = Conv(r, u)",
    "transposed": "[k] a = Conv(x, w)\n r = Relu(a)\n [l] c = ConvTranspose<strides=[2,2]>(r, t, b)\n d = Relu(c)\n"
    "[m] y = Conv(d, u)",
    "grouped": "[k] a = Conv(x, w)\n r = Relu(a)\n [l] c = Conv<group=4>(r, g, b)\n [o] d = ConvTranspose<group=2>(c, h, b)\n"
    "[m] y = Conv(d, u)",
    "pooled": "[k] a = Conv(x, w)\n r = MaxPool<kernel_shape=[2,2]>(a)\n c = AveragePool<kernel_shape=[2,2]>(r)\n"
    "[m] y = Conv(c, u)",
    "padded": '[k] a = Conv(x, w)\n c = Pad(a, p)\n d = Resize<mode="nearest">(c, , f)\n e = Relu(d)\n [m] y = Conv(e, u)',
    "gate": "[k] a = Conv(x, w)\n r = Relu(a)\n c = GlobalAveragePool(r)\n [l] d = Conv(c, v)\n e = Sigmoid(d)\n"
    "f = Mul(r, e)\n [m] y = Conv(f, u)",
    "not homogeneous": "[k] a = Conv(x, w)\n c = Tanh(a)\n [m] y = Conv(c, u)",
    "clipped": "[k] a = Conv(x, w)\n c = Clip(a, zero, six)\n [m] y = Conv(c, u)",
    "sum with a constant": "[k] a = Conv(x, w)\n c = Add(a, one)\n [m] y = Conv(c, u)",
    "sum of constants per channel": "[k] a = Conv(x, w)\n c = Mul(a, q)\n d = Relu(c)\n [m] y = Conv(d, u)",
    "pad with ones": "[k] a = Conv(x, w)\n c = Pad(a, p, one)\n [m] y = Conv(c, u)",
    "gate twice": "[k] a = Conv(x, w)\n r = Sigmoid(a)\n c = Mul(a, r)\n d = Mul(c, r)\n [m] y = Conv(d, u)",
    "product of tensors": "[k] a = Conv(x, w)\n [l] c = Conv(a, v)\n d = Mul(a, c)\n [m] y = Conv(d, u)",
    "concat": "[k] a = Conv(x, w)\n [l] c = Conv(a, v)\n d = Concat<axis=1>(a, c)\n e = Relu(d)\n [m] y = Conv(e, z)",
    "normalised": "[k] a = Conv(x, w)\n c = InstanceNormalization(a, i, b)\n [m] y = Conv(c, u)",
    "shared weights": "[k] a = Conv(x, w)\n r = Relu(a)\n [l] c = Conv(r, v, b)\n d = Relu(c)\n"
    "[o] e = Conv(d, v, b)\n [m] y = Conv(e, u)",
    "two readers": "[k] a = Conv(x, w)\n r = Relu(a)\n [l] c = Conv(r, v)\n [o] d = Conv(r, n)\n e = Tanh(d)\n"
    "f = Add(c, e)\n [m] y = Conv(f, u)",
    "also an output": "[k] a = Conv(x, w)\n y = Relu(a)\n [m] q = Conv(y, u)",
    "difference": "[k] a = Conv(x, w)\n r = Relu(a)\n c = Sub(a, r)\n [m] y = Conv(c, u)",
}  # fmt: skip


@pytest.fixture(scope="module")
def network(capture, weight):
    """A function (name) that returns the graph of one of the networks."""
    available = {
        "w": UNEQUAL * weight(8, 4, 3, 3), "v": weight(8, 8, 1, 1), "u": weight(3, 8, 1, 1), "b": weight(8),
        "n": weight(8, 8, 1, 1, seed=1), "t": weight(8, 8, 2, 2), "g": weight(8, 2, 3, 3), "h": weight(8, 4, 3, 3),
        "z": weight(3, 16, 1, 1), "s": np.linspace(-0.5, 1.5, 8, dtype=np.float32).reshape(8, 1, 1),
        "p": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "f": np.array([1, 1, 2, 2], np.float32), "i": np.ones(8, np.float32),
        "zero": np.float32(0), "six": np.float32(0.5), "one": np.float32(1), "q": UNEQUAL[:, :, :, 0],
    }  # fmt: skip

    def made(name: str):
        body = NETWORKS[name]
        written = {part.split("=")[0].split("]")[-1].strip() for part in body.split("\n")}
        read = {word.strip(" )") for part in body.split("\n") for word in part.rsplit("(", 1)[1].split(",")} - {"", "x"}
        constants = {key: available[key] for key in read if key in available and key not in written}
        outputs = "float[n,c,h,w] y, float[n,m,h,w] q" if "q = " in body else "float[n,c,h,w] y"
        return capture(f"(float[1,4,8,8] x) => ({outputs}) {{ {body} }}", **constants)

    return made


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.size)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_equalised_graph_computes_the_same(name, way, network, noise, reference):
    graph = network(name)
    x = noise(3, 4, 8, 8)
    other = equalised(graph, {"x": x}, way)
    expected = reference(graph, x[:1])
    assert np.abs(reference(other, x[:1]) - expected).max() < 1e-5 * np.abs(expected).max()
    assert list(other.layers) == list(graph.layers)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.size)
@pytest.mark.parametrize(
    "name", ["chain", "residual", "prelu", "transposed", "grouped", "pooled", "padded", "gate", "two readers"]
)
def test_inner_channels_come_closer_in_size(name, way, network, noise):
    graph = network(name)
    x = noise(3, 4, 8, 8)
    other = equalised(graph, {"x": x}, way)
    assert other is not graph and other.digest != graph.digest

    size = {
        "rms": lambda array: np.sqrt(np.square(array).mean(axis=(0, 2, 3))),
        "extreme": lambda array: np.abs(array).max(axis=(0, 2, 3)),
    }[way.size]

    def spread(one) -> float:
        sizes = np.mean([size(array) for _, _, array in activations(one, {"x": x}, ["a"])], axis=0)
        return float(sizes.max() / sizes.min())

    assert spread(other) < 0.85 * spread(graph)


@pytest.mark.parametrize("name", ["not homogeneous", "clipped", "product of tensors", "normalised"])
def test_where_nothing_can_be_rescaled_the_graph_stays(name, network, noise):
    graph = network(name)
    other = equalised(graph, {"x": noise(3, 4, 8, 8)})
    assert all(np.array_equal(other.weight(other.layers[n]), graph.weight(layer)) for n, layer in graph.layers.items())


@pytest.mark.parametrize("name", ["chain", "residual", "transposed"])
def test_equalisation_is_taken_only_where_it_lowers_the_error(
    name, network, noise, run, reference, uniform_candidate, exact_bits
):
    graph = network(name)
    x = noise(4, 4, 8, 8)
    builder = Builder(graph, {"x": x})
    found = builder.build(uniform_candidate(graph, exact_bits, 8))
    expected = np.concatenate([reference(graph, one[None]) for one in x])
    error = np.mean((np.concatenate([run(found, one[None]) for one in x]) - expected) ** 2)
    assert np.sqrt(error) < 1.5 * np.ptp(expected) / 255
