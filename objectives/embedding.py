"""Features of pictures without trained weights: a small convolutional network whose random weights are always the same.

Naeem, Oh, Uh, Choi and Yoo: Reliable Fidelity and Diversity Metrics for Generative Models (ICML 2020) find features of a random
network as good as trained ones, and better where pictures are unlike those that it was trained on. Theirs is VGG16; ours has
three layers of 3 x 3 kernels on pictures of 32 x 32, so that it costs less than making the pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .quality import planes

SIDE = 32  # pictures are reduced to it, each pixel the mean of what it covers; smaller ones stay as they are
CHANNELS = (16, 32, 64)  # of the layers, each followed by the mean of 2 x 2
KERNEL = 3
SEED = 0
AT_ONCE = 64  # pictures, which bounds memory


def random_features(images: NDArray, low: float, high: float) -> NDArray[np.float32]:
    """Return features of each picture ``[N, D]``, D at most 1024; equal pictures have equal features.

    Args:
        images: ``[N, C, H, W]``, or any shape whose last two axes are a picture, in ``low..high``.
        low: black.
        high: white.
    """
    pictures = planes(images)
    kernels = _kernels(pictures.shape[1])
    parts = [_features(pictures[i : i + AT_ONCE], low, high, kernels) for i in range(0, len(pictures), AT_ONCE)]
    return np.concatenate(parts)


def _kernels(channels: int) -> list[NDArray[np.float32]]:
    """Return the weights of each layer ``[out, in, 3, 3]``, scaled as He et al. (ICCV 2015) do for rectifiers."""
    random = np.random.RandomState(SEED)  # whose numbers stay the same with every version of NumPy
    kernels = []
    for out in CHANNELS:
        scale = np.sqrt(2.0 / (channels * KERNEL**2))
        kernels.append((scale * random.standard_normal((out, channels, KERNEL, KERNEL))).astype(np.float32))
        channels = out
    return kernels


def _features(pictures: NDArray, low: float, high: float, kernels: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    values = (pictures.astype(np.float32) - np.float32(low)) * np.float32(2.0 / (high - low)) - np.float32(1.0)
    rows, columns = (_means(side, min(side, SIDE)) for side in values.shape[2:])
    values = np.einsum("ah,nchw,bw->ncab", rows, values, columns, optimize=True)
    for kernel in kernels:
        values = _halved(np.maximum(_convolved(values, kernel), 0.0))
    return np.ascontiguousarray(values.reshape(len(values), -1), dtype=np.float32)


def _convolved(values: NDArray[np.float32], kernel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the convolution of values ``[N, C, H, W]``, which are continued by those at their edge."""
    padded = np.pad(values, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(2, 3))
    return np.moveaxis(np.tensordot(windows, kernel, axes=((1, 4, 5), (1, 2, 3))), 3, 1)


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means of 2 x 2 values; a side of 1 stays."""
    rows, columns = (_means(side, max(side // 2, 1)) for side in values.shape[2:])
    return np.asarray(np.einsum("ah,nchw,bw->ncab", rows, values, columns, optimize=True), np.float32)


def _means(side: int, to: int) -> NDArray[np.float32]:
    """Return the matrix ``[to, side]`` that takes the mean of ``side / to`` values, parts of them by their share."""
    edges = np.linspace(0.0, side, to + 1)
    pixels = np.arange(side)
    covered = np.minimum(edges[1:, None], pixels + 1.0) - np.maximum(edges[:-1, None], pixels)
    return (np.maximum(covered, 0.0) * to / side).astype(np.float32)
