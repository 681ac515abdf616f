"""The one form of a model: an ONNX graph with its layers found and its shapes known."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import recurrent
from .errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

LAYER_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *recurrent.GATES)
NOT_LEARNED = {"Resize": (1, 2), "BatchNormalization": (3, 4), "Clip": (1, 2), "Pad": (2,)}  # inputs, by op
EXTERNAL_ABOVE_BYTES = 2_000_000_000  # a protobuf file ends at 2 GiB; above this, weights go beside it


@dataclass(frozen=True)
class Port:
    """An input or output of the model: ``shape`` is the one to measure at, a text in ``axes`` is a free axis."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class Layer:
    """A node with trainable weights, or several nodes that share them.

    Attributes:
        name: the captured graph's name of the (first) node.
        op: Conv, ConvTranspose, Gemm, MatMul, LSTM or GRU.
        nodes: the nodes that use the weights.
        weight: name of the weight's initializer.
        shape: the weight's shape, as stored: Conv [O, I/g, k...], ConvTranspose [I, O/g, k...], MatMul [K, N];
            of LSTM and GRU both weights joined, [D, gates H, I + H] (`recurrent`).
        parameters: number of weights and biases.
        blocks: of an LSTM or GRU, how many blocks of rows have inputs of their own.
    """

    name: str
    op: str
    nodes: tuple[str, ...]
    weight: str
    shape: tuple[int, ...]
    parameters: int
    group: int = 1
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    transposed: bool = False
    blocks: int = 1

    @property
    def recurrent(self) -> bool:
        """Whether it is an LSTM or a GRU."""
        return self.op in recurrent.GATES

    @property
    def directions(self) -> int:
        """Of an LSTM or GRU, forward and backward; 1 elsewhere."""
        return self.shape[0] if self.recurrent else 1

    @property
    def channel_axis(self) -> int:
        """The axis of the stored weight that counts output channels (within a group or direction)."""
        if self.op == "Conv":
            return 0
        if self.op == "Gemm":
            return 0 if self.transposed else 1
        return 1

    @property
    def input_axis(self) -> int:
        """The axis of the stored weight that counts input channels (within a group for Conv)."""
        if self.recurrent:
            return recurrent.AXIS
        return 1 if self.op == "Conv" or self.transposed else 0

    @property
    def depthwise(self) -> bool:
        """Whether each input channel has outputs of its own."""
        inputs = self.shape[0] // self.group if self.op == "ConvTranspose" else self.shape[self.input_axis]
        return self.group > 1 and inputs == 1

    @property
    def channels(self) -> int:
        """Number of output channels; of an LSTM or GRU, of the rows of all its gates."""
        if self.recurrent:
            return self.shape[0] * self.shape[1]
        return self.shape[self.channel_axis] * (self.group if self.op == "ConvTranspose" else 1)

    @property
    def kernel(self) -> tuple[int, ...]:
        """Spatial kernel size; empty for Gemm and MatMul."""
        return self.shape[2:] if self.op in ("Conv", "ConvTranspose") else ()


class Graph:
    """A captured model. The wrapped `onnx_ir.Model` is read, never edited: every candidate is a new one.

    Args:
        model: float32 ONNX, opset 21 or later, constants lifted to initializers, nodes uniquely named.
        input_shapes: the shape to measure at, by input name; needed where an input has free axes.
        shapes: of all tensors at that shape, by name, where they are known already.
    """

    def __init__(
        self,
        model: ir.Model,
        input_shapes: dict[str, tuple[int, ...]],
        shapes: dict[str, tuple[int, ...]] | None = None,
    ) -> None:
        self.model = model
        self.inputs = tuple(_port(value, input_shapes.get(value.name or "")) for value in model.graph.inputs)
        self.shapes = shapes or _infer_shapes(model, {port.name: port.shape for port in self.inputs})
        self.outputs = tuple(_port(v, self.shapes.get(v.name or "")) for v in model.graph.outputs)
        self.layers = _find_layers(model)
        self.frozen = _frozen(model, self.layers)
        self.layer_of_node = {node: layer.name for layer in self.layers.values() for node in layer.nodes}

    @property
    def batch(self) -> int:
        """The model's own batch size, at the shape to measure at."""
        return self.inputs[0].shape[0]

    @cached_property
    def parameters(self) -> int:
        """Number of values in all float initializers."""
        return sum(
            int(np.prod(value.shape.numpy())) if value.shape else 1
            for value in self.model.graph.initializers.values()
            if value.dtype is not None and value.dtype.is_floating_point()
        )

    def weight(self, layer: Layer) -> np.ndarray:
        """Return a layer's float32 weight in its stored layout."""
        return self.constant(layer.weight)

    def bias(self, layer: Layer) -> np.ndarray | None:
        """Return a layer's bias [O] where its (first) node has a constant one."""
        return node_bias(next(node for node in self.model.graph if node.name == layer.nodes[0]), layer)

    def constant(self, name: str) -> np.ndarray:
        """Return an initializer as a NumPy array."""
        tensor = self.model.graph.initializers[name].const_value
        assert tensor is not None
        return tensor.numpy()

    @cached_property
    def digest(self) -> str:
        """A hash of the structure, the weights and the shape to measure at."""
        import onnx_ir as ir

        digest = hashlib.sha256(repr([(p.name, p.shape, p.axes, p.dtype) for p in self.inputs]).encode())
        for name, value in sorted(self.model.graph.initializers.items()):
            assert value.const_value is not None
            digest.update(name.encode() + value.const_value.tobytes())
        for node in self.model.graph:
            digest.update(ir.serde.serialize_node(node).SerializeToString(deterministic=True))
        return digest.hexdigest()[:32]

    def to_bytes(self) -> bytes:
        """Return the captured model as the bytes of an ONNX file."""
        return serialized(self.model)

    def save(self, path: Path) -> None:
        """Write the captured model as an ONNX file."""
        save_model(self.model, path)

    def with_outputs(self, names: Sequence[str]) -> ir.Model:
        """Return a copy of the model whose outputs are the tensors ``names``, weights shared."""
        import onnx_ir as ir
        import onnx_ir.passes.common as passes

        copy = self.model.clone()
        values = {value.name: value for node in copy.graph for value in node.outputs}
        values |= {value.name: value for value in copy.graph.inputs}
        copy.graph.outputs.clear()
        for name in names:
            if values[name].type is None:
                values[name].type = ir.TensorType(ir.DataType.FLOAT)
            copy.graph.outputs.append(values[name])
        passes.RemoveUnusedNodesPass()(copy)
        return copy


def with_weights(graph: Graph, weights: Mapping[str, np.ndarray]) -> Graph:
    """Return a copy of a graph with other values in some of its initializers, by name.

    Raises:
        InputError: the graph has no such initializer, or it has another shape.
    """
    import onnx_ir as ir

    model = graph.model.clone()
    for name, array in weights.items():
        value = model.graph.initializers.get(name)
        known = None if value is None or value.const_value is None else tuple(value.const_value.shape.numpy())
        if value is None or known != array.shape:
            has = "has none" if value is None else f"has {list(known or ())}"
            raise InputError(f"there are weights {list(array.shape)} for {name!r}, but the graph {has}")
        value.const_value = ir.Tensor(np.ascontiguousarray(array), name=name)
    return Graph(model, {port.name: port.shape for port in graph.inputs}, dict(graph.shapes))


def weight_names(graph: Graph) -> frozenset[str]:
    """Return the initializers that are weights: float ones that are no scalars and say not only how something is computed."""
    return frozenset(
        value.name or ""
        for value in graph.model.graph.initializers.values()
        if value.const_value is not None
        and value.dtype is not None
        and value.dtype.is_floating_point()
        and len(value.const_value.shape) > 0
        and not any(usage.idx in NOT_LEARNED.get(usage.node.op_type, ()) for usage in value.uses())
    )


def node_bias(node: ir.Node, layer: Layer) -> np.ndarray | None:
    """Return the constant bias [O] of one node of a layer, or None where it has none, as one number for each output.

    An LSTM or GRU has two for each: `recurrent.shifted`.
    """
    if layer.recurrent:
        return None
    value = node.inputs[2] if len(node.inputs) > 2 else None
    if value is None or value.const_value is None:
        return None
    return np.broadcast_to(value.const_value.numpy().reshape(-1), (layer.channels,))


def first_output(node: ir.Node) -> str:
    """Return the name of a node's first output that has one: outputs that nobody reads may have none."""
    return next((value.name for value in node.outputs if value.name), "")


def model_bytes(model: ir.Model) -> int:
    """Return the bytes of all initializers."""
    return sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)


def serialized(model: ir.Model) -> bytes:
    """Return a model as the bytes of an ONNX file, without notes on the shapes of inner tensors."""
    import onnx_ir as ir

    proto = ir.to_proto(model)
    del proto.graph.value_info[:]
    return proto.SerializeToString(deterministic=True)


def save_model(model: ir.Model, path: Path) -> None:
    """Write a model; above 2 GB the weights go to ``<path>.data`` beside it.

    Raises:
        InputError: the file cannot be written (disk full, folder read-only).
    """
    import onnx_ir as ir

    try:
        if model_bytes(model) > EXTERNAL_ABOVE_BYTES:
            path.with_name(path.name + ".data").unlink(missing_ok=True)
            ir.save(model, path, external_data=path.name + ".data")
        else:
            path.write_bytes(serialized(model))
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; make room there, or choose another folder "
            "(for temporary files by TMPDIR)"
        ) from error


def _port(value: ir.Value, shape: tuple[int, ...] | None) -> Port:
    if value.shape is None and shape is None:
        raise InputError(f"{value.name!r} has no shape; set model.input_shape")
    axes: tuple[int | str, ...] = tuple(shape or ())
    if value.shape is not None:
        axes = tuple(d if isinstance(d, int) else str(d.value or f"axis{i}") for i, d in enumerate(value.shape))
    if shape is None:
        if not all(isinstance(axis, int) for axis in axes):
            raise InputError(
                f"input {value.name!r} has free axes {list(axes)}: set model.input_shape to the shape to measure at "
                f"(for several inputs a table, such as {{ {value.name} = [1, 3, 32, 32] }})"
            )
        shape = tuple(int(axis) for axis in axes)
    dtype = value.dtype.numpy().name if value.dtype is not None else "float32"
    return Port(value.name or "", tuple(shape), axes, dtype)


def inferred_anew(model: ir.Model, input_shapes: Mapping[str, tuple[int, ...]] | None = None) -> ir.Model:
    """Return a copy whose shapes follow from those of its inputs alone: a file may say others, which nobody checks.

    Args:
        model: stays as it is.
        input_shapes: of all inputs, by name; by default they keep theirs, with free axes.
    """
    import onnx_ir as ir
    import onnx_ir.passes.common as passes

    copy = model.clone()
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    if input_shapes is not None:
        for value in copy.graph.inputs:
            value.shape = ir.Shape(input_shapes[value.name or ""])
    return passes.ShapeInferencePass()(copy).model


def _infer_shapes(model: ir.Model, input_shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor at the shape to measure at; what inference cannot tell is run once."""
    copy = inferred_anew(model, input_shapes)
    shapes: dict[str, tuple[int, ...]] = dict(input_shapes)
    for node in copy.graph:
        for value in node.outputs:
            if value.shape is not None and value.shape.is_static():
                shapes[value.name or ""] = tuple(int(d) for d in value.shape.numpy())
    missing = [v.name for node in model.graph for v in node.outputs if v.name and v.name not in shapes]
    if missing:
        shapes |= _run_shapes(model, input_shapes, missing)
    return shapes


def _run_shapes(
    model: ir.Model, input_shapes: dict[str, tuple[int, ...]], names: Sequence[str]
) -> dict[str, tuple[int, ...]]:
    import onnx_ir as ir

    from .session import open_session

    copy = model.clone()
    values = {value.name: value for node in copy.graph for value in node.outputs}
    for name in names:
        if values[name] not in copy.graph.outputs:
            copy.graph.outputs.append(values[name])
    session = open_session(ir.to_proto(copy).SerializeToString())
    feed = {
        value.name: np.zeros(input_shapes[value.name or ""], value.dtype.numpy() if value.dtype else np.float32)
        for value in model.graph.inputs
    }
    outputs = session.run(list(names), feed)
    return {name: tuple(np.shape(output)) for name, output in zip(names, outputs, strict=True)}


def _find_layers(model: ir.Model) -> dict[str, Layer]:
    nodes_of: dict[str, list[ir.Node]] = {}
    for node in model.graph:
        weight = _layer_weight(node)
        if weight is not None:
            nodes_of.setdefault(weight.name or "", []).append(node)
    layers = {}
    for weight_name, nodes in nodes_of.items():
        weight = model.graph.initializers[weight_name]
        uses = {id(reader) for usage in weight.uses() for reader in _readers(usage.node)}
        kinds = {(node.op_type, repr(_geometry(node))) for node in nodes}
        if len(kinds) == 1 and uses == {id(node) for node in nodes}:
            layer = _layer(nodes, weight)
            layers[layer.name] = layer
    order = {node.name: i for i, node in enumerate(model.graph)}
    return dict(sorted(layers.items(), key=lambda item: order[item[0]]))


def _layer_weight(node: ir.Node) -> ir.Value | None:
    """Return the node's trainable weight, or None where the node is no layer."""
    if node.op_type not in LAYER_OPS or node.domain not in ("", "ai.onnx") or len(node.inputs) < 2:
        return None
    weight = recurrent.joined_weight(node) if node.op_type in recurrent.GATES else node.inputs[1]
    if weight is None or not weight.is_initializer() or weight.const_value is None or weight.const_value.size == 0:
        return None
    if node.op_type in recurrent.GATES:
        return weight
    rank = len(weight.const_value.shape)
    if node.op_type in ("Gemm", "MatMul") and rank != 2:
        return None
    if node.op_type == "Gemm" and not has_plain_scales(node):
        return None
    bias = node.inputs[2] if len(node.inputs) > 2 else None
    if bias is not None and bias.const_value is None:
        return None
    return weight


def _readers(node: ir.Node) -> list[ir.Node]:
    """Return the nodes that a node gives weights to: itself, or those behind a Split of joined weights."""
    return (
        [usage.node for value in node.outputs for usage in value.uses()] if recurrent.is_weight_split(node) else [node]
    )


def has_plain_scales(node: ir.Node) -> bool:
    """Whether a Gemm scales nothing and takes its input as it lies."""
    attributes = node.attributes
    return (
        not attributes.get_int("transA", 0)
        and attributes.get_float("alpha", 1.0) == 1.0
        and attributes.get_float("beta", 1.0) == 1.0
    )


def _geometry(node: ir.Node) -> dict[str, object]:
    if node.op_type in recurrent.GATES:
        return {"blocks": recurrent.row_blocks(node)}
    spatial = len(node.inputs[1].shape) - 2 if node.inputs[1] is not None and node.inputs[1].shape else 0  # type: ignore[arg-type]
    if node.op_type in ("Gemm", "MatMul"):
        return {"transposed": bool(node.attributes.get_int("transB", 0)) if node.op_type == "Gemm" else False}
    return {
        "group": node.attributes.get_int("group", 1),
        "strides": tuple(node.attributes.get_ints("strides", [1] * spatial)),
        "pads": tuple(node.attributes.get_ints("pads", [0] * 2 * spatial)),
        "dilations": tuple(node.attributes.get_ints("dilations", [1] * spatial)),
        "output_padding": tuple(node.attributes.get_ints("output_padding", [0] * spatial)),
    }


def _layer(nodes: list[ir.Node], weight: ir.Value) -> Layer:
    first = nodes[0]
    bias = recurrent.given(first, recurrent.B if first.op_type in recurrent.GATES else 2)
    tensor = weight.const_value
    assert tensor is not None
    shape = tuple(int(d) for d in tensor.shape)  # type: ignore[arg-type]
    biases = bias.const_value.size if bias is not None and bias.const_value is not None else 0
    return Layer(
        name=first.name or "",
        op=first.op_type,
        nodes=tuple(node.name or "" for node in nodes),
        weight=weight.name or "",
        shape=shape,
        parameters=tensor.size + biases,
        **_geometry(first),  # type: ignore[arg-type]
    )


def _frozen(model: ir.Model, layers: dict[str, Layer]) -> tuple[tuple[str, str], ...]:
    known = {node for layer in layers.values() for node in layer.nodes}
    reasons = []
    for node in model.graph:
        if node.op_type not in LAYER_OPS or node.op_type == "MatMul" or node.name in known:
            continue
        weight = _layer_weight(node)
        reason = "its weight is not a constant" if weight is None else "its weight is used in another way as well"
        reasons.append((node.name or "", (node.op_type in recurrent.GATES and recurrent.not_joined(node)) or reason))
    return tuple(reasons)
