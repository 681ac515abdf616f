"""A classical oil-paint filter: the generalised Kuwahara filter, then stronger colours.

Sources: G. Papari, N. Petkov, P. Campisi, "Artistic edge and corner enhancing smoothing", IEEE Transactions on
Image Processing, 2007 (smooth sectors, a soft choice by variance); J. E. Kyprianidis, H. Kang, J. Doellner,
"Image and video abstraction by anisotropic Kuwahara filtering", Computer Graphics Forum, 2009 (sectors made by
blurring a disc's slices; the weight `1 / (1 + deviation^q)` used here, without its anisotropic step).
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

RADIUS = 8
SECTORS = 8
SHARPNESS = 16.0
SATURATION = 1.6
CONTRAST = 0.8


def oil_paint(photograph: NDArray[np.floating]) -> NDArray[np.float64]:
    """The painting of a photograph.

    Args:
        photograph: [H, W, 3], RGB in 0..1.

    Returns:
        [H, W, 3] in 0..1. Turning or mirroring the photograph, or exchanging its colour channels, does the same to
        the painting.
    """
    return stronger_colours(kuwahara(photograph))


def kuwahara(
    photograph: NDArray[np.floating], radius: int = RADIUS, sharpness: float = SHARPNESS
) -> NDArray[np.float64]:
    """Replace every pixel by the mean of those sectors around it that vary least.

    A sector whose colours deviate by s (of 255, root of the channels' summed variances) counts with the weight
    `1 / (1 + s^sharpness)`. Beyond its edges the photograph is mirrored.

    Args:
        photograph: [H, W, C] in 0..1, each side longer than `radius`.
        radius: of the disc that the sectors share, in pixels.
        sharpness: 0 blurs; large values choose a single sector.

    Returns:
        [H, W, C] in 0..1.
    """
    height, width = photograph.shape[:2]
    if min(height, width) <= radius:
        raise ValueError(f"sides must be longer than the radius {radius}, but got {height} x {width}")
    mirrored = np.pad(photograph.astype(np.float64), ((radius, radius), (radius, radius), (0, 0)), mode="reflect")
    # The sum of the squares is one plane for all channels: only the summed variance is needed.
    planes = np.concatenate([mirrored, np.square(mirrored).sum(axis=2, keepdims=True)], axis=2).transpose(2, 0, 1)
    size = (fft.next_fast_len(planes.shape[1], real=True), fft.next_fast_len(planes.shape[2], real=True))
    spectrum = fft.rfft2(planes, s=size)

    painted = np.zeros((planes.shape[0] - 1, height, width))
    total = np.zeros((height, width))
    inside = np.s_[:, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]
    for sector in _sectors(radius):
        moments = fft.irfft2(spectrum * fft.rfft2(sector, s=size), s=size)[inside]
        mean = moments[:-1]
        variance = np.maximum(moments[-1] - np.square(mean).sum(axis=0), 0.0)
        weight = 1.0 / (1.0 + (255.0**2 * variance) ** (sharpness / 2))
        painted += weight * mean
        total += weight
    return np.clip(painted / total, 0.0, 1.0).transpose(1, 2, 0)


def stronger_colours(
    image: NDArray[np.floating], saturation: float = SATURATION, contrast: float = CONTRAST
) -> NDArray[np.float64]:
    """Move colours away from grey, then apply an S-curve.

    Args:
        image: [H, W, 3] in 0..1.
        saturation: factor on a pixel's distance from the mean of its channels; 1 leaves it.
        contrast: share of the smoothstep curve in the tones, 0..1.

    Returns:
        [H, W, 3] in 0..1.
    """
    grey = image.mean(axis=2, keepdims=True)
    vivid = np.clip(grey + saturation * (image - grey), 0.0, 1.0)
    return (1.0 - contrast) * vivid + contrast * vivid**2 * (3.0 - 2.0 * vivid)


@lru_cache(maxsize=4)
def _sectors(radius: int) -> tuple[NDArray[np.float64], ...]:
    """The sectors' weights, each [2 radius + 1, 2 radius + 1] with sum 1, centred on multiples of 45 degrees."""
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    squared = x**2 + y**2
    disc = squared <= (radius + 0.5) ** 2
    envelope = np.exp(-squared / (2 * (0.7 * radius) ** 2))
    centre = squared == 0
    sectors = []
    for k in range(SECTORS):
        turned = np.arctan2(y, x) - 2 * np.pi * k / SECTORS
        slice_ = (disc & (np.cos(turned) > np.cos(np.pi / SECTORS))).astype(np.float64)
        slice_[centre] = 1 / SECTORS  # shared out, or one sector would stand out and the filter depend on direction
        sector = envelope * ndimage.gaussian_filter(slice_, radius / 12, truncate=3.0)
        sectors.append(sector / sector.sum())
    return tuple(sectors)
