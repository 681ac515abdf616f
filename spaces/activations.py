"""Which tensors lie on 8-bit grids where all layers run in integers, and which layers are why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .candidate import NATIVE, Candidate, LayerChoice
from .changes import Differences
from .skeleton import skeleton_lowering

if TYPE_CHECKING:
    import onnx_ir as ir

    from .build import Builder
    from .lowering import Lowering


@dataclass(frozen=True)
class RoundedTensor:
    """A tensor on a grid, as a change of the model (`changes.Change`).

    Attributes:
        name: of the tensor.
        scale, zero: of its grid.
        layers: whose running in integers asks for it.
    """

    name: str
    scale: float
    zero: int
    layers: tuple[str, ...]
    kind: str = "activations"
    form: str = NATIVE

    @property
    def value(self) -> float:
        """What tells one grid from another."""
        return self.scale

    def differences(self, builder: Builder) -> Differences:
        """Return what it adds: nothing to any weight."""
        return Differences({}, {}, (self.name,))

    @property
    def grid(self) -> tuple[float, int]:
        """Scale and zero point."""
        return self.scale, self.zero


def rounded_tensors(builder: Builder) -> list[RoundedTensor]:
    """Return the tensors that are rounded where all layers that can run in integers do."""
    graph, rules = builder.equalised, builder.rules
    able = [name for name, layer in graph.layers.items() if rules.has_integer_kernel(graph, layer)]
    candidate = Candidate(dict.fromkeys(able, LayerChoice(8, 8)))
    lowering = skeleton_lowering(graph, candidate, builder.statistics.range, rules)
    lowering.run()
    walk = _Walk(lowering)
    found = []
    for name, (scale, zero) in lowering.grids.items():
        layers = walk.readers(name) or walk.writers(name)
        if layers:
            found.append(RoundedTensor(name, scale, zero, tuple(dict.fromkeys(layers))))
    return found


class _Walk:
    """Ways from a tensor to the layers in integers that are nearest."""

    def __init__(self, lowering: Lowering) -> None:
        self._lowering = lowering
        self._writers: dict[str, ir.Node] = {
            value.name or "": node for node in lowering.graph.model.graph for value in node.outputs
        }

    def readers(self, tensor: str) -> list[str]:
        """Return the layers that read it, moved or reckoned with in integers or not."""
        found = []
        for node in self._lowering.consumers.get(tensor, ()):
            if node.name in self._lowering.integer:
                layer = self._layer(node)
                outputs = (value.name or "" for value in node.outputs)
                found += [layer] if layer else [name for output in outputs for name in self.readers(output)]
        return found

    def writers(self, tensor: str) -> list[str]:
        """Return the layers that it comes from in the same way."""
        node = self._writers.get(tensor)
        if node is None or node.name not in self._lowering.integer:
            return []
        layer = self._layer(node)
        inputs = (value.name or "" for value in node.inputs if value is not None)
        return [layer] if layer else [name for read in inputs for name in self.writers(read)]

    def _layer(self, node: ir.Node) -> str | None:
        return self._lowering.graph.layer_of_node.get(node.name or "")
