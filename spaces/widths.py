"""Which widths a channel group may take: those that the runtime's kernels like, near the ratios that a study wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .graph import Layer
from .groups import Group
from .recurrent import GATES

STEP = 16  # output channels in a step of the kernels' cost (AVX512: a vector of 16 floats), where nothing was measured


def offered_ratios(
    group: Group, layers: Mapping[str, Layer], wanted: Sequence[float], step: int = STEP
) -> tuple[float, ...]:
    """Return the pruning ratios to offer for a group: each wanted one moved to the nearest width that is liked, each once.

    A width is liked where all layers that write the group have a multiple of ``step`` outputs left. Where the group's
    channels go in blocks that allow no such width (heads of 15), every width of at least a step is taken; a group that is
    no wider than a step keeps all its channels.

    Args:
        group: the group.
        layers: of the graph, by name.
        wanted: ratios from 0 to below 1.
        step: of the kernels' cost, in output channels.
    """
    pieces = np.arange(1, group.pieces + 1)
    widths = [_width(group, layers[name], pieces) for name in group.writers if not layers[name].depthwise]
    if not widths:
        return (0.0,)
    if group.channels <= step:
        return (0.0,)
    liked = np.all([width % step == 0 for width in widths], axis=0)
    if not liked[:-1].any() and group.channels > group.pieces:
        liked = np.all([width >= step for width in widths], axis=0)
    liked[-1] = True  # all of them stay: whatever the width, it is the reference's
    counts = pieces[liked]
    kept = {int(counts[::-1][np.abs(counts[::-1] - group.kept(ratio)).argmin()]) for ratio in wanted}
    return tuple(sorted(group.ratio(count) for count in kept))


def _width(group: Group, layer: Layer, pieces: np.ndarray) -> np.ndarray:
    """Return a layer's output channels where this many pieces stay and all other groups are whole."""
    entries = group.slots[(layer.weight, layer.channel_axis)].shape[1]
    if layer.recurrent:  # hidden units: every gate is a product of that width
        return np.asarray(layer.shape[1] // GATES[layer.op] - (group.pieces - pieces) * entries // GATES[layer.op])
    if layer.op == "ConvTranspose":
        entries *= layer.group
    return np.asarray(layer.channels - (group.pieces - pieces) * entries)
