"""The trainable view computes what ONNX Runtime computes, and its gradients are those of ONNX Runtime's own outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError
from slimfront.spaces.graph import Graph, serialized
from slimfront.spaces.session import open_session
from slimfront.spaces.torch_view import TorchView

from .networks import FREE, HEAD, NETWORKS, TAIL, shape

STEP = 2e-3  # of a difference, in parts of the values: the largest one of all that move
JUMPY = ("constant first", "clip and where", "integers between", "integer vector")  # one divides by what may be near 0
UNKNOWN = ("einsum", "if", "indices of a maximum")
POSITIVE = "p = Abs(x) s = Add(p, half)"  # x [2, 4, 6, 6]
WITHIN = "p = Tanh(x) s = Mul(p, half)"
LARGE = "p = Abs(x) s = Add(p, two)"

UNARY = {
    "x": "Abs Atan Cos Elu Erf Exp Gelu HardSigmoid HardSwish Identity LeakyRelu LogSoftmax Mish Neg Relu Selu Sigmoid Sin "
    "Asinh Softmax Softplus Softsign Tanh ThresholdedRelu Celu Shrink Sum Max Min Mean GlobalAveragePool GlobalMaxPool "
    "Cosh Sinh LpNormalization",
    POSITIVE: "Log Sqrt Reciprocal",
    WITHIN: "Acos Asin Atanh Tan",
    LARGE: "Acosh",
}
JUMPS = {
    **{op: f"r = {op}(x) y = Cast<to=1>(r)" for op in ("Floor", "Ceil", "Round", "Sign", "ArgMax", "ArgMin")},
    "the last maximum": "r = Round(x) s = ArgMax<axis=-1, select_last_index=1, keepdims=0>(r) y = Cast<to=1>(s)",
    "remainder of floats": "y = Mod<fmod=1>(x, half)",
    "remainder of integers": "i = Cast<to=7>(x) j = Cast<to=7>(two) r = Mod(i, j) y = Cast<to=1>(r)",
    "logic": "g = Greater(x, half) l = LessOrEqual(x, two) a = And(g, l) b = Xor(a, l) c = Or(b, g) y = Cast<to=1>(c)",
}

# fmt: off
CASES = {  # x [2, 4, 6, 6]
    "asymmetric pads": ("y = Conv<pads=[0,1,2,0], strides=[1,2]>(x, w, b)", {"w": (6, 4, 3, 3), "b": (6,)}),
    "same upper": ('y = Conv<auto_pad="SAME_UPPER", strides=[2,2]>(x, w)', {"w": (6, 4, 3, 3)}),
    "same lower": ('y = Conv<auto_pad="SAME_LOWER", strides=[2,2]>(x, w)', {"w": (6, 4, 2, 2)}),
    "transposed, padded": ("y = ConvTranspose<strides=[2,3], pads=[1,0,2,1], output_padding=[1,2], dilations=[2,1]>(x, w, b)",
        {"w": (4, 6, 3, 3), "b": (6,)}),
    "transposed, to a shape": ("y = ConvTranspose<strides=[2,2], output_shape=[12,13]>(x, w)", {"w": (4, 6, 3, 3)}),
    "transposed, same": ('y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)', {"w": (4, 6, 3, 3)}),
    "one axis": ("f = Reshape(x, s) y = Conv<pads=[1,0], dilations=[2]>(f, w)", {"s": shape(2, 4, 36), "w": (5, 4, 3)}),
    "three axes": ("f = Reshape(x, s) y = Conv(f, w)", {"s": shape(2, 4, 6, 3, 2), "w": (5, 4, 3, 2, 1)}),
    "gemm": ("f = Flatten(x) y = Gemm<alpha=0.5, beta=2.0, transB=1>(f, w, b)", {"w": (3, 144), "b": (3,)}),
    "gemm, turned": ("f = Flatten<axis=0>(x) y = Gemm<transA=1>(f, w)", {"w": (1, 3)}),
    "flatten from the end": ("y = Flatten<axis=-1>(x)", {}),
    "max pool with a ceiling": ("y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,0,0,1]>(x)", {}),
    "max pool, dilated": ("y = MaxPool<kernel_shape=[2,2], dilations=[2,2]>(x)", {}),
    "average over the padding": ("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)", {}),
    "average with a ceiling": ("y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1, pads=[1,1,0,0]>(x)", {}),
    "average, same": ('y = AveragePool<kernel_shape=[2,2], auto_pad="SAME_UPPER">(x)', {}),
    "lp pool": ("y = LpPool<kernel_shape=[3,3], p=3, strides=[2,2], pads=[1,1,1,1]>(x)", {}),
    "gelu by tanh": ('y = Gelu<approximate="tanh">(x)', {}),
    "clip": ("y = Clip(x, l, h)", {"l": np.float32(-0.3), "h": np.float32(0.5)}),
    "clip from above": ("y = Clip(x, , h)", {"h": np.float32(0.5)}),
    "prelu": ("y = PRelu(x, a)", {"a": (4, 1, 1)}),
    "power": ("p = Abs(x) y = Pow(p, k)", {"k": np.float32(1.7)}),
    "where": ("g = Less(x, k) n = Not(g) y = Where(n, x, k)", {"k": (4, 1, 1)}),
    "greatest of three": ("y = Max(x, k, m)", {"k": (4, 1, 1), "m": (6, 6)}),
    "constant of a shape": ("c = ConstantOfShape<value = float[1] {2.5}>(s) y = Mul(x, c)", {"s": shape(4, 1, 6)}),
    "range": ("r = Range(a, b, c) y = Mul(x, r)", {"a": np.float32(0), "b": np.float32(3), "c": np.float32(0.5)}),
    "batch norm": ("y = BatchNormalization<epsilon=0.01>(x, s, b, m, v)", {"s": (4,), "b": (4,), "m": (4,),
        "v": np.arange(1, 5, dtype=np.float32)}),
    "layer norm of three axes": ("y = LayerNormalization<axis=1, epsilon=0.1>(x, s, b)", {"s": (4, 6, 6), "b": (4, 6, 6)}),
    "lp normalisation": ("y = LpNormalization<axis=1, p=1>(x)", {}),
    "softmax of channels": ("y = Softmax<axis=1>(x)", {}),
    "reflected": ('y = Pad<mode="reflect">(x, p)', {"p": shape(0, 0, 2, 1, 0, 0, 3, 0)}),
    "edges": ('y = Pad<mode="edge">(x, p)', {"p": shape(0, 0, 2, 1, 0, 0, 3, 0)}),
    "wrapped": ('y = Pad<mode="wrap">(x, p)', {"p": shape(0, 0, 2, 1, 0, 0, 3, 0)}),
    "a constant around, cropped elsewhere": ("y = Pad(x, p, c, a)", {"p": shape(2, -1, -1, 3), "c": np.float32(1.5),
        "a": shape(-1, 2)}),
    "squeezed": ("r = ReduceMean(x, a) y = Squeeze(r)", {"a": shape(2, 3)}),
    "squeezed at an axis": ("r = ReduceMean(x, a) y = Squeeze(r, b)", {"a": shape(2, 3), "b": shape(-1)}),
    "reversed with a step": ("y = Slice(x, s, e, a, t)", {"s": shape(-1, 4), "e": shape(-100, 0), "a": shape(2, 3),
        "t": shape(-2, -1)}),
    **{f"{op} of two axes": (f"y = {op}(x, a)", {"a": shape(1, -1)}) for op in (
        "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        "ReduceLogSumExp")},
    "log of a sum": ("p = Abs(x) y = ReduceLogSum<keepdims=0>(p)", {}),
    "largest of all": ("y = ReduceMax<keepdims=0>(x)", {}),
    **{f"resize {mode} {transform} {rounding} by {scales}": (
        f'y = Resize<mode="{mode}", coordinate_transformation_mode="{transform}", nearest_mode="{rounding}">(x, , k)',
        {"k": np.array([1, 1, *scales], np.float32)})
        for mode in ("nearest", "linear", "cubic")
        for transform in ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")
        for rounding in (("round_prefer_floor", "floor", "ceil", "round_prefer_ceil") if mode == "nearest" else ("floor",))
        for scales in ((2.0, 3.0), (0.5, 1.7 if "symmetric" in transform else 1.6))},
    "resize by a scale that is not exact": ('r = Concat<axis=2>(x, x) s = Slice(r, a, b, c) '
        'y = Resize<axes=[2], mode="linear">(s, , k)', {"k": np.array([1.4], np.float32), "a": shape(0), "b": shape(10),
        "c": shape(2)}),
    "reduced over nothing": ("y = ReduceSumSquare<noop_with_empty_axes=1>(x)", {}),
    "from before the first, backwards": ("y = Slice(x, s, e, a, t)", {"s": shape(-100), "e": shape(-101), "a": shape(2),
        "t": shape(-1)}),
    "no range": ("r = Range(a, b, c) s = ReduceSum(r) y = Add(x, s)", {"a": np.float32(3), "b": np.float32(1),
        "c": np.float32(1)}),
    "transposed, same, kernel smaller than stride": (
        'y = ConvTranspose<strides=[2,2], auto_pad="SAME_UPPER">(x, w)', {"w": (4, 6, 1, 1)}),
    "instance norm of single values": ("r = ReduceMean(x, k) y = InstanceNormalization(r, a, b)", {"k": shape(2, 3),
        "a": (4,), "b": (4,)}),
    "group norm of single values": ("r = ReduceMean(x, k) y = GroupNormalization<num_groups=4>(r, a, b)", {
        "k": shape(2, 3), "a": (4,), "b": (4,)}),
    "not larger": ('y = Resize<axes=[2,3], keep_aspect_ratio_policy="not_larger", mode="linear">(x, , , k)',
        {"k": shape(9, 20)}),
    "not smaller": ('y = Resize<axes=[2,3], keep_aspect_ratio_policy="not_smaller", mode="linear">(x, , , k)',
        {"k": shape(9, 20)}),
}
# fmt: on


@pytest.fixture
def check(capture, weight, noise):
    """Return a function that compares a network's view with ONNX Runtime."""

    def compare(
        text: str, constants: dict, free: bool = False, size: tuple = (2, 4, 8, 8), jumps: bool = False
    ) -> None:
        made = {
            name: weight(*value, seed=number) if isinstance(value, tuple) else np.asarray(value)
            for number, (name, value) in enumerate(constants.items())
        }
        axes = "N,4,H,W" if free else ",".join(map(str, size))
        rank = expected_rank(text, made, size)
        graph = capture(
            f"(float[{axes}] x) => (float[{','.join(f'd{i}' for i in range(rank))}] y) {{ {text} }}",
            size if free else None,
            **made,
        )
        feed = {"x": noise(*size)}
        same_values(graph, feed)
        if not jumps:
            same_gradients(graph, feed)

    return compare


def expected_rank(text: str, constants: dict[str, np.ndarray], size: tuple) -> int:
    """Return how many axes the output has, which ONNX's text form asks for."""
    import onnx

    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 22]> g (float[{",".join(map(str, size))}] x) => (float y) {{ {text} }}'
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return np.ndim(open_session(model.SerializeToString()).run(None, {"x": np.zeros(size, np.float32)})[0])


def run(model: ir.Model, feed: dict[str, np.ndarray]) -> np.ndarray:
    return open_session(serialized(model)).run(None, feed)[0].astype(np.float64)


def same_values(graph: Graph, feed: dict[str, np.ndarray]) -> None:
    expected = run(graph.model, feed)
    found = TorchView(graph)({name: torch.from_numpy(array) for name, array in feed.items()}).detach().numpy()
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=1e-5 * max(np.abs(expected).max(), 1.0), rtol=1e-3)


def same_gradients(graph: Graph, feed: dict[str, np.ndarray]) -> None:
    """Compare the gradient for the input, and for each weight, with differences of ONNX Runtime's outputs along it."""
    view = TorchView(graph)
    inputs = {name: torch.from_numpy(array).requires_grad_() for name, array in feed.items()}
    output = view(inputs)
    if not output.requires_grad:
        return
    random = np.random.default_rng(0)
    towards = random.standard_normal(output.shape)
    (output.double() * torch.from_numpy(towards)).sum().backward()
    whole = float(output.detach().abs().max())
    for name, tensor in {**inputs, **view.weights}.items():
        slope = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.double().numpy()
        norm, size = float(np.linalg.norm(slope)), float(np.abs(tensor.detach().numpy()).mean())
        for direction in (slope, random.standard_normal(slope.shape)):  # along the gradient, and anywhere
            if not direction.any():
                continue
            step = STEP * max(size, 0.1) * direction / np.abs(direction).max()
            ends = [moved(graph, feed, name, sign * step) for sign in (1.0, -1.0)]
            measured = float(((ends[0] - ends[1]) * towards).sum()) / 2.0
            expected = float((slope * step).sum())
            near = 0.05 * max(abs(expected), norm * float(step.std()))
            # what an offset that is normalised away leaves is rounding
            assert measured == pytest.approx(expected, abs=near + 2e-4 * whole), name


def moved(graph: Graph, feed: dict[str, np.ndarray], name: str, step: np.ndarray) -> np.ndarray:
    """Return ONNX Runtime's output where an input or a weight is another."""
    if name in feed:
        return run(graph.model, {**feed, name: (feed[name] + step).astype(np.float32)})
    copy = graph.model.clone()
    copy.graph.initializers[name].const_value = ir.tensor((graph.constant(name) + step).astype(np.float32), name=name)
    return run(copy, feed)


@pytest.mark.parametrize("name", CASES)
def test_an_op_with_its_attributes(name, check):
    text, constants = CASES[name]
    check(text, constants, size=(2, 4, 6, 6))


@pytest.mark.parametrize(("first", "op"), [(first, op) for first, ops in UNARY.items() for op in ops.split()])
def test_an_op_of_one_tensor(first, op, check):
    constants = {"half": np.float32(0.5), "two": np.float32(2.0)}
    text = f"s = Identity(x) y = {op}(s)" if first == "x" else f"{first} y = {op}(s)"
    check(text, constants, size=(2, 4, 6, 6))


@pytest.mark.parametrize("name", JUMPS)
def test_an_op_that_has_no_gradient(name, check):
    check(JUMPS[name], {"half": np.float32(0.5), "two": np.float32(2.0)}, size=(2, 4, 6, 6), jumps=True)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in UNKNOWN])
def test_a_network(name, check):
    made = NETWORKS[name]
    constants = {**made.constants, "wa": (8, 4, 3, 3), "ba": (8,), "wz": (3, made.channels, 1, 1)}
    check(f"{HEAD} {made.middle} {TAIL}", constants, jumps=name in JUMPY)


@pytest.mark.parametrize("name", FREE)
def test_a_network_of_free_sizes(name, check):
    made = FREE[name]
    constants = {**made.constants, "wa": (8, 4, 3, 3), "ba": (8,), "wz": (3, made.channels, 1, 1)}
    check(f"{HEAD} {made.middle} {TAIL}", constants, free=True)


def test_an_output_without_a_form_is_named(capture, noise):
    graph = capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { r, i = MaxPool<kernel_shape=[2,2]>(x) f = Cast<to=1>(i)\n y = Add(r, f) }"
    )
    with pytest.raises(BuildError, match="no form in PyTorch for output 'i' of MaxPool"):
        TorchView(graph)({"x": torch.from_numpy(noise(1, 3, 8, 8))})


def test_an_op_that_fails_is_named(capture, noise):
    graph = capture("(float[1,3,8,8] x) => (float[n,c,h,w] y) { [r] y = Relu(x) }")
    with pytest.raises(BuildError, match="Relu 'r' fails in PyTorch"):
        TorchView(graph)({"x": None})


@pytest.mark.parametrize("name", UNKNOWN[:2])
def test_an_op_without_a_form_is_named(name, capture, weight):
    made = NETWORKS[name]
    constants = {k: weight(*v) if isinstance(v, tuple) else v for k, v in made.constants.items()}
    constants |= {"wa": weight(8, 4, 3, 3), "ba": weight(8), "wz": weight(3, made.channels, 1, 1)}
    graph = capture(f"(float[2,4,8,8] x) => (float[a,b,c,d] y) {{ {HEAD} {made.middle} {TAIL} }}", **constants)
    with pytest.raises(BuildError, match=name.capitalize()):
        TorchView(graph)


def test_the_view_of_a_trained_model(tiny_model: Path, pictures):
    graph = capture_onnx(tiny_model)
    same_values(graph, {"x": pictures(graph.batch, 3)})
    view = TorchView(graph)
    assert {layer.weight for layer in graph.layers.values()} <= set(view.weights)
    assert sum(weight.numel() for weight in view.weights.values()) == graph.parameters
