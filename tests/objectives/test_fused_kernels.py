"""Kernels of graphs with QuantizeLinear and DequantizeLinear: what is in integers, what converts, what costs nothing."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.objectives.fused_kernels import fused_kernels
from slimfront.spaces.attribution import working_for
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.kernel_shapes import FLOAT, INT8
from slimfront.spaces.kernels import QUANTISING
from slimfront.spaces.rules import LITERT

HEAD = '<ir_version: 8, opset_import: ["": 21]> g '


def ops(text: str, shape: tuple[int, ...] = (1, 4, 8, 8), **stored: np.ndarray) -> list[tuple[str, bool]]:
    """Return the kernels of a graph of input "x": op, and whether it runs in integers."""
    return [(kernel.op, kernel.integer) for kernel in kernels(text, shape, **stored)]


def kernels(text: str, shape: tuple[int, ...] = (1, 4, 8, 8), **stored: np.ndarray):
    import onnx
    from onnx import numpy_helper

    model = onnx.parser.parse_model(HEAD + text)
    known = {"s": np.float32(0.1), "t": np.float32(0.2), "z": np.uint8(128), **stored}
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in known.items())
    return fused_kernels(model.SerializeToString(), {"x": shape})


WEIGHT = {"c": np.ones((4, 4, 3, 3), np.int8), "ws": np.ones(4, np.float32)}
ENTER = "q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) w = DequantizeLinear<axis=0>(c, ws)"
PORTS = "(float[1,4,8,8] x) => (float[n,k,h,l] y) "


def test_what_stands_between_the_two_is_one_integer_kernel():
    found = kernels(
        PORTS + "{" + ENTER + " b = Conv<pads=[1,1,1,1]>(a, w) p = QuantizeLinear(b, t, z)"
        " y = DequantizeLinear(p, t, z) }",
        **WEIGHT,
    )
    assert [(kernel.op, kernel.integer) for kernel in found] == [
        ("QuantizeLinear", False),
        ("Conv", True),
        ("DequantizeLinear", True),
    ]
    first, product, last = found
    assert [tensor.dtype for tensor in (*product.inputs, *product.outputs)] == [INT8, INT8, INT8]
    assert product.constants == (False, True) and product.input_names == ("q", "c")
    assert product.output == "b" and "p" in product.output_names
    assert product.multiply_adds == 4 * 8 * 8 * 4 * 9
    assert (first.outputs[0].dtype, last.inputs[0].dtype, last.outputs[0].dtype) == (INT8, INT8, FLOAT)
    assert last.input_names[0] == "p"


def test_a_product_whose_output_is_read_in_float_as_well_is_a_float_kernel():
    found = ops(
        "(float[1,4,8,8] x) => (float[n,k,h,l] y, float[n,k,h,l] b) {" + ENTER + " b = Conv<pads=[1,1,1,1]>(a, w)"
        " p = QuantizeLinear(b, t, z) y = DequantizeLinear(p, t, z) }",
        **WEIGHT,
    )
    assert ("Conv", False) in found and ("Conv", True) not in found
    assert found.count(("DequantizeLinear", True)) == 2, "what the convolution reads, and the output"


def test_a_product_whose_weight_is_stored_in_float_is_a_float_kernel():
    found = ops(
        PORTS + "{" + ENTER + " b = Conv<pads=[1,1,1,1]>(a, f) p = QuantizeLinear(b, t, z)"
        " y = DequantizeLinear(p, t, z) }",
        **WEIGHT,
        f=np.ones((4, 4, 3, 3), np.float32),
    )
    assert ("Conv", False) in found


def test_an_activation_becomes_part_of_the_float_kernel_before_it_and_of_no_other():
    weight = np.ones((4, 4, 3, 3), np.float32)
    found = kernels(PORTS + "{ b = Conv<pads=[1,1,1,1]>(x, f) r = Relu(b) e = Exp(r) y = Relu(e) }", f=weight)
    assert [kernel.op for kernel in found] == ["Conv", "Exp", "Relu"]
    assert dict(found[0].attributes)["activation"] == "Relu" and found[0].output_names == ("b", "r")
    twice = ops(PORTS + "{ b = Conv<pads=[1,1,1,1]>(x, f) r = Relu(b) y = Add(b, r) }", f=weight)
    assert [op for op, _ in twice] == ["Conv", "Relu", "Add"]


def test_an_activation_before_the_rounding_is_part_of_the_integer_kernel():
    found = kernels(
        PORTS + "{" + ENTER + " b = Conv<pads=[1,1,1,1]>(a, w) r = Relu(b) p = QuantizeLinear(r, t, z)"
        " y = DequantizeLinear(p, t, z) }",
        **WEIGHT,
    )
    assert [(kernel.op, kernel.integer) for kernel in found][1:-1] == [("Conv", True)]
    assert dict(found[1].attributes)["activation"] == "Relu" and found[1].output_names == ("b", "r", "p")


def test_what_only_names_a_tensor_anew_is_no_kernel():
    shape = np.array([1, 256], np.int64)
    assert ops("(float[1,4,8,8] x) => (float[n,k] y) { r = Reshape(x, n) y = Exp(r) }", n=shape) == [("Exp", False)]
    inside = kernels(
        "(float[1,4,8,8] x) => (float[n,k] y) { q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z)"
        " r = Reshape(a, n) p = QuantizeLinear(r, s, z) d = DequantizeLinear(p, s, z) e = Sigmoid(d)"
        " o = QuantizeLinear(e, t, z) y = DequantizeLinear(o, t, z) }",
        n=shape,
    )
    assert [kernel.op for kernel in inside] == ["QuantizeLinear", "Sigmoid", "DequantizeLinear"]
    assert inside[1].input_names == ("q",) and inside[1].inputs[0].shape == (1, 256)


def test_a_change_of_grid_is_a_conversion_of_integers():
    found = kernels(
        PORTS + "{ q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) p = QuantizeLinear(a, t, z)"
        " y = DequantizeLinear(p, t, z) }"
    )
    assert [(kernel.op, kernel.inputs[0].dtype, kernel.outputs[0].dtype) for kernel in found] == [
        ("QuantizeLinear", FLOAT, INT8),
        ("QuantizeLinear", INT8, INT8),
        ("DequantizeLinear", INT8, FLOAT),
    ]


def test_what_hangs_on_constants_and_shapes_alone_is_no_kernel():
    found = ops(
        PORTS + "{ h = Shape(x) r = Reshape(x, h) f = Mul(v, g) y = Add(r, f) }",
        v=np.ones((1, 4, 1, 1), np.float32),
        g=np.float32(2),
    )
    assert found == [("Add", False)]


@pytest.fixture(scope="module")
def builder(residual_model, pictures):
    return Builder(capture_onnx(residual_model), {"x": pictures(4, 1)}, rules=LITERT, rounding="plain")


def test_a_candidate_in_integers_converts_at_its_ends_alone(builder, tmp_path):
    path = tmp_path / "model.onnx"
    reference, integer = (
        (builder.build(candidate))
        for candidate in (Candidate(), Candidate({name: LayerChoice(8, 8) for name in builder.graph.layers}))
    )
    found = []
    for built in (reference, integer):
        built.save_graph(path)
        found.append(fused_kernels(path, {"x": (1, 3, 16, 16)}))
    assert sum(kernel.multiply_adds for kernel in found[0]) == sum(kernel.multiply_adds for kernel in found[1]) > 0
    assert not any(kernel.integer for kernel in found[0])
    assert sum(kernel.integer and kernel.is_product for kernel in found[1]) == integer.integer_kernels == 5
    ends = [kernel.op for kernel in found[1] if kernel.op in QUANTISING]
    assert ends == ["QuantizeLinear", "DequantizeLinear"]
    assert all(kernel.integer for kernel in found[1][1:])
    products = [kernel for kernel in found[1] if kernel.is_product]
    owners = dict(
        zip((kernel.output for kernel in found[1]), working_for(found[1], integer, builder.graph), strict=True)
    )
    assert [owners[kernel.output] for kernel in products] == list(builder.graph.layer_of_node)


def test_a_layer_in_float_among_integers_has_conversions_around_it(builder, tmp_path):
    layers = {name: LayerChoice(8, 8) for name in builder.graph.layers if name != "b"}
    builder.build(Candidate(layers)).save_graph(tmp_path / "model.onnx")
    found = fused_kernels(tmp_path / "model.onnx", {"x": (1, 3, 16, 16)})
    products = [kernel.integer for kernel in found if kernel.is_product]
    assert products == [True, False, True, True, True]
    place = next(n for n, kernel in enumerate(found) if kernel.is_product and not kernel.integer)
    assert found[place - 1].op == "DequantizeLinear"
    assert any(kernel.op == "QuantizeLinear" for kernel in found[place + 1 : place + 3])
