"""The kernels of ONNX Runtime's own graph: their shapes are those that it reports while it runs, and each has its owner."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.kernel_shapes import FLOAT, INT8, UINT8, Tensor
from slimfront.spaces.kernels import TYPES, Kernel, kernel_owners, read_kernels
from slimfront.spaces.session import open_session
from slimfront.spaces.space import layer_activation_bits

from .networks import FREE, HEAD, NETWORKS, TAIL

CHOSEN = (
    *("strided conv", "dilated conv", "grouped conv", "depthwise conv", "transposed conv", "sum", "product", "concat"),
    *("constant matrices", "flatten then gemm", "group norm", "layer norm", "instance norm", "softmax over pixels"),
    *("squeeze and excite", "pooling", "resize by scales", "pad of channels", "pixel shuffle", "space to depth"),
    *("split into unequal parts", "window attention", "spatial attention", "mean over pixels", "shift of channels"),
)
FREE_CHOSEN = ("tokens", "to the size of another", "ones of its size", "halves by computed sizes", "windows")


def run_and_compare(path: Path, feed: dict[str, np.ndarray], folder: Path) -> int:
    """Compare the kernels of a file with what a profile tells of each; return how many there are."""
    optimized = folder / "optimized.onnx"
    session = open_session(path, optimized_path=optimized, profile_prefix=folder / "profile")
    kernels = read_kernels(optimized, {name: array.shape for name, array in feed.items()})
    session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text())
    told = [event["args"] for event in events if event["name"].endswith("_kernel_time")]
    assert [event["op_name"] for event in told] == [kernel.short_op for kernel in kernels]
    for kernel, event in zip(kernels, told, strict=True):
        written = [(TYPES[t.dtype], t.shape) for t in kernel.outputs if t is not None]
        assert written == ports(event["output_type_shape"]), kernel
        # stored weights that a kernel packed for itself are not reported
        left = ports(event["input_type_shape"])
        for tensor, constant in zip(kernel.inputs, kernel.constants, strict=True):
            port = tensor and (TYPES[tensor.dtype], tensor.shape)
            if left and port == left[0]:
                left.pop(0)
            else:
                assert constant or tensor is None, (kernel, event)
        assert not left, (kernel, event)
    return len(kernels)


def ports(reported: list[dict[str, list[int]]]) -> list[tuple[str, tuple[int, ...]]]:
    return [(dtype, tuple(sizes)) for port in reported for dtype, sizes in port.items()]


@pytest.mark.parametrize("name", [*CHOSEN, *(f"free: {name}" for name in FREE_CHOSEN)])
def test_shapes_are_those_that_the_runtime_reports(name, capture, weight, noise, tmp_path):
    free = name.startswith("free: ")
    made = FREE[name.removeprefix("free: ")] if free else NETWORKS[name]
    constants = {k: weight(*v) if isinstance(v, tuple) else v for k, v in made.constants.items()}
    constants |= {"wa": weight(8, 4, 3, 3), "ba": weight(8), "wz": weight(3, made.channels, 1, 1)}
    text = f"(float[{'N,4,H,W' if free else '2,4,8,8'}] x) => (float[a0,b0,c0,d0] y) {{ {HEAD} {made.middle} {TAIL} }}"
    graph = capture(text, (2, 4, 8, 8) if free else None, **constants)
    builder = Builder(graph, {"x": noise(4, 4, 8, 8)}, rounding="plain")
    able = [layer.name for layer in graph.layers.values() if 8 in layer_activation_bits(graph, layer)]
    integer = Candidate(dict.fromkeys(able, LayerChoice(8, 8)))
    groups = channel_groups(graph).groups
    for candidate in (Candidate(), integer, Candidate({"a": LayerChoice(8, 8)}, dict.fromkeys(groups, 0.5))):
        path = tmp_path / "model.onnx"
        (builder.skeleton(candidate) if candidate.repaired else builder.build(candidate)).save(path)
        assert run_and_compare(path, {"x": noise(2, 4, 8, 8)}, tmp_path)


def kernel(op: str, inputs: list, outputs: list, constants: list[bool], **attributes) -> Kernel:
    return Kernel("", "y", op, tuple(inputs), tuple(outputs), tuple(constants), tuple(sorted(attributes.items())))


def f32(*sizes: int) -> Tensor:
    return Tensor(FLOAT, sizes)


@pytest.mark.parametrize(
    ("op", "inputs", "outputs", "expected"),
    [
        ("Conv", [f32(2, 8, 9, 9), f32(6, 4, 3, 3)], f32(2, 6, 7, 7), 2 * 6 * 7 * 7 * 4 * 9),  # two groups
        ("ConvTranspose", [f32(1, 8, 5, 5), f32(8, 3, 4, 4)], f32(1, 3, 10, 10), 5 * 5 * 8 * 3 * 16),
        ("MatMul", [f32(2, 7, 8), f32(8, 5)], f32(2, 7, 5), 2 * 7 * 8 * 5),
        ("MatMul", [f32(2, 7, 8), f32(2, 8, 5)], f32(2, 7, 5), 2 * 7 * 8 * 5),
        ("Gemm", [f32(7, 8), f32(5, 8)], f32(7, 5), 7 * 8 * 5),
        ("Relu", [f32(7, 8)], f32(7, 8), 0),
    ],
)
def test_multiply_adds_are_those_of_the_loops(op, inputs, outputs, expected):
    found = kernel(op, inputs, [outputs], [False, True][: len(inputs)])
    assert found.multiply_adds == expected
    assert found.elements == math.prod(inputs[0].shape) + math.prod(outputs.shape)


def test_a_product_of_two_computed_matrices_counts_as_well():
    found = kernel("MatMul", [f32(2, 7, 8), f32(2, 8, 5)], [f32(2, 7, 5)], [False, False])
    assert found.multiply_adds == 2 * 7 * 8 * 5 and found.weight is None


def test_kernels_that_do_the_same_work_have_one_key():
    def conv(width=8, stored=True, name="n", stride=1):
        made = kernel(
            "Conv", [f32(1, 4, 8, 8), f32(width, 4, 1, 1)], [f32(1, width, 8, 8)], [False, stored], stride=stride
        )
        return Kernel(name, f"{name} out", *(getattr(made, key) for key in list(vars(made))[2:7]))

    assert conv().key == conv(name="other").key
    assert len({conv().key, conv(12).key, conv(stored=False).key, conv(stride=2).key}) == 4


def test_whether_a_kernel_works_in_integers_goes_by_what_it_computes_with():
    image, weights = Tensor(UINT8, (1, 4, 8, 8)), Tensor(INT8, (8, 4, 1, 1))
    assert kernel("QLinearConv", [image, f32(), weights], [image], [False, True, True]).integer
    assert not kernel("Conv", [f32(1, 4, 8, 8), f32(8, 4, 1, 1)], [f32(1, 8, 8, 8)], [False, True]).integer
    assert not kernel("Constant", [], [f32(1)], []).integer


def test_unknown_shapes_count_as_nothing_and_are_seen_in_the_key():
    found = kernel("Conv", [Tensor(FLOAT, None), f32(8, 4, 1, 1)], [None], [False, True])
    assert (found.multiply_adds, found.elements) == (0, 0)
    assert "float[?]" in found.key and found.key.endswith("-> -")


@pytest.mark.parametrize("candidate", [Candidate(), "integer", "float"])
def test_every_convolution_belongs_to_its_layer(candidate, tiny_model, pictures, tmp_path):
    graph = capture_onnx(tiny_model)
    builder = Builder(graph, {"x": pictures(2, 1)}, rounding="plain")
    if isinstance(candidate, str):
        candidate = Candidate(dict.fromkeys(graph.layers, LayerChoice(8, 8 if candidate == "integer" else 32)))
    built = builder.build(candidate)
    path, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    built.save(path)
    open_session(path, optimized_path=optimized)
    kernels = read_kernels(optimized, {"x": (1, 3, 16, 16)})
    weights = {weight: node for node, weight in built.integer_tensors}
    layer = {
        node.name: name for name, each in graph.layers.items() for node in graph.model.graph if node.name in each.nodes
    }
    relu = {f"act{i}": f"conv{i}" for i in range(3)}  # a fused kernel may carry the name of the op that it took up
    owners = [relu.get(owner, owner) for owner in kernel_owners(kernels, built.owners, weights)]
    products = [owner for owner, kernel in zip(owners, kernels, strict=True) if kernel.is_product]
    assert [layer.get(owner, owner) for owner in products] == ["conv0", "conv1", "conv2"]


def test_what_the_runtime_puts_in_between_belongs_to_what_stands_before_it():
    def named(node: str, output: str, *read: str) -> Kernel:
        image = f32(1, 4, 8, 8)
        stored = tuple(name in ("w", "codes") for name in read)
        return Kernel(node, output, "Op", (image,) * len(read), (image,), stored, (), read, (output,))

    kernels = [
        *(named("", "t0", "x"), named("a_nchwc", "t1", "t0"), named("", "t2", "t1")),
        *(named("", "b", "t2", "w"), named("", "q", "b", "codes")),
    ]
    owners = {"a": "node a", "b": "node b"}
    assert kernel_owners(kernels, owners) == ["", "node a", "node a", "node b", "node b"]
    assert kernel_owners(kernels, owners, {"codes": "node c"})[-1] == "node c"
