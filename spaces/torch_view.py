"""A captured graph as a `torch.nn.Module`: the same values as ONNX Runtime's, and gradients for its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from . import torch_images, torch_ops, torch_resize, torch_shapes
from .errors import BuildError

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

OPS = {**torch_ops.OPS, **torch_shapes.OPS, **torch_images.OPS, **torch_resize.OPS}
NOT_LEARNED = {"Resize": (1, 2), "BatchNormalization": (3, 4), "Clip": (1, 2), "Pad": (2,)}  # inputs, by op


class TorchView(nn.Module):
    """A graph in PyTorch.

    Attributes:
        weights: the parameters by the name of their initializer: float ones that are no scalars, those apart that only
            say how something is computed (scales of a Resize, statistics of a BatchNormalization, bounds of a Clip).

    Args:
        graph: whose nodes it computes; it is read, never edited.

    Raises:
        BuildError: an op of the graph has no form in PyTorch here; it is named.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        lacking = unsupported(graph)
        if lacking:
            raise BuildError(f"no form in PyTorch for {', '.join(lacking)}")
        self.weights: dict[str, nn.Parameter] = {}
        learned = _learned(graph)
        for number, name in enumerate(graph.model.graph.initializers):
            tensor = torch.from_numpy(graph.constant(name).copy())
            if name in learned:
                self.weights[name] = nn.Parameter(tensor)
                self.register_parameter(f"weight_{number}", self.weights[name])
            else:
                self.register_buffer(f"constant_{number}", tensor, persistent=False)
        self._numbers = {name: number for number, name in enumerate(graph.model.graph.initializers)}

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return the first output.

        Args:
            inputs: a tensor for each of the graph's inputs, by name.
        """
        return self.values(inputs)[self.graph.outputs[0].name]

    def values(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all tensors of the graph, by name."""
        values = dict(inputs)
        for name, number in self._numbers.items():
            learned = name in self.weights
            values[name] = self.weights[name] if learned else getattr(self, f"constant_{number}")
        for node in self.graph.model.graph:
            given = [None if value is None else values[value.name or ""] for value in node.inputs]
            found = OPS[node.op_type](node, *given)
            outputs = [found] if isinstance(found, Tensor) else found
            values |= {value.name or "": each for value, each in zip(node.outputs, outputs, strict=False)}
        return values


def unsupported(graph: Graph) -> list[str]:
    """Return the ops of a graph that have no form in PyTorch here, each once."""
    return sorted({node.op_type for node in graph.model.graph if not _has_form(node)})


def _has_form(node: ir.Node) -> bool:
    return node.op_type in OPS and node.domain in ("", "ai.onnx")


def _learned(graph: Graph) -> set[str]:
    """Return the names of the initializers that are weights."""
    return {
        value.name or ""
        for value in graph.model.graph.initializers.values()
        if value.const_value is not None
        and value.dtype is not None
        and value.dtype.is_floating_point()
        and len(value.const_value.shape) > 0
        and not any(usage.idx in NOT_LEARNED.get(usage.node.op_type, ()) for usage in value.uses())
    }
