"""Pruning is exact on networks put together at random from blocks of all kinds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimfront.spaces.groups import channel_groups

from .exactness import check, feeds_of, outputs, removal, unread

MOST_CHANNELS = 16


class Draft:
    """A network in ONNX's text form; all that a block hands on is [2, C, 8, 8].

    Attributes:
        tensors: name and channels of what a block may read.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.text = ""
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: list[tuple[str, int]] = []
        self.count = 0

    def pick(self, *options):
        return options[self.random.integers(len(options))]

    def likely(self) -> bool:
        return self.random.random() < 0.5

    def divisor(self, *numbers: int) -> int:
        return self.pick(*(d for d in range(1, min(numbers) + 1) if not any(n % d for n in numbers)))

    def const(self, *shape: int) -> str:
        values = self.random.standard_normal(shape) / math.sqrt(max(1, math.prod(shape[1:])))
        return self.keep(values.astype(np.float32))

    def ints(self, *values: int) -> str:
        return self.keep(np.array(values, np.int64))

    def keep(self, array: np.ndarray) -> str:
        self.constants[f"c{len(self.constants)}"] = array
        return f"c{len(self.constants) - 1}"

    def op(self, op: str, *inputs: str, results: int = 1, **attributes) -> str:
        """Add a node and return the name of its output, or the names with commas between them."""
        self.count += 1
        names = ", ".join(f"t{self.count}_{number}" for number in range(results))
        given = ", ".join(f"{key}={json.dumps(value)}" for key, value in attributes.items())
        self.text += f"[n{self.count}] {names} = {op}{f'<{given}>' if given else ''}({', '.join(inputs)})\n"
        return names

    def reshape(self, x: str, *sizes: int) -> str:
        return self.op("Reshape", x, self.ints(*sizes))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)


Made = tuple[str, int] | None  # name and channels; None where a block does not fit
BLOCKS: dict[str, Callable[[Draft, str, int], Made]] = {}


def block(made: Callable[[Draft, str, int], Made]) -> Callable[[Draft, str, int], Made]:
    BLOCKS[made.__name__] = made
    return made


@block
def conv(d: Draft, x: str, c: int) -> Made:
    o, k = d.pick(2, 3, 4, 6, 8), d.pick(1, 3)
    g = d.pick(1, d.divisor(c, o))
    bias = [d.const(o)] if d.likely() else []
    return d.op("Conv", x, d.const(o, c // g, k, k), *bias, group=g, pads=[k // 2] * 4), o


@block
def depthwise(d: Draft, x: str, c: int) -> Made:
    o = c * d.pick(1, 1, 2)
    return d.op("Conv", x, d.const(o, 1, 3, 3), d.const(o), group=c, pads=[1] * 4), o


@block
def transposed_conv(d: Draft, x: str, c: int) -> Made:
    g, of_group = d.divisor(c), d.pick(1, 2)
    y = d.op("ConvTranspose", x, d.const(c, of_group, 2, 2), d.const(g * of_group), group=g, strides=[2, 2])
    return d.op(d.pick("MaxPool", "AveragePool"), y, kernel_shape=[2, 2], strides=[2, 2]), g * of_group


@block
def layer_twice(d: Draft, x: str, c: int) -> Made:
    w, b = d.const(c, c, 3, 3), d.const(c)
    y = d.op("Relu", d.op("Conv", x, w, b, pads=[1] * 4))
    return d.op("Conv", y, w, b, pads=[1] * 4), c


@block
def elementwise(d: Draft, x: str, c: int) -> Made:
    k = d.const(*d.pick((1, c, 1, 1), (c, 1, 1), (), (1,), (8,), (c, 8, 8), (1, 1, 8, 8), (2, c, 1, 1), (8, 1)))
    op, *inputs = d.pick(("Tanh", x), ("Gelu", x), ("PRelu", x, k), ("Sub", k, x), ("Mul", x, k), ("Max", x, k, x))
    return d.op(op, *inputs), c


@block
def join(d: Draft, x: str, c: int) -> Made:
    parts = [(x, c), d.pick(*d.tensors), d.pick(("", 0), (d.const(2, 2, 8, 8), 2))]
    names = [parts[i][0] for i in d.random.permutation(3) if parts[i][1]]
    return d.op("Concat", *names, axis=d.pick(1, -3)), sum(size for _, size in parts)


@block
def combine(d: Draft, x: str, c: int) -> Made:
    others = [name for name, size in d.tensors if size == c and name != x]
    other = d.pick(*others) if others else d.op("Conv", x, d.const(c, c, 1, 1))
    return d.op(d.pick("Add", "Mul", "Sub"), x, other), c


@block
def split(d: Draft, x: str, c: int) -> Made:
    if c < 2:
        return None
    first = int(d.random.integers(1, c))
    a, b = d.op("Split", x, d.ints(first, c - first), results=2, axis=1).split(", ")
    d.tensors.append((b, c - first))
    return a, first


@block
def take(d: Draft, x: str, c: int) -> Made:
    some = d.random.permutation(c)[: d.random.integers(1, c + 1)]
    start = int(some.min())
    if d.likely():
        return d.op("Gather", x, d.ints(*(some - d.pick(0, c))), axis=1), len(some)
    return d.op("Slice", x, d.ints(start - c), d.ints(d.pick(c, 1 << 40)), d.ints(-3)), c - start


@block
def norm(d: Draft, x: str, c: int) -> Made:
    s, b = d.const(c), d.const(c)
    op, attributes = d.pick(("InstanceNormalization", {}), ("GroupNormalization", {"num_groups": d.divisor(c)}))
    return d.op(op, x, s, b, **attributes), c


@block
def other_norm(d: Draft, x: str, c: int) -> Made:
    s, b, g = d.const(c), d.const(c), d.divisor(c)
    kind = d.pick("batch", "layer", "group")
    if kind == "batch":
        return d.op("BatchNormalization", d.op("Relu", x), s, b, b, d.keep(np.ones(c, np.float32))), c
    if kind == "layer":
        y = d.op("LayerNormalization", d.transpose(x, 0, 2, 3, 1), s, b, axis=-1)
        return d.transpose(y, 0, 3, 1, 2), c
    y = d.op("InstanceNormalization", d.reshape(x, 0, g, -1), d.const(g), d.const(g))
    return d.op("Mul", d.reshape(y, 2, c, 8, 8), d.const(c, 1, 1)), c


@block
def gate(d: Draft, x: str, c: int) -> Made:
    if d.likely():
        g = d.op("ReduceMean", x, d.ints(*d.pick((2, 3), (-1, -2), (1,), (3,))))
    else:
        y = d.op(
            "Relu", d.op("Gemm", d.op("Flatten", d.op("GlobalAveragePool", x)), d.const(3, c), d.const(3), transB=1)
        )
        g = d.op("Unsqueeze", d.op("Gemm", y, d.const(3, c), d.const(c)), d.ints(2, 3))
    return d.op("Mul", x, d.op("Sigmoid", g)), c


@block
def channel_shuffle(d: Draft, x: str, c: int) -> Made:
    y = d.transpose(d.reshape(x, 2, d.divisor(c), -1, 8, 8), 0, 2, 1, 3, 4)
    return d.reshape(y, 0, c, 8, 8), c


@block
def pixel_shuffle(d: Draft, x: str, c: int) -> Made:
    o = d.pick(1, 2, 3)
    y = d.op("Conv", d.op("SpaceToDepth", x, blocksize=2), d.const(4 * o, 4 * c, 1, 1))
    if d.likely():
        return d.op("DepthToSpace", y, blocksize=2, mode=d.pick("CRD", "DCR")), o
    return d.reshape(d.transpose(d.reshape(y, 2, o, 2, 2, 4, 4), 0, 1, 4, 2, 5, 3), 2, o, 8, -1), o


@block
def attention(d: Draft, x: str, c: int) -> Made:
    h, s = d.pick(1, 2, 3), d.pick(1, 2)
    t = d.transpose(d.reshape(x, 0, 0, -1), 0, 2, 1)
    if d.likely():
        fused = d.transpose(d.reshape(d.op("MatMul", t, d.const(c, 3 * h * s)), 2, 64, 3, h, s), 2, 0, 3, 1, 4)
        q, k, v = (d.op("Gather", fused, d.keep(np.array(number)), axis=0) for number in range(3))
    else:
        own = [d.op("MatMul", t, d.const(c, h * s)) for _ in range(3)]
        q, k, v = (d.transpose(d.reshape(one, 2, 64, h, s), 0, 2, 1, 3) for one in own)
    weights = d.op("Softmax", d.op("MatMul", q, d.transpose(k, 0, 1, 3, 2)))
    y = d.reshape(d.transpose(d.op("MatMul", weights, v), 0, 2, 1, 3), 2, 64, h * s)
    return d.reshape(d.transpose(d.op("MatMul", y, d.const(h * s, c)), 0, 2, 1), 2, c, 8, 8), c


@block
def resampled(d: Draft, x: str, c: int) -> Made:
    wide = d.pick(
        d.op("Resize", x, "", "", d.ints(16, 16), axes=[3, 2]),
        d.op("Resize", x, "", d.keep(np.array([1, 1, 2, 2], np.float32)), mode="linear"),
        d.op("Pad", x, d.ints(4, 4, 4, 4), "", d.ints(2, -1), mode="reflect"),
        d.op("Tile", x, d.ints(1, 1, 2, 2)),
    )
    return d.op("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2]), c


@block
def unusual(d: Draft, x: str, c: int) -> Made:
    kind = d.pick("softmax", "einsum", "sum", "reverse", "where", "expand")
    if kind == "softmax":
        return d.op("Softmax", x, axis=d.pick(1, 2, -1)), c
    if kind == "einsum":
        return d.op("Einsum", x, equation="abcd->abcd"), c
    if kind == "sum":
        return d.op("CumSum", x, d.keep(np.array(d.pick(1, 2)))), c
    if kind == "reverse":
        return d.op("Slice", x, d.ints(-1), d.ints(-99), d.ints(1), d.ints(-1)), c
    if kind == "where":
        return d.op("Where", d.op("Greater", x, d.const(c, 1, 1)), x, d.const(c, 1, 1)), c
    return d.op("Expand", x, d.ints(d.pick(1, 8), 1)), c


def drafted(names: list[str], seed: int) -> tuple[Draft, str]:
    """Return a network of a convolution, these blocks and a last convolution, and the names of its outputs."""
    d = Draft(seed)
    d.tensors.append(conv(d, "x", 4))
    for name in names:
        made = BLOCKS[name](d, *d.pick(d.tensors[-1], d.tensors[-1], *d.tensors))
        if made is not None and made[1] <= MOST_CHANNELS:
            d.tensors.append(made)
    last, channels = d.tensors[-1]
    y = d.op("Conv", last, d.const(2, channels, 1, 1))
    inner = d.pick(*(name for name, _ in d.tensors))
    return d, y if d.random.random() < 0.7 else f"{y}, float[a,e,f,g] {inner}"


@settings(max_examples=40, deadline=None)
@given(names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=7), seed=st.integers(0, 10**6))
def test_random_networks_are_pruned_exactly(names, seed, capture):
    d, y = drafted(names, seed)
    graph = capture(f"(float[2,4,8,8] x) => (float[a,b,f,g] {y}) {{ {d.text} }}", **d.constants)
    channels = channel_groups(graph)
    if channels.groups:
        removed = removal(channels, d.random)
        assume(steady(graph, removed))
        check(graph, removed)


def steady(graph, removed) -> bool:
    """Whether the output is not so sensitive (a norm of nearly constant values) that the order of sums shows in it."""
    model, feeds = unread(graph, removed), feeds_of(graph)
    other = {name: x * (1 + 1e-6 * np.sign(x)).astype(np.float32) for name, x in feeds.items()}
    pairs = zip(outputs(model, feeds), outputs(model, other), outputs(graph.model, feeds), strict=True)
    return all(np.abs(a - b).max() <= 2e-5 * np.ptp(c) for a, b, c in pairs)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_each_block_alone_is_pruned_exactly(name, capture):
    for seed in range(3):
        d, y = drafted([name], seed)
        graph = capture(f"(float[2,4,8,8] x) => (float[a,b,f,g] {y}) {{ {d.text} }}", **d.constants)
        channels = channel_groups(graph)
        if channels.groups:
            check(graph, removal(channels, d.random))
