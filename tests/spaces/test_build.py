"""Built files: what they compute, that the same candidate gives the same bytes, and what is in them."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.packing import packed_bytes
from slimfront.spaces.weights import per_channel

# Six layers: downsampling, a residual block with a grouped convolution, upsampling, an output.
NETWORK = (
    "(float[1,3,12,16] x) => (float[n,c,h,w] y) {"
    "[down] a = Conv<strides=[2,2],pads=[1,1,1,1]>(x, wa, ba)\n ra = Relu(a)\n"
    "[one] b = Conv<pads=[1,1,1,1]>(ra, wb, bb)\n rb = Relu(b)\n"
    "[two] c = Conv<group=2,pads=[1,1,1,1]>(rb, wc, bc)\n s = Add(ra, c)\n rs = Relu(s)\n"
    "[up] u = ConvTranspose<strides=[2,2],pads=[1,1,1,1]>(rs, wu, bu)\n ru = LeakyRelu<alpha=0.1>(u)\n"
    "[narrow] p = Conv(ru, wp)\n rp = Relu(p)\n"
    "[out] y = Conv<pads=[1,1,1,1]>(rp, wo, bo) }"
)
NAMES = ("down", "one", "two", "up", "narrow", "out")
choices = st.one_of(
    st.builds(LayerChoice, st.integers(2, 8), st.sampled_from([8, 32])),
    st.builds(LayerChoice, st.sampled_from([16, 32])),
)


@pytest.fixture(scope="module")
def network(capture, weight):
    shapes = {
        "wa": (16, 3, 3, 3), "ba": (16,), "wb": (16, 16, 3, 3), "bb": (16,), "wc": (16, 8, 3, 3), "bc": (16,),
        "wu": (16, 8, 4, 4), "bu": (8,), "wp": (8, 8, 1, 1), "wo": (3, 8, 3, 3), "bo": (3,),
    }  # fmt: skip
    gains = {"wb": 1.4, "wu": 2.0, "wp": 1.4}
    return capture(NETWORK, **{name: gains.get(name, 1) * weight(*shape, seed=3) for name, shape in shapes.items()})


@pytest.fixture(scope="module")
def x(noise):
    return noise(6, 3, 12, 16)


@pytest.fixture(scope="module")
def builder(network, x):
    made = Builder(network, {"x": x})
    made.prepare()
    return made


def parameters(builder: Builder, candidate: Candidate, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a layer's weight and bias as the candidate has them, in float32."""
    rounds = any(choice.weight_bits <= 8 for choice in candidate.layers.values())
    graph = builder.equalised if rounds else builder.graph
    layer = graph.layers[name]
    weight, bias = graph.weight(layer), graph.bias(layer)
    bits = candidate.choice(name).weight_bits
    if bits == 16:
        weight = weight.astype(np.float16).astype(np.float32)
    if bits <= 8:
        rounded = builder.static.rounded(layer, bits)
        weight = rounded.codes * per_channel(layer, rounded.scale)
        bias = rounded.shift if bias is None else bias + rounded.shift
    return weight.astype(np.float32), bias


class Simulation:
    """The network in PyTorch; ``grids`` rounds tensors to 8 bits in front of integer layers and behind them."""

    def __init__(self, builder: Builder, candidate: Candidate) -> None:
        self.builder, self.candidate = builder, candidate

    def layer(self, name: str, x: torch.Tensor, **geometry) -> torch.Tensor:
        weight, bias = (
            None if p is None else torch.from_numpy(np.array(p)) for p in parameters(self.builder, self.candidate, name)
        )
        function = torch.nn.functional.conv_transpose2d if name == "up" else torch.nn.functional.conv2d
        return function(x, weight, bias, **geometry)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        relu = torch.nn.functional.relu
        a = relu(self.layer("down", torch.from_numpy(x), stride=2, padding=1))
        b = relu(self.layer("one", a, padding=1))
        s = relu(a + self.layer("two", b, padding=1, groups=2))
        u = torch.nn.functional.leaky_relu(self.layer("up", s, stride=2, padding=1), 0.1)
        p = relu(self.layer("narrow", u))
        return self.layer("out", p, padding=1).numpy()


def check_file(data: bytes) -> None:
    """Pass ONNX's own checker, with shape inference, and hold nothing but what it needs."""
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert not model.graph.value_info and not model.graph.doc_string and not model.metadata_props
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)


@settings(max_examples=25, deadline=None)
@given(bits=st.lists(st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16, 32]), min_size=6, max_size=6))
def test_float_candidates_equal_a_pytorch_network_with_the_rounded_weights(bits, builder, x, run):
    candidate = Candidate({name: LayerChoice(b) for name, b in zip(NAMES, bits, strict=True)})
    built = builder.build(candidate)
    check_file(built.to_bytes())
    expected = Simulation(builder, candidate)(x[:1])
    for optimize in (True, False):
        assert np.abs(run(built, x[:1], optimize=optimize) - expected).max() < 1e-5 * max(1, np.abs(expected).max())


def rms_steps(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - expected) ** 2)) * 255 / (expected.max() - expected.min()))


def float_weights_are_whole(built, optimized, builder: Builder) -> None:
    """ONNX Runtime quantised no layer behind our back: each kernel computes in the domain that the candidate says."""
    look = optimized(built)
    expected = sum(choice.integer for choice in built.candidate.layers.values())
    assert look.integer_kernels == built.integer_kernels == expected
    assert not look.lacking
    for node in look.nodes:
        if node.op_type in ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"):
            weight = look.initializers[node.input[1]]
            assert weight.dtype == np.float32, f"{node.op_type} {node.name} got its weights quantised"
        if node.op_type == "QLinearConv":
            assert look.initializers[node.input[3]].dtype == np.int8
    layers = [node for node in look.nodes if node.op_type in ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose")]
    assert len(layers) == len(NAMES) - expected


@settings(max_examples=25, deadline=None)
@given(picked=st.lists(choices, min_size=6, max_size=6))
def test_any_mixture_runs_where_it_says_and_close_to_the_rounded_network(
    picked, builder, x, run, optimized, exact_bits
):
    picked = [replace(c, weight_bits=min(c.weight_bits, exact_bits)) if c.integer else c for c in picked]
    candidate = Candidate(dict(zip(NAMES, picked, strict=True)))
    built = builder.build(candidate)
    check_file(built.to_bytes())
    float_weights_are_whole(built, optimized, builder)
    expected = Simulation(builder, candidate)(x[:1])
    found = run(built, x[:1])
    assert rms_steps(found, expected) < 2.5
    assert rms_steps(run(built, x[:1], optimize=False), found) < 1.0


@pytest.mark.parametrize("floats", [c for n in (1, 2, 3) for c in itertools.combinations(range(6), n)])
def test_float_layers_between_integer_layers_keep_their_float_weights(floats, builder, optimized):
    candidate = Candidate({n: LayerChoice(6, 32 if i in floats else 8) for i, n in enumerate(NAMES)})
    float_weights_are_whole(builder.build(candidate), optimized, builder)


@pytest.mark.parametrize(
    "body",
    [
        "r = Relu(b)",
        "r = Clip(b, low, high)",
        "r = MaxPool<kernel_shape=[2,2]>(b)",
        "r = Transpose<perm=[0,1,3,2]>(b)",
        "r = Identity(b)",
        "q = Relu(b)\n p = MaxPool<kernel_shape=[2,2]>(q)\n r = Relu(p)",
        "q = Reshape(b, s)\n r = Reshape(q, t)",
    ],
)
@pytest.mark.parametrize("before", ["h = Relu(a)", "h = MaxPool<kernel_shape=[2,2]>(a)", "h = Reshape(a, t)"])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_no_path_leads_the_runtime_to_quantise_a_float_layer(before, body, op, capture, weight, optimized, noise):
    used = {"low": np.float32(0), "high": np.float32(6), "s": np.array([1, 8, -1]), "t": np.array([1, 8, 9, 9])}
    if "Pool" in before:
        used["t"] = np.array([1, 8, 8, 8])
    constants = {name: array for name, array in used.items() if f" {name})" in before + body or f" {name}," in body}
    graph = capture(
        f"(float[1,4,9,9] x) => (float[n,c,h,w] y) {{ [first] a = Conv<pads=[1,1,1,1]>(x, v)\n {before}\n"
        f"[middle] b = {op}<pads=[1,1,1,1]>(h, w)\n {body}\n [last] y = Conv(r, u) }}",
        v=weight(8, 4, 3, 3), w=weight(8, 8, 3, 3), u=weight(8, 8, 1, 1), **constants,
    )  # fmt: skip
    candidate = Candidate({"first": LayerChoice(8, 8), "last": LayerChoice(8, 8)})
    look = optimized(Builder(graph, {"x": noise(2, 4, 9, 9)}, rounding="plain").build(candidate))
    assert look.ops["QLinearConv"] == 2
    (middle,) = (node for node in look.nodes if node.op_type in ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose"))
    assert look.initializers[middle.input[1]].dtype == np.float32


def integer_convolution(codes: np.ndarray, zero: int, weight: np.ndarray, bias: np.ndarray, pads: int) -> np.ndarray:
    """Convolve uint8 codes with int8 weights, exactly, in integers."""
    centred = np.pad(codes.astype(np.int64) - zero, [(0, 0), (0, 0), (pads, pads), (pads, pads)])
    windows = np.lib.stride_tricks.sliding_window_view(centred, weight.shape[2:], axis=(2, 3))
    return np.einsum("ncyxij,ocij->noyx", windows, weight.astype(np.int64)) + bias[:, None, None]


@pytest.mark.parametrize(
    ("bits", "widths", "size"),
    [*((bits, (4, 16, 8), 9) for bits in (2, 3, 4, 5, 6, 7, 8)), *((bits, (3, 17, 5), 70) for bits in (4, 7, 8))],
    ids=str,
)
def test_integer_candidates_equal_integer_arithmetic_in_numpy(
    bits, widths, size, capture, weight, noise, run, uniform_candidate, skip_saturated
):
    """Two convolutions with a Relu between, computed step by step in whole numbers; odd widths are padded in the file."""
    skip_saturated(bits)
    first, inner, last = widths
    graph = capture(
        f"(float[1,{first},{size},{size}] x) => (float[n,c,h,w] y) {{ [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n"
        "r = Relu(a)\n [l] y = Conv(r, v, c) }",
        w=weight(inner, first, 3, 3), b=weight(inner), v=weight(last, inner, 1, 1), c=weight(last),
    )  # fmt: skip
    x = noise(4, first, size, size)
    builder = Builder(graph, {"x": x})
    candidate = uniform_candidate(graph, bits, 8)
    lowering = builder.lower(candidate)
    lowering.run()
    scale, zero = lowering.grids["x"]
    codes = np.clip(np.rint(x[:1] / np.float32(scale)) + zero, 0, 255).astype(np.uint8)
    for name, tensor, pads in (("k", "a", 1), ("l", "y", 0)):
        layer = builder.equalised.layers[name]
        rounded = builder.static.rounded(layer, bits)
        bias = np.rint((builder.equalised.bias(layer) + rounded.shift) / (scale * rounded.scale))
        total = integer_convolution(codes, zero, rounded.codes, bias.astype(np.int64), pads)
        real = total * (scale * rounded.scale.astype(np.float64))[:, None, None]
        scale, zero = lowering.grids[tensor]
        codes = np.clip(np.rint(real / scale) + zero, 0, 255).astype(np.uint8)
    expected = (codes.astype(np.float32) - zero) * np.float32(scale)
    off = np.abs(run(builder.build(candidate), x[:1]) - expected) / scale
    assert off.max() < 2.01 and np.mean(off > 0.01) < 0.03  # ties, and what they lead to


@pytest.mark.parametrize(("bits", "outputs", "padded"), [(8, 3, 16), (4, 3, 16), (4, 18, 20), (4, 16, 16), (4, 32, 32)])
def test_a_kernel_runs_at_a_width_that_it_likes(
    bits, outputs, padded, capture, weight, noise, optimized, run, uniform_candidate
):
    graph = capture(
        "(float[1,6,32,32] x) => (float[n,c,h,w] y) { [k] y = Conv<pads=[1,1,1,1]>(x, w) }", w=weight(outputs, 6, 3, 3)
    )
    x = noise(4, 6, 32, 32)
    built = Builder(graph, {"x": x}, rounding="plain").build(uniform_candidate(graph, bits, 8))
    look = optimized(built)
    kernel = next(node for node in look.nodes if node.op_type == "QLinearConv")
    assert look.initializers[kernel.input[3]].shape == (padded, 8, 3, 3)
    assert not look.lacking
    assert run(built, x[:1]).shape == (1, outputs, 32, 32)


def test_a_layer_that_fell_back_to_float_is_named(builder, uniform_candidate, network):
    built = builder.build(uniform_candidate(network, 4, 8))
    (first, weight), *others = built.integer_tensors
    reads = {name: 1 for _, name in others}
    assert built.fallbacks(reads) == [first]
    assert built.fallbacks(reads | {weight: 1}) == []
    assert built.fallbacks(reads | {"what attention multiplies": 5}) == [first]
    assert built.fallbacks(reads | {others[0][1]: 2}) == [], "ONNX Runtime may store two equal weights once"


# --- the same bytes -------------------------------------------------------------------------------------------------


def test_the_same_candidate_gives_the_same_bytes(builder, network, x):
    picked = [
        LayerChoice(4, 8),
        LayerChoice(3, 32),
        LayerChoice(8, 8),
        LayerChoice(5, 8),
        LayerChoice(16),
        LayerChoice(2, 8),
    ]
    candidate = Candidate(dict(zip(NAMES, picked, strict=True)))
    first = builder.build(candidate)
    again = builder.build(Candidate(dict(reversed(list(zip(NAMES, picked, strict=True))))))
    other = Builder(network, {"x": x}).build(candidate)
    assert first.to_bytes() == again.to_bytes() == other.to_bytes()
    assert first.sha256 == hashlib.sha256(first.to_bytes()).hexdigest()
    assert first.size_bytes == len(first.to_bytes())


SCRIPT = """
import sys
import numpy as np
from pathlib import Path
from slimfront.spaces.build import Builder
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.candidate import Candidate, LayerChoice
graph = capture_onnx(Path(sys.argv[1]))
x = np.load(sys.argv[2])
layers = {name: LayerChoice(2 + i, 8 if i % 2 else 32) for i, name in enumerate(graph.layers)}
built = [Builder(graph, {"x": x}).build(Candidate(layers, repair=repair)) for repair in ("static", "sequential")]
print(graph.digest, *(model.sha256 for model in built))
"""


def test_another_process_builds_the_same_bytes_from_nothing(network, x, tmp_path):
    """With another hash seed, another cache folder and another number of threads."""
    network.save(tmp_path / "network.onnx")
    np.save(tmp_path / "x.npy", x)
    results = []
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "SLIMFRONT_CACHE": str(tmp_path / seed)}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "network.onnx"), str(tmp_path / "x.npy")]
        results.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert results[0] == results[1] and len(results[0].split()) == 3


def test_a_built_file_is_saved_as_its_bytes(builder, uniform_candidate, network, tmp_path):
    built = builder.build(uniform_candidate(network, 4, 8))
    built.save(tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == built.to_bytes()
    with pytest.raises(InputError, match=r"cannot write .*model\.onnx"):
        built.save(tmp_path / "absent" / "model.onnx")


# --- the reference, storage, sizes ----------------------------------------------------------------------------------


def test_the_empty_candidate_is_the_reference(builder, network, x, run, reference):
    built = builder.build(Candidate())
    check_file(built.to_bytes())
    assert np.array_equal(run(built, x[:1]), reference(network, x[:1]))
    assert built.integer_kernels == 0


def test_float16_halves_the_file_and_rounds_the_weights(builder, network, x, run, uniform_candidate):
    whole, half = builder.build(Candidate()), builder.build(uniform_candidate(network, 16))
    weights = sum(int(np.prod(layer.shape)) for layer in network.layers.values())
    assert abs(whole.size_bytes - half.size_bytes - 2 * weights) < 400
    assert np.allclose(run(half, x[:1]), run(whole, x[:1]), atol=1e-2)
    stored = [
        t for t in onnx.load_from_string(half.to_bytes()).graph.initializer if t.data_type == onnx.TensorProto.FLOAT16
    ]
    assert sum(int(np.prod(t.dims)) for t in stored) == weights


def test_weights_beyond_float16_are_refused_for_16_bits(capture, noise):
    graph = capture(
        "(float[1,4,5,5] x) => (float[n,c,h,w] y) { [k] y = Conv(x, w) }", w=np.full((4, 4, 1, 1), 1e5, np.float32)
    )
    with pytest.raises(BuildError, match=r"layer 'k' has weights beyond float16"):
        Builder(graph, {"x": noise(2, 4, 5, 5)}).build(Candidate({"k": LayerChoice(16)}))


@pytest.mark.parametrize(
    ("bits", "activation"), [(2, 8), (3, 32), (4, 8), (5, 8), (6, 32), (7, 8), (8, 8), (8, 32), (16, 32)]
)
def test_file_size_is_the_sum_of_bits_scales_and_graph(bits, activation, capture, weight, noise, uniform_candidate):
    shapes = {"w": (64, 64, 3, 3), "v": (64, 64, 3, 3), "u": (64, 64, 4, 4), "b": (64,), "c": (64,), "z": (64,)}
    graph = capture(
        "(float[1,64,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Relu(a)\n"
        "[l] d = Conv<pads=[1,1,1,1]>(r, v, c)\n e = Add(d, r)\n"
        "[m] y = ConvTranspose<strides=[2,2],pads=[1,1,1,1]>(e, u, z) }",
        **{name: weight(*shape, seed=ord(name)) for name, shape in shapes.items()},
    )
    built = Builder(graph, {"x": noise(2, 64, 8, 8)}, rounding="plain").build(
        uniform_candidate(graph, bits, activation)
    )
    counts = [int(np.prod(shape)) for shape in shapes.values() if len(shape) == 4]
    weights = sum(2 * n if bits == 16 else packed_bytes(n, bits) for n in counts)
    scales = 3 * 64 * 4 * (2 if bits <= 8 else 1)  # float32 scales and biases
    offsets = 3 * 64 if bits < 5 else 0  # where channels choose their grid's offset
    model = onnx.load_from_string(built.to_bytes())
    stored = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    assert weights + scales <= stored <= 1.03 * (weights + scales + offsets)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert built.size_bytes - stored <= 50 * (len(nodes) + len(model.graph.initializer))


def test_weights_of_two_nodes_are_stored_once(capture, weight, noise, run, reference, uniform_candidate):
    graph = capture(
        "(float[1,32,8,8] x) => (float[n,c,h,w] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Relu(a)\n"
        "[l] d = Conv<pads=[1,1,1,1]>(r, w, b)\n y = Add(d, r) }",
        w=weight(32, 32, 3, 3), b=weight(32),
    )  # fmt: skip
    assert list(graph.layers) == ["k"] and graph.layers["k"].nodes == ("k", "l")
    builder = Builder(graph, {"x": noise(4, 32, 8, 8)})
    x = noise(1, 32, 8, 8)
    for bits, activation, most in ((8, 8, 9216), (4, 8, 4608), (4, 32, 4608), (16, 32, 18432), (32, 32, 36864)):
        built = builder.build(uniform_candidate(graph, bits, activation))
        assert most < built.size_bytes < most + 3000
        if bits >= 8:
            assert rms_steps(run(built, x), reference(graph, x)) < 1.5
        if activation == 8:
            assert built.integer_kernels == 2


# --- free axes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", [8, 32])
def test_free_axes_stay_free_through_every_rearrangement(
    activation, capture, weight, noise, run, uniform_candidate, exact_bits
):
    graph = capture(
        "(float[1,4,H,W] x) => (float[1,6,A,B] y) { [k] a = Conv<pads=[1,1,1,1]>(x, w, b)\n r = Relu(a)\n"
        '[l] d = Conv<pads=[1,1,1,1]>(r, v)\n e = DepthToSpace<blocksize=2,mode="CRD">(d)\n'
        '[m] g = Conv<pads=[1,1,1,1]>(e, u)\n i = Resize<mode="nearest",coordinate_transformation_mode="asymmetric",'
        'nearest_mode="floor">(g, , f)\n [o] j = ConvTranspose<strides=[2,2],pads=[1,1,1,1],output_padding=[1,1]>(i, t)\n'
        'q = DepthToSpace<blocksize=2>(j)\n [p] y = Conv<pads=[1,1,1,1]>(q, s) }',
        input_shape=(1, 4, 6, 8), w=weight(16, 4, 3, 3), b=weight(16), v=weight(16, 16, 3, 3), u=weight(16, 4, 3, 3),
        t=2 * weight(16, 16, 3, 3), s=weight(6, 4, 3, 3), f=np.float32([1, 1, 2, 2]),
    )  # fmt: skip
    assert graph.inputs[0].axes == (1, 4, "H", "W") and graph.inputs[0].shape == (1, 4, 6, 8)
    built = Builder(graph, {"x": noise(4, 4, 6, 8)}).build(uniform_candidate(graph, exact_bits, activation))
    check_file(built.to_bytes())
    import onnx_ir as ir

    original = ir.to_proto(graph.model).SerializeToString()
    for size in ((6, 8), (5, 11), (17, 3)):
        one = noise(1, 4, *size)
        expected = run(original, one)
        found = run(built, one)
        assert found.shape == expected.shape == (1, 6, 16 * size[0], 16 * size[1])
        assert rms_steps(found, expected) < 3
        assert rms_steps(run(built, one, optimize=False), found) < 1
    shape = onnx.load_from_string(built.to_bytes()).graph.input[0].type.tensor_type.shape
    assert [axis.dim_param or axis.dim_value for axis in shape.dim] == [1, 4, "H", "W"]


# --- what is refused ------------------------------------------------------------------------------------------------


def test_an_unknown_layer_names_the_nearest(builder):
    with pytest.raises(InputError, match=r"unknown layer 'nar0w' \(did you mean 'narrow'\?\)") as caught:
        builder.build(Candidate({"nar0w": LayerChoice(4)}))
    assert "\n" not in str(caught.value)


def test_integers_where_there_is_no_kernel_are_refused(capture, weight, noise):
    graph = capture("(float[1,4,9] x) => (float[n,c,l] y) { [k] y = Conv(x, w) }", w=weight(4, 4, 3))
    builder = Builder(graph, {"x": noise(2, 4, 9)})
    with pytest.raises(BuildError, match=r"layer 'k' \(Conv\) has no integer kernel: activation_bits must be 32"):
        builder.build(Candidate({"k": LayerChoice(4, 8)}))
    assert builder.build(Candidate({"k": LayerChoice(4)})).integer_kernels == 0


def test_a_bias_too_large_for_its_integers_is_kept(capture, noise, run, reference, uniform_candidate):
    """Channels of next to no weight and a real bias: the int32 bias must not overflow."""
    w = np.random.default_rng(0).standard_normal((8, 4, 3, 3)).astype(np.float32)
    w[2:5] *= 1e-9
    graph = capture(
        "(float[1,4,9,9] x) => (float[n,c,h,w] y) { [k] a = Conv(x, w, b)\n r = Relu(a)\n [l] y = Conv(r, v) }",
        w=w, b=np.linspace(2, 9, 8, dtype=np.float32), v=np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1),
    )  # fmt: skip
    builder, x = Builder(graph, {"x": noise(4, 4, 9, 9)}), noise(1, 4, 9, 9)
    for bits in (4, 8):
        found, expected = run(builder.build(uniform_candidate(graph, bits, 8)), x), reference(graph, x)
        assert np.abs(found[:, 2:5] - expected[:, 2:5]).max() < 4 * expected.max() / 255


@pytest.mark.parametrize("rounding", ["plain", "second-order"])
def test_what_was_built_before_changes_nothing(rounding, network, x, monkeypatch, tmp_path, uniform_candidate):
    """A builder with another rounding method, filling the same cache first, leaves no trace in the bytes."""
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "one"))
    candidate = uniform_candidate(network, 4, 8)
    alone = Builder(network, {"x": x}, rounding=rounding).build(candidate).to_bytes()
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "two"))
    other = Builder(network, {"x": x}, rounding="plain" if rounding == "second-order" else "second-order")
    other.build(candidate)
    assert Builder(network, {"x": x}, rounding=rounding).build(candidate).to_bytes() == alone


# --- files above 2 GB (here: above 10 kB) ---------------------------------------------------------------------------


def test_large_models_keep_their_weights_beside_the_file(
    builder, network, x, run, uniform_candidate, monkeypatch, tmp_path
):
    from slimfront.spaces import build, graph
    from slimfront.spaces.build import file_hash, file_size

    candidate = uniform_candidate(network, 8, 8)
    whole = builder.build(candidate)
    expected = run(whole, x[:1])
    for module in (build, graph):
        monkeypatch.setattr(module, "EXTERNAL_ABOVE_BYTES", 5_000)
    built = builder.build(candidate)
    path = tmp_path / "model.onnx"
    built.save(path)
    assert {file.name for file in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert built.size_bytes == file_size(path) == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert built.sha256 == file_hash(path) == builder.build(candidate).sha256
    assert abs(built.size_bytes - whole.size_bytes) < 10_000
    assert np.array_equal(run(path, x[:1]), expected)
    onnx.checker.check_model(str(path), full_check=True)
    with pytest.raises(InputError, match=r"larger than 2 GB.*save it to a file"):
        built.to_bytes()


def test_only_what_will_be_rounded_is_prepared(network, x, tmp_path, monkeypatch):
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path))
    builder = Builder(network, {"x": x})
    builder.prepare(Candidate({name: LayerChoice(16) for name in network.layers}).rounded)
    assert not list(tmp_path.rglob("*.np*"))
    first = next(iter(network.layers))
    builder.prepare(Candidate({first: LayerChoice(4)}).rounded)
    assert len(list(tmp_path.rglob("rounded-*"))) == 1
