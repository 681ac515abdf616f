"""Diversity: whether a model still makes all kinds of pictures that the reference makes of the same inputs, such as noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import BuildError, InputError
from . import manifold
from .embedding import random_features
from .protocol import About, OpenModel, Reading, Subject
from .samples import Samples

NEIGHBOURS = 5  # as Naeem et al. take
SAMPLES_A_NEIGHBOUR = 10  # with fewer, a model that makes a single picture reaches more than a tenth of the reference's

Features = Callable[[NDArray[np.float32]], NDArray]


class Diversity:
    """Reads `coverage` and `recall` of the reference's pictures by the model's.

    Args:
        neighbours: of each sample, by which its surroundings are told.
        features: of pictures ``[N, ...]``, an array ``[N, D]``; by default `random_features`.

    Raises:
        InputError: no neighbours.
    """

    name = "diversity"
    readings: ClassVar[Mapping[str, About]] = {
        "coverage": About(
            "coverage",
            explanation="the part of the reference's samples with one of the model's among their nearest neighbours "
            "(Naeem et al. 2020)",
        ),
        "recall": About(
            "recall",
            explanation="the part of the reference's samples that lie among the model's, by nearest neighbours "
            "(Kynkäänniemi et al. 2019)",
        ),
    }

    def __init__(self, neighbours: int = NEIGHBOURS, features: Features | None = None) -> None:
        if neighbours < 1:
            raise InputError(f"neighbours must be at least 1, but got {neighbours}")
        self.neighbours = neighbours
        self.features = features
        self._known: tuple[OpenModel, NDArray, NDArray[np.float64]] | None = None  # of the reference

    def check(self, samples: Samples, where: str) -> None:
        """Raise `InputError` where there are fewer samples than so many neighbours need; it tells how many would do."""
        needed = SAMPLES_A_NEIGHBOUR * self.neighbours
        if samples.count >= needed:
            return
        fewer = samples.count // SAMPLES_A_NEIGHBOUR
        other = f", or set neighbours = {fewer}" if fewer else ""
        raise InputError(
            f"objectives.diversity: {self.neighbours} neighbours need at least {needed} samples, but {where} has "
            f"{samples.count}: give it {needed - samples.count} more{other}"
        )

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the two readings; a model that is equal to the reference has 1.

        Raises:
            BuildError: as `OpenModel.outputs`, or features of another number of samples, or that are not finite.
        """
        if self._known is None or self._known[0] is not subject.reference:
            real = self._features(subject.reference)
            self._known = subject.reference, real, manifold.radii(real, self.neighbours)
        _, real, real_radii = self._known
        made = self._features(subject.model)
        values = {
            "coverage": manifold.coverage(real, made, real_radii),
            "recall": manifold.recall(real, made, manifold.radii(made, self.neighbours)),
        }
        how = f"{self.neighbours} nearest neighbours among {len(real)} samples"
        return {name: Reading(value, "", how=how) for name, value in values.items()}

    def _features(self, model: OpenModel) -> NDArray:
        if self.features is None:
            return random_features(model.outputs, model.samples.low, model.samples.high)
        found = np.asarray(self.features(model.outputs), dtype=np.float64)
        if found.ndim != 2 or len(found) != model.samples.count:
            raise InputError(
                f"objectives.diversity.features must return an array [{model.samples.count}, D], but got "
                f"{list(found.shape)}"
            )
        if not np.isfinite(found).all():
            raise BuildError("the features of its outputs are not finite")
        return found
