"""Whether a runtime takes a model at all, before anything is searched: its file is made and run once.

Where files are no ONNX graphs, a converter stands between: an op that it, or the runtime behind it, does not know would fail
each candidate alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..spaces.cache import Store, content_hash
from ..spaces.candidate import Candidate, LayerChoice
from ..spaces.errors import BuildError
from ..spaces.graph import Graph, serialized
from ..spaces.kernels import QUANTISING
from ..spaces.skeleton import skeleton_lowering

if TYPE_CHECKING:
    from .target import Target

VERSION = 1


def refusal(graph: Graph, target: Target, feed: Mapping[str, np.ndarray], integer: bool) -> str | None:
    """Return what a runtime says against a model, and of which node of the graph it says so; None where it runs it.

    What runs once is not asked again: that is kept in the user's cache.

    Args:
        graph: captured.
        target: where models run.
        feed: one batch of the model's inputs, by name.
        integer: whether to ask for all layers in integers that can be, or for all in float.
    """
    if target.rules.format.pack is None:
        return None
    shapes = {name: list(array.shape) for name, array in sorted(feed.items())}
    store = Store(
        content_hash("runs", VERSION, target.rules.runtime, target.fingerprint, graph.digest, shapes, integer)
    )
    if store.arrays("runs") is not None:
        return None
    rules, plain = target.rules, LayerChoice(8, 8)
    able = [name for name, layer in graph.layers.items() if integer and rules.has_integer_kernel(graph, layer)]
    lowering = skeleton_lowering(graph, Candidate(dict.fromkeys(able, plain)), lambda _: (-1.0, 1.0), rules)
    model = lowering.run()
    owners = [lowering.emitter.owners.get(id(node), "") for node in model.graph]
    told = _told(serialized(model), target, feed)
    if told is None:
        store.put_arrays("runs", {"runs": np.array(True)})
        return None
    at, told = _first_refused(serialized(model), target, feed, told)
    return f"{told} (at the node {owners[at]!r})" if owners[at] else told


def _told(model: bytes, target: Target, feed: Mapping[str, np.ndarray]) -> str | None:
    """Return why a lowered graph has no file, or its file does not run; None where it runs."""
    try:
        data = target.rules.format.packed(model, {name: array.shape for name, array in feed.items()})
        target.open(data).run(None, dict(feed))
    except BuildError as error:
        return str(error)
    return None


def _first_refused(model: bytes, target: Target, feed: Mapping[str, np.ndarray], told: str) -> tuple[int, str]:
    """Return the number of the first node up to which a graph is refused, and what is said of it; by halving."""
    import onnx

    nodes = onnx.load_model_from_string(model).graph.node
    computing = [number for number, node in enumerate(nodes) if node.op_type not in QUANTISING]
    good, bad = -1, len(computing) - 1
    while bad - good > 1:
        middle = (good + bad) // 2
        found = _told(_up_to(model, computing[middle]), target, feed)
        good, bad, told = (middle, bad, told) if found is None else (good, middle, found)
    return computing[bad], told


def _up_to(model: bytes, last: int) -> bytes:
    """Return a graph up to a node: it gives what its nodes compute, in float, and do not read again."""
    import onnx

    part = onnx.load_model_from_string(model)
    nodes = list(part.graph.node)[: last + 1]
    computing = [node for node in nodes if node.op_type not in QUANTISING]
    read = {name for node in computing for name in node.input}
    del part.graph.node[last + 1 :], part.graph.output[:]
    part.graph.output.extend(
        onnx.ValueInfoProto(name=name) for node in computing for name in node.output if name and name not in read
    )
    return bytes(part.SerializeToString())
