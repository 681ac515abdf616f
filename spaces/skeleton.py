"""The skeleton of a candidate's model: the graph that its build lowers to, with weights that mean nothing.

Which kernels run, on which shapes, depends on where integers are, on how many channels stay and on which layers get a bias
from their repair; not on weight bits, sparsity or the way of the repair, since packed weights are unpacked while a file is
opened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np

from .candidate import Candidate, LayerChoice
from .forms import formed, formed_entries, forms_of
from .graph import Graph
from .groups import channel_groups
from .lowering import Lowering, lowering_of
from .narrow import kept_inputs, kept_outputs, old_outputs, with_inputs
from .prune import removed_entries
from .repaired import FloatLayer, RoundedLayer
from .rules import ONNX_RUNTIME, Rules
from .weights import per_channel

SCALE = 0.01
STORED_BITS = 8
PACKED_BITS = 7


def structure(candidate: Candidate) -> Candidate:
    """Return the candidate that all with the same kernels have in common.

    Rounded layers take 8 bits; layers with sparsity, in float kernels, the same: both get a bias from their repair. Forms stay.
    Where weights are packed, the first of those layers is: a file with functions of its own has all functions inlined, those
    of ONNX's own operators too, before anything else is optimised.
    """
    changed = [name for name, choice in candidate.layers.items() if choice.rounded or choice.sparsity]
    packed = any(choice.weight_bits < STORED_BITS or choice.sparsity for choice in candidate.layers.values())
    layers = {
        name: LayerChoice(
            PACKED_BITS if packed and name == changed[0] else STORED_BITS, choice.activation_bits, form=choice.form
        )
        if name in changed
        else LayerChoice(form=choice.form)
        for name, choice in candidate.layers.items()
    }
    return replace(candidate, layers=layers, repair="static", weights="")


def skeleton_lowering(
    graph: Graph,
    candidate: Candidate,
    tensor_range: Callable[[str], tuple[float, float]],
    rules: Rules = ONNX_RUNTIME,
) -> Lowering:
    """Return the lowering of a candidate's structure, not yet run.

    Args:
        graph: the captured reference.
        candidate: with the ratios that its groups really come to.
        tensor_range: (low, high) of a tensor by name: where a clip is needed depends on it.
        rules: of the runtime.

    Raises:
        BuildError: an integer layer that has no integer kernel.
    """
    candidate = structure(candidate)
    channels = channel_groups(graph)
    kept = {name: np.arange(channels.group(name).kept(ratio)) for name, ratio in candidate.groups.items()}
    forms = forms_of(candidate)
    removed = formed_entries(graph, removed_entries(channels, kept), forms)
    graph = formed(graph, forms)

    @cache
    def repair(name: str) -> RoundedLayer | FloatLayer:
        """Weights that mean nothing: the kernels take the same time for any."""
        layer = graph.layers[name]
        inputs = kept_inputs(layer, removed)
        narrow = layer if inputs is None else with_inputs(layer, inputs)
        narrow, _ = old_outputs(narrow, kept_outputs(layer, removed))
        each = 1 + np.arange(narrow.channels, dtype=np.float32) / narrow.channels  # one number for all would tell less
        shift = each * float(layer.op != "MatMul")
        if not candidate.choice(name).rounded:
            return FloatLayer(np.full(narrow.shape, SCALE, np.float32), shift)
        scale = SCALE * each
        codes = np.broadcast_to(per_channel(narrow, 1 + np.arange(narrow.channels) % 7), narrow.shape).astype(np.int8)
        return RoundedLayer(codes, scale, np.zeros(narrow.channels, np.int16), shift)

    return lowering_of(graph, candidate, removed, repair, tensor_range, rules)
