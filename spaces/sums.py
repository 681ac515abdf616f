"""One step for the tensors of a residual sum: adding integers on the same grid is exact, so the sum is not rounded again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

Range = tuple[float, float]


def common_steps(sums: Sequence[ir.Node], tensor_range: Callable[[str], Range]) -> dict[str, Range]:
    """Return wider ranges for the tensors that gain from the same step as the sums they belong to.

    Each sum joins its inputs and its output into one group where that lowers the total rounding error: every tensor
    that is no sum is rounded with the group's (largest) step, the sums not at all, instead of each with its own step.

    Args:
        sums: Add nodes that run in integers, in topological order.
        tensor_range: (low, high) that a tensor would be quantised over on its own.
    """
    parent: dict[str, str] = {}

    def find(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    exact: set[str] = set()  # sums that were joined with what they add
    members: dict[str, list[str]] = {}
    steps: dict[str, float] = {}

    def step(name: str) -> float:
        if name not in steps:
            low, high = tensor_range(name)
            steps[name] = (max(high, 0.0) - min(low, 0.0)) / 255
        return steps[name]

    for node in sums:
        names = [value.name or "" for value in (*node.inputs, *node.outputs) if value is not None]
        roots = list(dict.fromkeys(find(name) for name in names))
        groups = [members.get(root, [root]) for root in roots]
        apart = sum(_error(group, step, exact) for group in groups)
        together = [name for group in groups for name in group]
        with_this = exact | {node.outputs[0].name or ""}
        if _error(together, step, with_this) <= apart:
            exact = with_this
            for root in roots[1:]:
                parent[root] = roots[0]
            members[roots[0]] = together
    ranges = {}
    for root, group in members.items():
        if find(root) != root:
            continue
        widest = max(step(name) for name in group)
        for name in group:
            low = min(tensor_range(name)[0], 0.0)
            ranges[name] = (low, low + 255 * widest)
    return ranges


def _error(group: list[str], step: Callable[[str], float], exact: set[str]) -> float:
    """Return the sum of squared steps with which the tensors of a group are rounded: all with the largest step."""
    widest = max(step(name) for name in group)
    return widest**2 * sum(1 for name in group if name not in exact)
