"""Inputs varied, so that training on a few samples learns what the network does and not the samples.

What the reference makes of a varied input is asked of it anew, so that any input will do that is not unlike the samples (Beyer et
al.: Knowledge Distillation: A Good Teacher Is Patient and Consistent, CVPR 2022).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray]

MIXED = 0.5  # part of the patches that are mixed of two samples (Zhang et al.: mixup, ICLR 2018)
LEAST_OF_FIRST = 0.5  # of such a mixture
COLOURED = 0.5  # part of the patches whose contrast and colours change
CONTRAST = 0.15  # standard deviation of its logarithm
COLOUR = 0.2  # of what is added to each channel, in parts of its standard deviation
CUT = (0.25, 0.75)  # where, along an axis, patches meet


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


class Variation:
    """New inputs, made of samples.

    Images ``[N, C, H, W]`` and their likes (latents) become four patches of several samples, each turned, mirrored, mixed with
    another sample and changed in contrast and colour at random, never beyond the values that a channel has in the samples. Maps
    of 0 and 1 are cut and turned alike, and stay such maps. Where other inputs come beside them, conditions, all patches are of
    the sample that these belong to.
    Where there are no images, noise ``[N, C]`` or ``[N, C, 1, 1]`` becomes a sum of two samples that has the mean and the
    variance of one, within the values of the samples; whole numbers stay those of one sample.

    Args:
        inputs: samples by name, ``[N, ...]``.
    """

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self.count = len(next(iter(inputs.values())))
        self.images = [name for name, array in inputs.items() if _is_image(array)]
        self.noise = [name for name, array in inputs.items() if not self.images and _is_noise(array)]
        self._alone = len(self.images) == len(inputs)  # no condition beside the images
        self._maps = {name for name in self.images if bool(np.isin(inputs[name], (0.0, 1.0)).all())}
        self._around = {name: _Spread(inputs[name]) for name in self.images}
        self._mean = {name: inputs[name].mean(0, keepdims=True) for name in self.noise}

    @property
    def able(self) -> bool:
        """Whether what is made of the samples is anything new."""
        return bool(self.images) or (bool(self.noise) and self.count > 1)

    def draw(self, random: np.random.Generator, batch: int) -> dict[str, NDArray]:
        """Return inputs by name, ``[batch, ...]``."""
        drawn = [self._one(random) for _ in range(batch)]
        return {name: np.concatenate([one[name] for one in drawn]) for name in self.inputs}

    def _one(self, random: np.random.Generator) -> dict[str, NDArray]:
        row = int(random.integers(self.count))
        found = self._sample(row)
        own = None if self._alone else row
        patches = [self._patch(random, own) for _ in range(4)] if self.images else []
        cut, start = random.uniform(*CUT, 2), random.uniform(0.0, 1.0, (4, 2))
        for name in self.images:
            sides = found[name].shape[2:]
            rows, columns = (_halves(side, part) for side, part in zip(sides, cut, strict=True))
            places = [(row, column) for row in rows for column in columns]
            whole = np.empty_like(found[name])
            for place, patch, at in zip(places, patches, start, strict=True):
                whole[:, :, place[0], place[1]] = patch[name][
                    :, :, *(_like(side, own, part) for side, own, part in zip(sides, place, at, strict=True))
                ]
            found[name] = whole
        other = self._sample(int(random.integers(self.count)))
        angle = random.uniform(0.0, np.pi / 2.0)
        for name in self.noise:
            mean = self._mean[name]
            mixed = mean + np.cos(angle) * (found[name] - mean) + np.sin(angle) * (other[name] - mean)
            whole = self.inputs[name]
            found[name] = np.clip(mixed, whole.min(), whole.max()).astype(whole.dtype)
        return found

    def _sample(self, row: int) -> dict[str, NDArray]:
        return {name: array[row : row + 1] for name, array in self.inputs.items()}

    def _patch(self, random: np.random.Generator, row: int | None) -> dict[str, NDArray]:
        """Return the images of one sample, varied as a whole; of this row, where one is given."""
        images = self._turned(random, row)
        pictures = [name for name in images if name not in self._maps]
        if random.random() < MIXED:
            other, part = self._turned(random, row), random.uniform(LEAST_OF_FIRST, 1.0)
            images |= {name: part * images[name] + (1.0 - part) * other[name] for name in pictures}
        if random.random() < COLOURED:
            images |= {name: self._around[name].coloured(images[name], random) for name in pictures}
        return images

    def _turned(self, random: np.random.Generator, row: int | None) -> dict[str, NDArray]:
        sample = self._sample(int(random.integers(self.count)) if row is None else row)
        images = {name: sample[name] for name in self.images}
        return moved(images, int(random.integers(4)), bool(random.integers(2)))


class _Spread:
    """What the channels of samples ``[N, C, H, W]`` are like."""

    def __init__(self, images: NDArray) -> None:
        self.low, self.high = images.min((0, 2, 3), keepdims=True), images.max((0, 2, 3), keepdims=True)
        self.deviation = images.std((0, 2, 3), keepdims=True)

    def coloured(self, image: NDArray, random: np.random.Generator) -> NDArray:
        """Return an image with another contrast and other colours."""
        mean = image.mean((2, 3), keepdims=True)
        contrast = np.exp(random.normal(0.0, CONTRAST))
        colour = random.normal(0.0, COLOUR, self.deviation.shape) * self.deviation
        return np.clip(mean + contrast * (image - mean) + colour, self.low, self.high)


def _is_image(array: NDArray) -> bool:
    return array.ndim == 4 and array.shape[2:] != (1, 1) and np.issubdtype(array.dtype, np.floating)


def _is_noise(array: NDArray) -> bool:
    flat = array.ndim == 2 or (array.ndim == 4 and array.shape[2:] == (1, 1))
    return flat and np.issubdtype(array.dtype, np.floating) and bool((array != np.round(array)).any())


def _halves(side: int, part: float) -> tuple[slice, slice]:
    cut = round(side * part)
    return slice(0, cut), slice(cut, side)


def _like(side: int, place: slice, part: float) -> slice:
    """Return a slice as long as a place, that begins at a part of what is left of the side."""
    length = place.stop - place.start
    start = round((side - length) * part)
    return slice(start, start + length)
