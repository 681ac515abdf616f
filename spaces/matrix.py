"""A layer as a matrix product: weight rows [G, R, D] times input columns [G, M, D], for every layer op.

G counts the groups of a grouped convolution, or the row blocks of an LSTM or GRU (1 elsewhere), R the rows (outputs of a
group), D the inputs of one output, M the sampled positions. A ConvTranspose with stride s is the convolution it equals: s**n
phases of each output channel, each with a kernel of ceil(k / s) (zero where the kernel has no tap); rows are then
(phase, channel).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from .graph import Layer


def has_matrix(layer: Layer) -> bool:
    """Whether the layer can be written as a matrix product here (a dilated ConvTranspose cannot)."""
    return layer.op != "ConvTranspose" or all(d == 1 for d in layer.dilations)


def matrix_inputs(layer: Layer) -> int:
    """Return D, the inputs of one output of a layer that has a matrix."""
    if layer.op in ("MatMul", "Gemm") or layer.recurrent:
        return math.prod(layer.shape) // layer.channels
    if layer.op == "Conv":
        return math.prod(layer.shape[1:])
    taps = math.prod(math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True))
    return layer.shape[0] // layer.group * taps


def to_matrix(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Return the weight as rows, [G, R, D]."""
    if layer.op in ("MatMul", "Gemm"):
        return (weight if layer.transposed else weight.T)[None]
    if layer.recurrent:
        return weight.reshape(layer.blocks, -1, weight.shape[-1])
    if layer.op == "Conv":
        return weight.reshape(layer.group, weight.shape[0] // layer.group, -1)
    lowered = transposed_to_conv(layer, weight)
    return lowered.reshape(layer.group, lowered.shape[0] // layer.group, -1)


def from_matrix(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """Return rows [G, R, D] in the layer's stored layout; the inverse of `to_matrix`."""
    if layer.op in ("MatMul", "Gemm"):
        return rows[0] if layer.transposed else rows[0].T
    if layer.op == "Conv" or layer.recurrent:
        return rows.reshape(layer.shape)
    return conv_to_transposed(layer, rows)


def row_channels(layer: Layer) -> np.ndarray:
    """Return the output channel of each row, [G, R]."""
    if layer.op != "ConvTranspose":
        return np.arange(layer.channels).reshape(layer.group if layer.op == "Conv" else layer.blocks, -1)
    per_group = layer.shape[1]
    phases = math.prod(layer.strides)
    return np.tile(np.arange(layer.group)[:, None] * per_group, (1, phases * per_group)) + np.tile(
        np.arange(per_group), phases
    )


def has_own_biases(layer: Layer) -> bool:
    """Whether a bias can be added to each row on its own: not for a MatMul, nor where phases share a channel's bias."""
    return layer.op != "MatMul" and (layer.op != "ConvTranspose" or math.prod(layer.strides) == 1)


def mask(layer: Layer) -> np.ndarray | None:
    """Return where the rows of a ConvTranspose have a tap, bool [G, R, D]; None where all have."""
    if layer.op != "ConvTranspose" or all(k % s == 0 for k, s in zip(layer.kernel, layer.strides, strict=True)):
        return None
    return to_matrix(layer, np.ones(layer.shape, np.float32)) > 0


def transposed_to_conv(layer: Layer, weight: np.ndarray) -> np.ndarray:
    """Return the convolution that a ConvTranspose equals, [G * phases * O/G, I/G, ceil(k/s)...] (stride 1, flipped taps).

    Output position s * j + r of the transposed convolution (before cropping its pads) is the convolution's
    channel (r, o) at position j.
    """
    kernel, strides, spatial = layer.kernel, layer.strides, len(layer.kernel)
    taps = [math.ceil(k / s) for k, s in zip(kernel, strides, strict=True)]
    padded = np.pad(weight, [(0, 0), (0, 0)] + [(0, t * s - k) for t, s, k in zip(taps, strides, kernel, strict=True)])
    channels_in, per_group = weight.shape[0] // layer.group, weight.shape[1]
    split = padded.reshape(
        layer.group, channels_in, per_group, *itertools.chain(*zip(taps, strides, strict=True))
    )  # [G, I/G, O/G, t, s, t, s]
    flipped = np.flip(split, axis=tuple(3 + 2 * i for i in range(spatial)))
    phase_axes = [4 + 2 * i for i in range(spatial)]
    tap_axes = [3 + 2 * i for i in range(spatial)]
    return flipped.transpose(0, *phase_axes, 2, 1, *tap_axes).reshape(-1, channels_in, *taps)


def conv_to_transposed(layer: Layer, rows: np.ndarray) -> np.ndarray:
    """Return rows of the equal convolution in ConvTranspose layout [I, O/G, k...]; dropped taps are structural zeros."""
    kernel, strides, spatial = layer.kernel, layer.strides, len(layer.kernel)
    taps = [math.ceil(k / s) for k, s in zip(kernel, strides, strict=True)]
    channels_in, per_group = layer.shape[0] // layer.group, layer.shape[1]
    split = rows.reshape(layer.group, *strides, per_group, channels_in, *taps)
    order = [0, 2 + spatial, 1 + spatial]
    for i in range(spatial):
        order += [3 + spatial + i, 1 + i]
    flipped = np.flip(split.transpose(order), axis=tuple(3 + 2 * i for i in range(spatial)))
    padded = flipped.reshape(layer.shape[0], per_group, *(t * s for t, s in zip(taps, strides, strict=True)))
    return padded[(slice(None), slice(None), *(slice(k) for k in kernel))]


def columns(layer: Layer, x: np.ndarray, limit: int, random: np.random.Generator) -> np.ndarray:
    """Return at most ``limit`` randomly chosen columns of the unfolded input, float32 [G, M, D].

    Args:
        x: the layer's input, [N, C, ...] for convolutions, [..., K] for Gemm and MatMul; of an LSTM or GRU the columns
            themselves [G, ..., D] (`recurrent.with_inputs`).
    """
    if layer.recurrent:
        return x[:, _choose(x.shape[1], limit, random)]
    if layer.op in ("MatMul", "Gemm"):
        flat = x.reshape(-1, x.shape[-1])
        return flat[_choose(len(flat), limit, random)][None]
    if layer.op == "Conv":
        window = layer.kernel
        pads, strides, dilations = layer.pads, layer.strides, layer.dilations
    else:
        window = tuple(math.ceil(k / s) for k, s in zip(layer.kernel, layer.strides, strict=True))
        pads, strides, dilations = tuple(t - 1 for t in window) * 2, (1,) * len(window), (1,) * len(window)
    spatial = len(window)
    padded = np.pad(x, [(0, 0), (0, 0)] + [(pads[i], pads[spatial + i]) for i in range(spatial)])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilations, window, strict=True))
    view = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=tuple(range(2, 2 + spatial)))
    step = (*(slice(None, None, s) for s in strides), *(slice(None, None, d) for d in dilations))
    view = view[(slice(None), slice(None), *step)]
    positions = (x.shape[0], *view.shape[2 : 2 + spatial])
    chosen = np.unravel_index(_choose(math.prod(positions), limit, random), positions)
    index: tuple[Any, ...] = (chosen[0], slice(None), *chosen[1:])
    patches = view[index]  # [M, C, k...]
    grouped = patches.reshape(len(patches), layer.group, -1)
    return np.ascontiguousarray(grouped.transpose(1, 0, 2))


def _choose(count: int, limit: int, random: np.random.Generator) -> np.ndarray:
    if count <= limit:
        return np.arange(count)
    return np.sort(random.choice(count, limit, replace=False))
