"""The four styles as classical filters: what the network learns, and what its pictures are judged against.

Sources: the generalised Kuwahara filter (`slimfront.studies.painting.kuwahara`) for oil; H. Winnemöller, S. C. Olsen,
B. Gooch, "Real-Time Video Abstraction", SIGGRAPH 2006 (smoothing that keeps edges, soft steps of lightness, lines where the
difference of two blurs falls) for the cartoon; the darkroom's colour dodge of a photograph by its blurred negative for the
pencil. The mosaic has tiles of 4 x 4 pixels, each with a light and a dark edge.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from slimfront.studies.painting.kuwahara import kuwahara, oil_paint, stronger_colours

Image = NDArray[np.float64]
TILE = 4


def cartoon(photograph: NDArray[np.floating]) -> Image:
    """Flat colours in soft steps of lightness, with dark lines; [H, W, 3] in 0..1 to the same."""
    flat = kuwahara(photograph, radius=4, sharpness=8.0)
    lightness = flat.mean(axis=2)
    steps = 6.0 * lightness
    stepped = (np.round(steps) + 0.5 * np.tanh(4.0 * (steps - np.round(steps)))) / 6.0
    flat = flat + (stepped - lightness)[:, :, None]
    blurred = ndimage.gaussian_filter(lightness, 1.0)
    wider = ndimage.gaussian_filter(lightness, 1.6)
    lines = np.clip(1.0 + np.tanh(60.0 * (blurred - 0.98 * wider)), 0.0, 1.0)
    return np.clip(
        stronger_colours(np.clip(flat, 0.0, 1.0), saturation=1.5, contrast=0.3) * lines[:, :, None], 0.0, 1.0
    )


def pencil(photograph: NDArray[np.floating]) -> Image:
    """Grey strokes on white paper where the photograph is darker than around; [H, W, 3] in 0..1 to the same."""
    grey = photograph.astype(np.float64).mean(axis=2)
    around = ndimage.gaussian_filter(grey, 4.0)
    drawn = np.clip((grey + 0.02) / (around + 0.02), 0.0, 1.0) ** 1.5
    return np.repeat((drawn * (0.85 + 0.15 * around))[:, :, None], 3, axis=2)


def mosaic(photograph: NDArray[np.floating]) -> Image:
    """Tiles of one colour each, lit from the upper left; [H, W, 3] in 0..1 to the same, sides multiples of 4."""
    height, width = photograph.shape[:2]
    if height % TILE or width % TILE:
        raise ValueError(f"sides must be multiples of {TILE}, but got {height} x {width}")
    tiles = photograph.astype(np.float64).reshape(height // TILE, TILE, width // TILE, TILE, 3).mean(axis=(1, 3))
    vivid = stronger_colours(tiles, saturation=1.4, contrast=0.5)
    relief = np.zeros((TILE, TILE))
    relief[0, :] = relief[:, 0] = 0.12
    relief[-1, :] = relief[:, -1] = -0.2
    laid = vivid.repeat(TILE, axis=0).repeat(TILE, axis=1)
    return np.clip(laid + np.tile(relief, (height // TILE, width // TILE))[:, :, None], 0.0, 1.0)


FILTERS: dict[str, Callable[[NDArray[np.floating]], Image]] = {
    "oil": oil_paint,
    "cartoon": cartoon,
    "pencil": pencil,
    "mosaic": mosaic,
}
