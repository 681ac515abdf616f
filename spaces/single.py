"""One layer cut out of a graph, with weights that mean nothing: enough to time its kernels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent
from .follow import new_constant
from .forms import nearest_before
from .graph import Graph, Layer
from .work import multiply_adds

if TYPE_CHECKING:
    import onnx_ir as ir

WEIGHT = 0.01
MOST_WORK = 4e9  # multiply-adds: a larger image is halved, though what no longer fits a cache may run otherwise
LEAST_SIDE = 64  # pixels
NEIGHBOUR = "MaxPool"  # of one pixel: runs in integers and in float, in the layout of either's convolutions
REPEATS = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def single_layer(graph: Graph, layer: Layer) -> Graph:
    """Return a graph of one input, a layer named "layer" and one output.

    The nearest upsampling that the layer's forms would take up stands before it. On images a `NEIGHBOUR` stands at either
    side, so that the layer is in the layout that it has between layers of its own kind. A large image is halved as often as its
    layer needs to stay below `MOST_WORK`. Layers that take the same time give graphs of the same digest.
    """
    node = next(node for node in graph.model.graph if node.name == layer.nodes[0])
    factors = nearest_before(graph, node)
    source = node.inputs[0]
    if factors is not None:
        resize = source.producer()  # type: ignore[union-attr]
        source = resize.inputs[0]  # type: ignore[union-attr]
    shape = graph.shapes[source.name or ""]  # type: ignore[union-attr]
    scale = math.prod(factors or (1,))
    work = multiply_adds(graph)[layer.name] // len(layer.nodes)
    while len(layer.kernel) == 2 and work > MOST_WORK and min(shape[2:]) >= 2 * LEAST_SIDE // scale:
        shape, work = (*shape[:2], *(size // 2 for size in shape[2:])), work // 4
    return _graph(node, layer, shape, factors)


def _graph(node: ir.Node, layer: Layer, shape: tuple[int, ...], factors: tuple[int, int] | None) -> Graph:
    import onnx_ir as ir

    x = ir.Value(name="x", shape=ir.Shape(shape), type=ir.TensorType(ir.DataType.FLOAT))
    weight = new_constant("weight", np.full(layer.shape, WEIGHT, np.float32))
    if layer.recurrent:
        return _as_graph(node, x, *_recurrent(node, layer, x, weight))
    constants, nodes, read = [weight], [], x
    if len(layer.kernel) == 2:
        nodes.append(_neighbour(x, "before"))
        read = nodes[-1].outputs[0]
    if factors is not None:
        scales = new_constant("scales", np.array([1, 1, *factors], np.float32))
        resize = ir.node("Resize", [read, None, scales], REPEATS, name="resize")
        read = resize.outputs[0]
        read.name, read.type = "read", x.type
        constants.append(scales)
        nodes.append(resize)
    inputs: list[ir.Value | None] = [read, weight]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        constants.append(new_constant("bias", np.full(layer.channels, WEIGHT, np.float32)))
        inputs.append(constants[-1])
    attributes = {name: node.attributes[name] for name in sorted(node.attributes)}
    only = ir.node(node.op_type, inputs, attributes, name="layer")
    nodes.append(only)
    if len(layer.kernel) == 2:
        only.outputs[0].name, only.outputs[0].type = "written", x.type
        nodes.append(_neighbour(only.outputs[0], "after"))
    return _as_graph(node, x, nodes, constants)


def _recurrent(node: ir.Node, layer: Layer, x: ir.Value, weight: ir.Value) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes of an LSTM or GRU that begins with states of 0, and their constants."""
    import onnx_ir as ir

    of = recurrent.sizes(layer.op, layer.shape)
    widths = new_constant("widths", np.array([of.inputs, of.hidden], np.int64))
    bias = new_constant("bias", np.full((of.directions, 2 * layer.shape[1]), WEIGHT, np.float32))
    split = ir.node("Split", [weight, widths], {"axis": recurrent.AXIS}, num_outputs=2, name="parts")
    for number, value in enumerate(split.outputs):
        value.name, value.type = f"part{number}", x.type
    attributes = {name: node.attributes[name] for name in sorted(node.attributes)}
    only = ir.node(layer.op, [x, *split.outputs, bias], attributes, name="layer")
    return [split, only], [weight, widths, bias]


def _as_graph(node: ir.Node, x: ir.Value, nodes: list[ir.Node], constants: list[ir.Value]) -> Graph:
    """Return a graph of nodes of which the last one writes the output."""
    import onnx_ir as ir

    y = nodes[-1].outputs[0]
    y.name, y.type = "y", x.type
    opsets = dict(node.graph.opset_imports) if node.graph is not None else {"": 21}  # type: ignore[union-attr]
    model = ir.Model(
        ir.Graph([x], [y], nodes=nodes, initializers=constants, opset_imports=opsets, name="single"),
        ir_version=10,
    )
    single = Graph(model, {"x": tuple(x.shape.numpy())})  # type: ignore[union-attr]
    for value in (value for each in model.graph for value in each.outputs):
        value.shape = ir.Shape(single.shapes[value.name or ""])  # the lowering asks which sizes are free
    return single


def _neighbour(value: ir.Value, name: str) -> ir.Node:
    import onnx_ir as ir

    node = ir.node(NEIGHBOUR, [value], {"kernel_shape": [1, 1]}, name=name)
    node.outputs[0].name, node.outputs[0].type = name, value.type
    return node
