"""Tensors that lie on one grid: what nodes that only move integers, or join several tensors of them, read and write."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from .lowering import Lowering, quantisation

if TYPE_CHECKING:
    import onnx_ir as ir

JOINED = 4.0  # times: a range so much larger costs the other tensors two of their eight bits


class JointGridLowering(Lowering):
    """One candidate being written for a runtime whose integer kernels join tensors of one grid alone.

    Attributes:
        coarsest: how many times larger a range may be than another that is joined with it; where more, floats are joined.
    """

    coarsest = JOINED

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.integer -= {node.name or "" for node in self.graph.model.graph if self._is_coarse(node)}

    def carried(self, node: ir.Node) -> list[str]:
        """Return the names of the tensors whose integers a node moves; none of a node that computes."""
        raise NotImplementedError

    def quantise(self, tensor: str, value: ir.Value) -> None:
        """Write the Q node of a tensor, on the grid of all that are joined with it."""
        root = self.grid_name(tensor)
        grid = self._trained_grids.get(root) or self.grids.get(root) or self.own_grid(root)
        self.grids[tensor] = grid
        self._quantised[tensor] = self._on_grid(value, *grid)

    def grid_name(self, tensor: str) -> str:
        """Return the first of the tensors that a tensor shares its grid with."""
        return self._roots.get(tensor, tensor)

    def own_grid(self, root: str) -> tuple[float, int]:
        """Return the grid that spans all tensors which lie on it, given the first of them."""
        lows, highs = zip(*map(self.tensor_range, self.joined(root)), strict=True)
        return quantisation(min(lows), max(highs))

    def joined(self, root: str) -> list[str]:
        """Return the tensors that share a grid, given the first of them."""
        return [name for name, first in self._roots.items() if first == root] or [root]

    def _is_coarse(self, node: ir.Node) -> bool:
        """Whether a node would join tensors of which one is so much larger that a common grid leaves the others few steps."""
        if node.name not in self.integer or node.op_type != "Concat":
            return False
        widths = [high - low for low, high in map(self.tensor_range, self.carried(node))]
        return max(widths) > self.coarsest * min(widths)

    @cached_property
    def _roots(self) -> dict[str, str]:
        """By tensor, the first of those that nodes which only carry integers join: they lie on one grid."""
        roots: dict[str, str] = {}
        for node in self.graph.model.graph:
            carried = self.carried(node) if node.name in self.integer - self.graph.layer_of_node.keys() else []
            if carried:
                names = [*carried, *(value.name or "" for value in node.outputs)]
                before = [roots.get(name, name) for name in names]
                roots |= dict.fromkeys(names, before[0])
                roots |= {name: before[0] for name, root in roots.items() if root in before}
        return roots
