"""Several bases as one: their spaces as one grid, and the models of their costs as one model.

A vector is the base's number, then the places of the options of all bases, one after another; those of the bases that it has
not are 0. A base's model is fitted in parts of its own uncompressed candidate, as that of a study of its own would be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..spaces.candidate import Candidate
from .additive import AdditiveModel, fitted
from .grid import Grid, Vector
from .layout import Floats, Layout, Vectors
from .vectors import distinct_rows

UNKNOWN = 1e3  # in each objective, of a base whose model there is none of yet
LEAST = 2  # measured candidates from which a base has a model


class JointGrid:
    """The candidates of several spaces as vectors; see `Grid`.

    Args:
        grids: of the spaces; that of the reference is the first.
    """

    def __init__(self, grids: Sequence[Grid]) -> None:
        self.grids = tuple(grids)
        self.lengths = np.concatenate([[len(grids)], *(grid.lengths for grid in grids)]).astype(np.int64)
        ends = np.cumsum([1, *(len(grid.lengths) for grid in grids)]).tolist()
        self.columns = [slice(*pair) for pair in pairwise(ends)]
        self._encoded: dict[str, Vector | None] = {}

    @property
    def size(self) -> float:
        """How many candidates there are."""
        return sum(grid.size for grid in self.grids)

    def encode(self, candidate: Candidate) -> Vector | None:
        """Return the candidate's vector; None where it lies outside all spaces."""
        if candidate.key not in self._encoded:
            found = ((number, grid.encode(candidate)) for number, grid in enumerate(self.grids))
            number, own = next(((number, own) for number, own in found if own is not None), (0, None))
            self._encoded[candidate.key] = None if own is None else self.embedded(number, own[None])[0]
        return self._encoded[candidate.key]

    def decode(self, vector: Iterable[int]) -> Candidate:
        """Return the candidate of a vector."""
        row = np.asarray(vector, np.int64)
        number = int(row[0])
        return self.grids[number].decode(row[self.columns[number]])

    def embedded(self, number: int, own: Vectors) -> Vectors:
        """Return vectors of a base ``[M, own]`` as vectors of all ``[M, L]``."""
        result = np.zeros((len(own), len(self.lengths)), np.int64)
        result[:, 0] = number
        result[:, self.columns[number]] = own
        return result

    def canonical(self, vectors: Vectors) -> Vectors:
        """Return vectors with 0 in the places of the bases that they have not."""
        result = vectors.copy()
        for number, columns in enumerate(self.columns):
            result[result[:, 0] != number, columns] = 0
        return result

    def walk(self) -> Iterator[Candidate]:
        """Yield all candidates."""
        for grid in self.grids:
            yield from grid.walk()


@dataclass(frozen=True)
class BaseModel:
    """The model of one base.

    Attributes:
        model: of its candidates in parts of its uncompressed one.
        anchor: what that one measures: size and time in parts of the reference's, and drop, which may be below 0 ``[3]``.
    """

    model: AdditiveModel
    anchor: Floats

    def predict(self, own: Vectors) -> Floats:
        """Return what candidates ``[M, own]`` will measure ``[M, 3]``, beside the reference."""
        found = self.model.predict(own)
        found[:, :2] *= self.anchor[:2]
        found[:, 2] = np.maximum(found[:, 2] + self.anchor[2], 0.0)
        return found

    def spread(self, own: Vectors) -> Floats:
        """Return standard deviations ``[M, 3]``."""
        return self.model.spread(own) * np.array([*self.anchor[:2], 1.0])


class JointCosts:
    """Models of several bases as one; see `solve.Costs`.

    Args:
        grid: of all bases.
        layouts: of their tasks.
        anchors: what the uncompressed candidates of the bases measured; None where it is not known.
        vectors: measured candidates ``[M, L]``.
        points: what they measured; drops may be below 0 ``[M, 3]``.
    """

    def __init__(
        self,
        grid: JointGrid,
        layouts: Sequence[Layout],
        anchors: Sequence[Floats | None],
        vectors: Vectors,
        points: Floats,
    ) -> None:
        self.grid = grid
        self.models: dict[int, BaseModel] = {}  # of the bases that have one, by their numbers
        for number, (layout, anchor) in enumerate(zip(layouts, anchors, strict=True)):
            rows = vectors[:, 0] == number
            model = _base_model(layout, anchor, vectors[rows][:, grid.columns[number]], points[rows])
            if model is not None:
                self.models[number] = model

    def predict(self, vectors: Vectors) -> Floats:
        """Return the expected objectives ``[M, 3]`` of candidates ``[M, L]``."""
        return self._each(vectors, lambda model, own: model.predict(own), UNKNOWN)

    def spread(self, vectors: Vectors) -> Floats:
        """Return standard deviations ``[M, 3]`` of what is predicted."""
        return self._each(vectors, lambda model, own: model.spread(own), 0.0)

    def novelty(self, vectors: Vectors) -> Floats:
        """Return how little is known of what candidates consist of ``[M]``."""
        return self._each(vectors, lambda model, own: model.model.novelty(own)[:, None], 0.0)[:, 0]

    def canonical(self, vectors: Vectors) -> Vectors:
        """Return vectors as the grid writes them."""
        return self.grid.canonical(vectors)

    def sweep(self, random: np.random.Generator, count: int, starts: Vectors) -> Vectors:
        """Return candidates ``[about count, L]`` that are nearly best for random weights of the objectives."""
        found = []
        for number, model in self.models.items():
            own = starts[starts[:, 0] == number][:, self.grid.columns[number]]
            own = own if len(own) else np.zeros((1, len(self.grid.grids[number].lengths)), np.int64)
            swept = model.model.sweep(random, max(count // len(self.models), 1), own)
            found.append(self.grid.embedded(number, swept))
        return np.concatenate(found)

    def _each(self, vectors: Vectors, told: Callable[[BaseModel, Vectors], Floats], otherwise: float) -> Floats:
        """Return what each row's model tells ``[M, 3]``."""
        result = np.full((len(vectors), 3), otherwise)
        for number, model in self.models.items():
            rows = vectors[:, 0] == number
            if rows.any():
                result[rows] = told(model, vectors[rows][:, self.grid.columns[number]])
        return result


def _base_model(layout: Layout, anchor: Floats | None, own: Vectors, points: Floats) -> BaseModel | None:
    """Return the model of a base; None where its uncompressed candidate is not measured, or too few others are."""
    if anchor is None or len(distinct_rows(own)) < LEAST:
        return None
    relative = points / [*anchor[:2], 1.0]
    relative[:, 2] = np.maximum(points[:, 2] - anchor[2], 0.0)
    return BaseModel(fitted(layout, own, relative), anchor)
