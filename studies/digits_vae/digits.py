"""scikit-learn's handwritten digits, 8 x 8, enlarged smoothly to 32 x 32.

Source: E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy import ndimage
from sklearn.datasets import load_digits

LATENTS_FILE = "latents.safetensors"  # of a study: what its encoder said of the digits
SIDE = 32
DIGIT_SIDE = 28  # the enlarged digit; around it two pixels stay black
PARTS = {"training": slice(0, 1397), "evaluation": slice(1397, 1597), "test": slice(1597, 1797)}


def digits(part: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return a part of the digits, in the order of the data.

    Args:
        part: "training" (1,397), "evaluation" (200) or "test" (200); no digit is in two of them.

    Returns:
        Images, [N, 1, 32, 32] in 0..1, white on black, and the digits that they show, [N] of 0..9.
    """
    images, labels = _all_digits()
    return images[PARTS[part]], labels[PARTS[part]]


def latents_of(folder: Path, part: str) -> dict[str, NDArray]:
    """Return a part of the digits as data of a decoder.

    Args:
        folder: of a study whose train.py has written `LATENTS_FILE` there.
        part: as of `digits`.

    Returns:
        `input`, float32 [N, 16], the latents, and `target`, uint8 [N, 1, 32, 32].
    """
    return {
        "input": load_file(folder / LATENTS_FILE)[part],
        "target": np.round(255.0 * digits(part)[0]).astype(np.uint8),
    }


@cache
def _all_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    loaded = load_digits()
    images = loaded.images / 16.0
    zoom = DIGIT_SIDE / images.shape[1]
    large = np.clip(ndimage.zoom(images, (1, zoom, zoom), order=3, mode="grid-constant", grid_mode=True), 0.0, 1.0)
    strokes = large**2 * (3.0 - 2.0 * large)  # sharper edges than interpolation leaves
    border = (SIDE - DIGIT_SIDE) // 2
    images = np.pad(strokes, ((0, 0), (border, border), (border, border)))[:, None].astype(np.float32)
    return images, loaded.target.astype(np.int64)
