"""The pictures of a run's candidates, made when they are looked at: whole, with each image's quality and its worst tile."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...objectives.protocol import OpenModel
from ...objectives.quality import psnr_db, ssim
from ...spaces.errors import InputError
from ..pictures import Pictures, as_pictures

if TYPE_CHECKING:
    from ..study import Study
    from ..trial import Trial
    from .followed import Followed

ALBUMS_BYTES = 400_000_000  # of pictures that are remembered
TILES = 8  # along the longer side, of which the worst is marked


@dataclass(frozen=True)
class Album:
    """What a model makes of the evaluation data.

    Attributes:
        pictures: ``[N, H, W, 3]``.
        psnr_db: of each image ``[N]``, against the target, or the reference's output where there is none.
        ssim: likewise.
    """

    pictures: Pictures
    psnr_db: NDArray[np.float64]
    ssim: NDArray[np.float64]


@dataclass(frozen=True)
class Tile:
    """A part of a picture, in parts of its height and width from 0 to 1."""

    top: float
    left: float
    height: float
    width: float


class Albums:
    """The albums of one run; those looked at last are remembered.

    Args:
        followed: the run.
    """

    def __init__(self, followed: Followed) -> None:
        self._followed = followed
        self._known: OrderedDict[str, Album] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, trial: Trial) -> Album:
        """Return a trial's album.

        Raises:
            InputError: the study is gone or has changed, or the outputs are no pictures.
            BuildError: the file does not run, or cannot be built again.
        """
        with self._lock:
            if trial.sha256 not in self._known:
                self._known[trial.sha256] = self._made(trial)
            self._known.move_to_end(trial.sha256)
            while len(self._known) > 2 and sum(album.pictures.nbytes for album in self._known.values()) > ALBUMS_BYTES:
                self._known.popitem(last=False)
            return self._known[trial.sha256]

    @property
    def count(self) -> int:
        """How many images there are. Raises `InputError` where the study is gone or has changed."""
        return self._study.evaluation.count

    @property
    def _study(self) -> Study:
        if self._followed.study is None:
            raise InputError(f"there are no pictures: {self._followed.without_study}")
        return self._followed.study

    def _made(self, trial: Trial) -> Album:
        study, run = self._study, self._followed.run
        samples = study.evaluation
        paths = [run.model_path(trial)] + ([] if samples.target is not None else [run.model_path(run.reference)])
        with study.target.alone():  # a search's timing is not disturbed
            outputs = [OpenModel(path, samples, study.graph.batch, study.target).outputs for path in paths]
        truth = outputs[-1] if samples.target is None else samples.target
        shown = as_pictures(outputs[0], samples.low, samples.high)
        if shown is None:
            raise InputError("there are no pictures: the model's outputs are none")
        bounds = (samples.low, samples.high)
        return Album(shown, psnr_db(outputs[0], truth, *bounds), ssim(outputs[0], truth, *bounds)[0])


def worst_tile(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> Tile:
    """Return where two pictures ``[H, W, 3]`` differ most, by the mean square over squares of `TILES` to the longer side."""
    gap = np.square(one.astype(np.float64) - other).mean(axis=2)
    height, width = gap.shape
    side = max(1, -(-max(height, width) // TILES))
    tops, lefts = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(gap, tops, axis=0), lefts, axis=1)
    heights, widths = np.diff([*tops, height]), np.diff([*lefts, width])
    row, column = np.unravel_index(np.argmax(sums / np.outer(heights, widths)), sums.shape)
    return Tile(tops[row] / height, lefts[column] / width, heights[row] / height, widths[column] / width)


def webp(picture: NDArray[np.uint8]) -> bytes:
    """Return a picture ``[H, W, 3]`` as a lossless WebP file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="WEBP", lossless=True, quality=30, method=2)
    return stream.getvalue()
