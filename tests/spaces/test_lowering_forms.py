"""Every op's integer form between two integer convolutions, against the plain op, and which kernels really run it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from slimfront.spaces import scatter
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.kernels import FLOAT

CONV_IN = "[first] a = Conv<pads=[1,1,1,1]>(x, w1, b1)"
CONV_OUT = "[last] y = Conv<pads=[1,1,1,1]>(z, w2, b2)"
SHAPE = (1, 4, 10, 9)

# What stands between the convolutions (from `a`, 16 channels, to `z`), the channels of z, and constants.
INTEGER_FORMS = {
    "relu": ("z = Relu(a)", 16, {}),
    "relu6": ("z = Clip(a, low, high)", 16, {"low": np.float32(0), "high": np.float32(6)}),
    "clip": ("z = Clip(a, low, high)", 16, {"low": np.float32(-0.5), "high": np.float32(0.75)}),
    "clip above": ("z = Clip(a, , high)", 16, {"high": np.float32(0.5)}),
    "leaky relu": ("z = LeakyRelu<alpha=0.2>(a)", 16, {}),
    "prelu of one slope": ("z = PRelu(a, s)", 16, {"s": np.full((1, 1, 1), 0.3, np.float32)}),
    "prelu of equal slopes": ("z = PRelu(a, s)", 16, {"s": np.full((16, 1, 1), 0.3, np.float32)}),
    "prelu of different slopes": (
        "z = PRelu(a, s)",
        16,
        {"s": np.linspace(-0.4, 1.4, 16, dtype=np.float32).reshape(16, 1, 1)},
    ),
    "sigmoid": ("z = Sigmoid(a)", 16, {}),
    "max pool": ("z = MaxPool<kernel_shape=[2,2],strides=[2,2]>(a)", 16, {}),
    "max pool with pads": ("z = MaxPool<kernel_shape=[3,3],strides=[1,1],pads=[1,1,1,1]>(a)", 16, {}),
    "average pool": ("z = AveragePool<kernel_shape=[2,3],strides=[2,3]>(a)", 16, {}),
    "average pool with counted pads": (
        "z = AveragePool<kernel_shape=[3,3],strides=[1,1],pads=[1,1,1,1],count_include_pad=1>(a)",
        16,
        {},
    ),
    "depth to space DCR": ('z = DepthToSpace<blocksize=2,mode="DCR">(a)', 4, {}),
    "depth to space CRD": ('z = DepthToSpace<blocksize=2,mode="CRD">(a)', 4, {}),
    "depth to space by four": ('z = DepthToSpace<blocksize=4,mode="CRD">(a)', 1, {}),
    "nearest by two": (
        'z = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(a, , f)',
        16,
        {"f": np.float32([1, 1, 2, 2])},
    ),
    "nearest by three": ('z = Resize<mode="nearest">(a, , f)', 16, {"f": np.float32([1, 1, 3, 3])}),
    "nearest by two and one": (
        'z = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(a, , f)',
        16,
        {"f": np.float32([1, 1, 2, 1])},
    ),
    "nearest to a size": (
        'z = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="floor">(a, , , s)',
        16,
        {"s": np.array([1, 16, 20, 27], np.int64)},
    ),
    "zero pad": ("z = Pad(a, p)", 16, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64)}),
    "crop by negative pad": ("z = Pad(a, p)", 16, {"p": np.array([0, 0, -1, -2, 0, 0, -3, 1], np.int64)}),
    "reflected pad": ('z = Pad<mode="reflect">(a, p)', 16, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0], np.int64)}),
    "concat": ("b = Relu(a)\n z = Concat<axis=1>(a, b)", 32, {}),
    "slice": (
        "z = Slice(a, from, to, axes)",
        8,
        {"from": np.array([4, 1]), "to": np.array([12, -1]), "axes": np.array([1, 2])},
    ),
    "split and sum": ("b, c = Split<axis=1,num_outputs=2>(a)\n z = Add(b, c)", 8, {}),
    "product with a number": ("z = Mul(a, f)", 16, {"f": np.float32(0.4)}),
    "quotient by a number": ("z = Div(a, f)", 16, {"f": np.float32([2.5])}),
    "residual sum and relu": (
        "[inner] b = Conv<pads=[1,1,1,1]>(a, w3)\n c = Add(a, b)\n z = Relu(c)",
        16,
        {"w3": np.random.default_rng(5).standard_normal((16, 16, 3, 3)).astype(np.float32) / 12},
    ),
    "sigmoid gate": (
        "[gate] b = Conv(a, w3)\n c = Sigmoid(b)\n z = Mul(a, c)",
        16,
        {"w3": np.random.default_rng(5).standard_normal((16, 16, 1, 1)).astype(np.float32)},
    ),
    "channel attention": (
        "p = GlobalAveragePool(a)\n [squeeze] q = Conv(p, w3)\n r = Relu(q)\n [excite] s = Conv(r, w4)\n"
        "t = Sigmoid(s)\n z = Mul(a, t)",
        16,
        {
            "w3": np.random.default_rng(5).standard_normal((8, 16, 1, 1)).astype(np.float32),
            "w4": np.random.default_rng(6).standard_normal((16, 8, 1, 1)).astype(np.float32),
        },
    ),
    "transposes": ("b = Transpose<perm=[0,1,3,2]>(a)\n z = Relu(b)", 16, {}),
    "reshape": ("z = Reshape(a, s)", 8, {"s": np.array([1, 8, 20, 9])}),
}
# Ops without a good integer form: right all the same, between Q and DQ nodes.
FLOAT_FORMS = {
    "tanh": ("z = Tanh(a)", 16, {}),
    "hard swish": ("z = HardSwish(a)", 16, {}),
    "linear resize": ('z = Resize<mode="linear">(a, , f)', 16, {"f": np.float32([1, 1, 2, 2])}),
    "nearest to an odd size": ('z = Resize<mode="nearest">(a, , , s)', 16, {"s": np.array([1, 16, 13, 14])}),
    "nearest that rounds up": (
        'z = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",nearest_mode="ceil">(a, , f)',
        16,
        {"f": np.float32([1, 1, 2, 2])},
    ),
    "pad with ones": ("z = Pad(a, p, one)", 16, {"p": np.array([0, 0, 1, 2, 0, 0, 3, 0]), "one": np.float32(1)}),
    "average pool with pads left out": (
        "z = AveragePool<kernel_shape=[3,3],strides=[1,1],pads=[1,1,1,1]>(a)",
        16,
        {},
    ),
    "average pool with ceil": ("z = AveragePool<kernel_shape=[2,2],strides=[2,2],ceil_mode=1>(a)", 16, {}),
    "product with a negative number": ("z = Mul(a, f)", 16, {"f": np.float32(-0.4)}),
    "number over tensor": ("b = Sigmoid(a)\n z = Div(f, b)", 16, {"f": np.float32(0.4)}),
    "sum with a constant": ("z = Add(a, f)", 16, {"f": np.linspace(-1, 1, 16, dtype=np.float32).reshape(16, 1, 1)}),
    "difference": ("b = Relu(a)\n z = Sub(a, b)", 16, {}),
    "space to depth": (
        "b = Pad(a, p)\n z = SpaceToDepth<blocksize=2>(b)",
        64,
        {"p": np.array([0, 0, 0, 0, 0, 0, 0, 1])},
    ),
    "instance norm": (
        "z = InstanceNormalization(a, g, h)",
        16,
        {"g": np.ones(16, np.float32), "h": np.full(16, 0.1, np.float32)},
    ),
    "softmax": ("z = Softmax<axis=1>(a)", 16, {}),
    "prelu along the width": (
        "z = PRelu(a, s)",
        16,
        {"s": np.linspace(0, 1, 9, dtype=np.float32).reshape(1, 1, 9)},
    ),
}


FUSED = {
    "leaky relu": "QLinearLeakyRelu",
    "prelu of equal slopes": "QLinearLeakyRelu",
    "prelu of different slopes": "QLinearAdd",
    "sigmoid": "QLinearSigmoid",
    "max pool": "NhwcMaxPool",
    "concat": "QLinearConcat",
    "split and sum": "QLinearAdd",
    "residual sum and relu": "QLinearAdd",
    "sigmoid gate": "QLinearMul",
    "channel attention": "QLinearGlobalAveragePool",
}
VANISH = ("relu", "relu6", "clip", "clip above", "product with a number", "quotient by a number")  # cost nothing at all


@pytest.fixture(scope="module")
def between(capture, weight, noise):
    """A function (form) that returns the captured graph, its builder and calibration inputs [6, 4, 10, 9]."""

    def made(body: str, channels: int, constants: dict[str, np.ndarray]):
        text = f"(float[1,4,10,9] x) => (float[n,c,h,w] y) {{ {CONV_IN}\n {body}\n {CONV_OUT} }}"
        weights = {"w1": weight(16, 4, 3, 3), "b1": 0.3 * weight(16), "w2": weight(8, channels, 3, 3), "b2": weight(8)}
        graph = capture(text, **weights, **constants)
        x = noise(6, *SHAPE[1:])
        return graph, Builder(graph, {"x": x}, rounding="plain"), x

    return made


def steps_off(found: np.ndarray, expected: np.ndarray) -> float:
    """Return the root mean square error in 255ths of the expected range; a wrong arrangement gives dozens."""
    assert found.shape == expected.shape
    return float(np.sqrt(np.mean((found - expected) ** 2)) * 255 / (expected.max() - expected.min()))


def gives_what_the_op_gives(built, x: np.ndarray, run, expected: np.ndarray, *, most: float) -> None:
    """Check a built model against the plain ops, and its own optimised graph against the written one."""
    found = run(built, x)
    assert steps_off(found, expected) < most
    assert steps_off(run(built, x, optimize=False), found) < 0.5


@pytest.mark.parametrize("form", INTEGER_FORMS)
def test_an_op_between_integer_layers_runs_in_integers_and_gives_what_the_op_gives(
    form, between, run, reference, optimized, uniform_candidate, exact_bits
):
    graph, builder, x = between(*INTEGER_FORMS[form])
    built = builder.build(uniform_candidate(graph, exact_bits, 8))
    gives_what_the_op_gives(built, x[:1], run, reference(graph, x[:1]), most=1.5)
    look = optimized(built)
    ops = look.ops
    assert look.integer_kernels == built.integer_kernels >= 2
    assert not look.lacking
    assert not any(ops[op] for op in FLOAT)
    assert ops["QuantizeLinear"] == ops["DequantizeLinear"] == 1, "all between the two ends has to stay in integers"
    if form in FUSED:
        assert ops[FUSED[form]]
    if form in VANISH:
        assert ops["QLinearConv"] == 2 and set(ops) == {
            "QuantizeLinear",
            "QLinearConv",
            "DequantizeLinear",
            "Transpose",
        }


@pytest.mark.parametrize("form", FLOAT_FORMS)
def test_an_op_without_integer_form_gives_what_the_op_gives_between_integer_layers(
    form, between, run, reference, optimized, uniform_candidate, exact_bits
):
    graph, builder, x = between(*FLOAT_FORMS[form])
    built = builder.build(uniform_candidate(graph, exact_bits, 8))
    gives_what_the_op_gives(built, x[:1], run, reference(graph, x[:1]), most=2.0)
    ops = optimized(built).ops
    assert ops["QLinearConv"] == built.integer_kernels == 2
    assert not any(ops[op] for op in FLOAT)


@pytest.mark.parametrize(
    "form", ["depth to space DCR", "depth to space CRD", "nearest by three", "nearest by two and one"]
)
def test_rearrangements_move_every_value_to_its_place(form, capture, run, optimized, uniform_candidate):
    """On an input that 8 bits hold exactly, and a convolution by ones, nothing is rounded but the output."""
    body, channels, constants = INTEGER_FORMS[form]
    text = f"(float[2,16,6,5] x) => (float[n,c,h,w] y) {{ a = Conv<group=16>(x, one)\n {body}\n y = Conv(z, two) }}"
    one, two = np.ones((16, 1, 1, 1), np.float32), np.eye(channels, dtype=np.float32).reshape(channels, channels, 1, 1)
    x = np.random.default_rng(0).permutation(np.arange(2 * 16 * 6 * 5) % 256).reshape(2, 16, 6, 5).astype(np.float32)
    graph = capture(text, one=one, two=two, **constants)
    built = Builder(graph, {"x": x}, rounding="plain").build(uniform_candidate(graph, 8, 8))
    assert optimized(built).ops["QLinearConv"] == 2
    import onnx_ir as ir

    assert np.abs(run(built, x) - run(ir.to_proto(graph.model).SerializeToString(), x)).max() < 1e-3


# --- ConvTranspose --------------------------------------------------------------------------------------------------


def on_grid(values: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """Round to a uint8 grid."""
    return (np.clip(np.rint(values / np.float32(scale)) + zero, 0, 255) - zero) * np.float32(scale)


@st.composite
def transposed(draw) -> dict[str, list[int]]:
    kernel, strides, pads_begin, pads_end, extra = [], [], [], [], []
    for _ in range(2):
        k, s = draw(st.integers(1, 6)), draw(st.integers(1, 4))
        strides.append(s)
        kernel.append(k)
        pads_begin.append(draw(st.integers(0, k - 1)))
        pads_end.append(draw(st.integers(0, k - 1)))
        extra.append(draw(st.integers(0, s - 1)))
    return {
        "kernel_shape": kernel,
        "strides": strides,
        "pads": pads_begin + pads_end,
        "output_padding": extra,
    }


@pytest.fixture(scope="module")
def check_transposed(capture, run, optimized, uniform_candidate, exact_bits):
    """A function that builds one ConvTranspose on inputs and weights that their grids hold exactly, and checks it.

    All that is left is the rounding of the output.
    """

    def check(geometry: dict[str, list[int]], with_bias: bool, bits: int, seed: int, op: str = "QLinearConv") -> None:
        bits, random = min(bits, exact_bits), np.random.default_rng(seed)
        high, wide = (
            (size - 1) * s + k + e - b - t
            for size, s, k, e, b, t in zip(
                (4, 5), geometry["strides"], geometry["kernel_shape"], geometry["output_padding"],
                geometry["pads"][:2], geometry["pads"][2:], strict=True,
            )
        )  # fmt: skip
        assume(high > 0 and wide > 0)
        top = 2 ** (bits - 1 if bits > 4 else bits) - 1  # -127 .. 127, or -7, -5 .. 7 on the grid of steps of two
        shape = (3, 4, *geometry["kernel_shape"])
        codes = random.integers(-top, top + 1, shape) if bits > 4 else 2 * random.integers(0, 8, shape) - top
        codes[0, :, 0, 0], codes[1, :, 0, 0] = top, -top  # every channel uses its grid to the end
        weight = (codes / 64).astype(np.float32)
        x = random.permutation(np.arange(2 * 3 * 4 * 5) * 255 // 119).reshape(2, 3, 4, 5).astype(np.float32)
        weights = {"w": weight} | ({"b": (random.integers(-999, 999, 4) / 64).astype(np.float32)} if with_bias else {})
        attributes = ",".join(f"{name}={value}" for name, value in geometry.items())
        text = (
            f"(float[1,3,4,5] x) => (float[n,c,h,w] y) {{ y = ConvTranspose<{attributes}>(x, w{', b' * with_bias}) }}"
        )
        graph = capture(text, **weights)
        builder = Builder(graph, {"x": x}, rounding="plain")
        candidate = uniform_candidate(graph, bits, 8)
        lowering = builder.lower(candidate)
        lowering.run()
        scale, zero = lowering.grids["y"]
        expected = torch.nn.functional.conv_transpose2d(
            torch.from_numpy(x), torch.from_numpy(weight),
            torch.from_numpy(weights["b"]) if with_bias else None, stride=tuple(geometry["strides"]),
        ).numpy()  # fmt: skip
        grown = np.zeros((2, 4, 40, 40), np.float32) + (weights["b"][:, None, None] if with_bias else 0)
        grown[:, :, : expected.shape[2], : expected.shape[3]] = expected
        first, left = geometry["pads"][:2]
        expected = grown[:, :, first : first + high, left : left + wide]
        built = builder.build(candidate)
        found = np.concatenate([run(built, one) for one in (x[:1], x[1:])])
        off = np.abs(found - on_grid(expected, scale, zero)) / scale
        assert off.max() < 1.01 and np.mean(off > 0.01) < 0.02
        ops = optimized(built).ops
        assert ops[op] == 1 and not ops["ConvTranspose"]

    return check


@settings(max_examples=30, deadline=None)
@given(geometry=transposed(), with_bias=st.booleans(), bits=st.sampled_from([3, 8]), seed=st.integers(0, 99))
def test_any_transposed_convolution_runs_in_integers_exactly(check_transposed, geometry, with_bias, bits, seed):
    check_transposed(geometry, with_bias, bits, seed)


@pytest.mark.parametrize(
    ("kernel", "strides", "pads", "extra"),
    [
        ((4, 4), (2, 2), (1, 1, 1, 1), (0, 0)),
        ((2, 2), (2, 2), (0, 0, 0, 0), (0, 0)),
        ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1)),
        ((5, 5), (3, 3), (1, 1, 1, 1), (0, 0)),
        ((2, 2), (3, 3), (0, 0, 0, 0), (2, 0)),
        ((5, 2), (1, 2), (2, 0, 4, 0), (0, 1)),
        ((1, 1), (1, 1), (0, 0, 0, 0), (0, 0)),
        ((9, 9), (4, 4), (3, 2, 4, 1), (3, 1)),
    ],
)
def test_common_transposed_convolutions_run_in_integers_exactly(kernel, strides, pads, extra, check_transposed):
    geometry = {
        "kernel_shape": list(kernel),
        "strides": list(strides),
        "pads": list(pads),
        "output_padding": list(extra),
    }
    check_transposed(geometry, True, 8, 0)


@settings(max_examples=30, deadline=None)
@given(geometry=transposed(), with_bias=st.booleans(), bits=st.sampled_from([3, 8]), seed=st.integers(0, 99))
def test_a_transposed_convolution_runs_as_one_product_exactly(check_transposed, geometry, with_bias, bits, seed):
    geometry |= {"strides": [1, 1], "output_padding": [0, 0]}
    with pytest.MonkeyPatch.context() as patch:
        for limit in ("LEAST_SAVED", "LEAST_SAVED_OF_A_SUMMAND"):
            patch.setattr(scatter, limit, -(10**9))
        check_transposed(geometry, with_bias, bits, seed, "MatMulIntegerToFloat")


@pytest.mark.parametrize(("side", "product"), [(1, True), (3, True), (9, False)])
def test_products_take_the_place_of_padding_where_that_saves_much(side, product, capture, weight, noise, optimized):
    graph = capture(
        f"(float[4,256,{side},{side}] x) => (float[n,c,h,w] y) {{ y = ConvTranspose<kernel_shape=[4,4]>(x, w) }}",
        w=weight(256, 128, 4, 4) / 16,
    )
    builder = Builder(graph, {"x": noise(4, 256, side, side)}, rounding="plain")
    ops = optimized(builder.build(Candidate({name: LayerChoice(8, 8) for name in graph.layers}))).ops
    assert (ops["MatMulIntegerToFloat"], ops["QLinearConv"]) == ((1, 0) if product else (0, 1))
