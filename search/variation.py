"""Inputs varied, so that training on a few samples learns what the network does and not the samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray]


def moved(inputs: Arrays, turns: int, mirrored: bool) -> dict[str, NDArray]:
    """Return inputs turned and mirrored, all of them alike; what the network makes of them has to be asked anew.

    Args:
        inputs: by name, ``[N, ...]``. Those of four axes are images or their likes: they are mirrored, and turned by 90
            degrees where all of them are square. Others stay.
        turns: by 90 degrees; where not all are square, an odd one mirrors them upside down.
        mirrored: whether left is right.
    """
    images = [array for array in inputs.values() if array.ndim == 4]
    square = all(array.shape[2] == array.shape[3] for array in images)
    return {
        name: _moved(array, turns, mirrored, square) if array.ndim == 4 else array for name, array in inputs.items()
    }


def _moved(images: NDArray, turns: int, mirrored: bool, square: bool) -> NDArray:
    if square:
        images = np.rot90(images, turns, (2, 3))
    elif turns % 2:
        images = images[:, :, ::-1]
    return np.ascontiguousarray(images[:, :, :, ::-1] if mirrored else images)
