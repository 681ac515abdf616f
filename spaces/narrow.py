"""A layer with fewer channels: which entries of its weight, of its matrix and of its outputs stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .graph import Layer
from .matrix import matrix_inputs
from .ties import Slot

Removed = Mapping[Slot, np.ndarray]


def kept_inputs(layer: Layer, removed: Removed) -> np.ndarray | None:
    """Return the input channels (within a group) that stay, or None where all do; a depthwise layer keeps its only one."""
    gone = removed.get((layer.weight, layer.input_axis))
    if gone is None or not len(gone) or layer.depthwise:
        return None
    per_group = inputs_of_group(layer)
    return np.setdiff1d(np.arange(per_group), gone)  # the same positions in every group


def kept_outputs(layer: Layer, removed: Removed) -> np.ndarray | None:
    """Return the output channels that stay, or None where all do."""
    if layer.op == "ConvTranspose" and layer.group > 1:
        axis = 0 if layer.depthwise else 1
        gone = removed.get((layer.weight, axis))
        of_group = layer.shape[1]
        if gone is not None and layer.depthwise:
            gone = (gone[:, None] * of_group + np.arange(of_group)).reshape(-1)
        elif gone is not None:
            gone = (np.arange(layer.group)[:, None] * of_group + gone).reshape(-1)
    else:
        gone = removed.get((layer.weight, layer.channel_axis))
        if layer.recurrent and gone is not None:  # the same rows of each direction
            gone = (np.arange(layer.shape[0])[:, None] * layer.shape[1] + gone).reshape(-1)
    return None if gone is None or not len(gone) else np.setdiff1d(np.arange(layer.channels), gone)


def inputs_of_group(layer: Layer) -> int:
    """Return the input channels of one group."""
    return layer.shape[0] // layer.group if layer.op == "ConvTranspose" else layer.shape[layer.input_axis]


def with_inputs(layer: Layer, kept: np.ndarray) -> Layer:
    """Return the layer as it is with these input channels of each group only, all its outputs there."""
    shape = list(layer.shape)
    shape[layer.input_axis] = len(kept) * (layer.group if layer.op == "ConvTranspose" else 1)
    return replace(layer, shape=tuple(shape))


def whole_axis(layer: Layer, kept: np.ndarray) -> np.ndarray:
    """Return these input channels of each group as entries of the weight's input axis."""
    if layer.op != "ConvTranspose":
        return kept
    return np.asarray((np.arange(layer.group)[:, None] * inputs_of_group(layer) + kept).reshape(-1))


def matrix_columns(layer: Layer, kept: np.ndarray) -> np.ndarray:
    """Return the inputs of the layer's matrix (D) that belong to these input channels."""
    taps = matrix_inputs(layer) // inputs_of_group(layer)
    return np.asarray((kept[:, None] * taps + np.arange(taps)).reshape(-1))


def take_outputs(layer: Layer, weight: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return a stored weight (or codes of that layout) with these output channels only."""
    if layer.recurrent:
        return weight.reshape(layer.channels, -1)[kept].reshape(layer.shape[0], -1, weight.shape[-1])
    if layer.op != "ConvTranspose" or layer.group == 1:
        return np.take(weight, kept, layer.channel_axis)
    split = weight.reshape(layer.group, -1, *weight.shape[1:])  # [G, I/G, O/G, k...]
    groups = np.unique(kept // layer.shape[1])
    positions = np.unique(kept % layer.shape[1])
    chosen = split[groups][:, :, positions]
    return np.ascontiguousarray(chosen.reshape(-1, *chosen.shape[2:]))


def old_outputs(layer: Layer, kept: np.ndarray | None) -> tuple[Layer, np.ndarray | slice]:
    """Return the layer with these output channels and all inputs of each, and which of its groups that leaves."""
    if kept is None:
        return layer, slice(None)
    shape = list(layer.shape)
    if layer.depthwise:  # a group goes with its outputs
        groups = np.unique(kept // (layer.channels // layer.group))
        shape[0] = len(groups) if layer.op == "ConvTranspose" else len(kept)
        return replace(layer, shape=tuple(shape), group=len(groups)), groups
    shape[layer.channel_axis] = len(kept) // (layer.group if layer.op == "ConvTranspose" else layer.directions)
    return replace(layer, shape=tuple(shape)), slice(None)
