"""A captured graph as a `torch.nn.Module`: the same values as ONNX Runtime's, and gradients for its weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import torch_images, torch_ops, torch_recurrent, torch_resize, torch_shapes
from .errors import BuildError
from .graph import weight_names, with_weights

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

Edit = Callable[[str, Tensor], Tensor]
Read = Callable[[str, str, Tensor], Tensor]
OPS = {**torch_ops.OPS, **torch_shapes.OPS, **torch_images.OPS, **torch_resize.OPS, **torch_recurrent.OPS}
STEPS = ("ArgMax", "ArgMin", "Ceil", "Floor", "Round", "Sign")  # their slope is 0 wherever they have one
SIZES = ("Shape", "Size")  # what is computed from these hangs on no value


class TorchView(nn.Module):
    """A graph in PyTorch.

    Attributes:
        weights: the parameters by the name of their initializer (`graph.weight_names`).

    Args:
        graph: whose nodes it computes; it is read, never edited.

    Raises:
        BuildError: an op of the graph, or the type of a constant, has no form in PyTorch here; it is named.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        lacking = unsupported(graph)
        if lacking:
            raise BuildError(f"no form in PyTorch for {', '.join(lacking)}")
        self.weights: dict[str, nn.Parameter] = {}
        self._constants: dict[str, str] = {}  # attributes by initializer, whose names may have dots
        learned = weight_names(graph)
        for number, name in enumerate(graph.model.graph.initializers):
            tensor = _tensor(graph, name)
            if name in learned:
                self.weights[name] = nn.Parameter(tensor)
                self.register_parameter(f"weight_{number}", self.weights[name])
            else:
                self._constants[name] = f"constant_{number}"
                self.register_buffer(self._constants[name], tensor, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the first output.

        Args:
            inputs: a tensor for each of the graph's inputs, by name.

        Raises:
            BuildError: an op fails; its node is named.
        """
        return self.values(inputs)[self.graph.outputs[0].name]

    def written_back(self) -> Graph:
        """Return the graph with the weights as they are now."""
        with torch.no_grad():
            arrays = {name: weight.cpu().numpy().copy() for name, weight in self.weights.items()}
        return with_weights(self.graph, arrays)

    def values(
        self, inputs: Mapping[str, Tensor], edited: Edit | None = None, read: Read = lambda node, name, tensor: tensor
    ) -> dict[str, Tensor]:
        """Return all tensors of the graph, by name; raises as `forward`.

        Args:
            inputs: as for `forward`.
            edited: given a tensor's name and the tensor, weights and inputs too, returns what is taken in its place.
            read: given a node's name, a tensor's and the tensor, returns what this node reads in its place.
        """
        known = {**inputs, **self.weights}
        values = known if edited is None else {name: edited(name, tensor) for name, tensor in known.items()}
        values |= {name: getattr(self, own) for name, own in self._constants.items()}
        for node in self.graph.model.graph:
            names = [None if value is None else value.name or "" for value in node.inputs]
            given = [None if name is None else read(node.name or "", name, values[name]) for name in names]
            for value, found in zip(node.outputs, _outputs(node, given), strict=False):
                name = value.name or ""
                values[name] = found if edited is None else edited(name, found)
        return values


def unsupported(graph: Graph) -> list[str]:
    """Return the ops of a graph that have no form in PyTorch here, each once."""
    return sorted({node.op_type for node in graph.model.graph if not _has_form(node)})


def steps(graph: Graph) -> list[str]:
    """Return the ops behind layers through which no gradient comes, each once: rounding, choosing, whole numbers."""
    reached = {layer_node for layer in graph.layers.values() for layer_node in layer.nodes}
    known: set[str] = set()
    found = set()
    for node in graph.model.graph:  # in the order in which they run
        behind = any(value is not None and value.name in known for value in node.inputs)
        if (node.name in reached or behind) and node.op_type not in SIZES:
            known |= {value.name or "" for value in node.outputs}
            if behind and _is_step(node):
                found.add(node.op_type)
    return sorted(found)


def _is_step(node: ir.Node) -> bool:
    import onnx_ir as ir

    if node.op_type != "Cast":
        return node.op_type in STEPS
    return not ir.DataType(node.attributes["to"].as_int()).is_floating_point()


def _has_form(node: ir.Node) -> bool:
    return node.op_type in OPS and node.domain in ("", "ai.onnx")


def _tensor(graph: Graph, name: str) -> Tensor:
    try:
        return torch.from_numpy(graph.constant(name).copy())
    except TypeError as error:
        raise BuildError(f"no form in PyTorch for constant {name!r}: {error}") from error


def _outputs(node: ir.Node, given: Sequence[Tensor | None]) -> Iterator[Tensor]:
    """Compute a node's outputs, at least those that others read."""
    try:
        found = OPS[node.op_type](node, *given)
    except Exception as error:
        raise BuildError(f"{node.op_type} {node.name!r} fails in PyTorch: {error}") from error
    outputs = [found] if isinstance(found, Tensor) else list(found)
    for value in node.outputs[len(outputs) :]:
        if value.uses() or value.is_graph_output():
            raise BuildError(f"no form in PyTorch for output {value.name!r} of {node.op_type} {node.name!r}")
    return iter(outputs)
