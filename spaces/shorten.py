"""Shorter networks: the reference without some of its residual blocks, the weights of the rest as they were.

What a block adds to its input is often little (Veit, Wilber and Belongie: Residual Networks Behave Like Ensembles of Relatively
Shallow Networks, NeurIPS 2016).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .graph import Graph

if TYPE_CHECKING:
    import onnx_ir as ir

WITHOUT = "without"  # the parameter of such a student: names of the blocks that it lacks


@dataclass(frozen=True)
class Block:
    """A residual block: what a sum adds to a tensor that it is computed from alone.

    Attributes:
        name: of the sum's node.
        past: which of the sum's two inputs goes past the block.
        nodes: names of those inside, in the order in which they run.
    """

    name: str
    past: int
    nodes: tuple[str, ...]


def residual_blocks(graph: Graph) -> list[Block]:
    """Return the residual blocks of a graph with layers in them, in the order in which they run.

    Of blocks within each other the innermost: one around others is most of a network.
    """
    written = {value.name or "": node for node in graph.model.graph for value in node.outputs}
    order = {node.name: number for number, node in enumerate(graph.model.graph)}
    found = []
    for node in graph.model.graph:
        if node.op_type != "Add" or node.outputs[0].is_graph_output():
            continue
        for past in (0, 1):
            inside = _between(graph, written, node.inputs[past], node.inputs[1 - past], node)
            if any(each.name in graph.layer_of_node for each in inside):
                names = sorted((each.name or "" for each in inside), key=order.__getitem__)
                found.append(Block(node.name or "", past, tuple(names)))
    sums = {block.name for block in found}
    return [block for block in found if not sums.intersection(block.nodes)]


def _between(
    graph: Graph, written: Mapping[str, ir.Node], skip: ir.Value | None, branch: ir.Value | None, total: ir.Node
) -> list[ir.Node]:
    """Return the nodes that make a branch of a tensor; none where it also reads another, or something else reads it."""
    if skip is None or branch is None or skip.is_initializer() or branch.is_initializer():
        return []
    if graph.shapes[skip.name or ""] != graph.shapes[branch.name or ""]:
        return []
    inside: dict[str, ir.Node] = {}
    left = [branch]
    reached = False
    while left:
        value = left.pop()
        if value.name == skip.name:
            reached = True
            continue
        node = written.get(value.name or "")
        if node is None:
            if value.is_initializer():
                continue
            return []  # an input of the model
        if node.name in inside:
            continue
        inside[node.name or ""] = node
        left += [each for each in node.inputs if each is not None]
    for node in inside.values():
        for value in node.outputs:
            readers = [reader.name for reader, _ in value.uses()]
            if value.is_graph_output() or any(name not in inside and name != total.name for name in readers):
                return []
    return list(inside.values()) if reached else []


def shortened(graph: Graph, blocks: Collection[Block]) -> Graph:
    """Return a graph without some of its residual blocks: who read their sums reads what went past them."""
    import onnx_ir.passes.common as passes

    model = graph.model.clone()
    past = {block.name: block.past for block in blocks}
    for node in model.graph:
        skip = node.inputs[past[node.name]] if node.name in past else None
        if skip is not None:
            node.outputs[0].replace_all_uses_with(skip)
    passes.RemoveUnusedNodesPass()(model)
    return Graph(model, {port.name: port.shape for port in graph.inputs})
