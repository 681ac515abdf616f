"""The space as a grid: what varies is an axis each, a candidate a vector of indices into the axes' options."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate
from ..spaces.space import Axis, Space
from .vectors import draw as drawn

Vector = NDArray[np.int64]
ENUMERABLE = 100_000  # points of a space that may be walked through one by one
REDRAWS = 20


class Points(Protocol):
    """The candidates of one space or of several as vectors.

    Attributes:
        lengths: number of options of each axis ``[L]``.
    """

    lengths: Vector

    @property
    def size(self) -> float:
        """How many candidates there are."""
        ...

    def encode(self, candidate: Candidate) -> Vector | None:
        """Return the candidate's vector ``[L]``; None where it lies outside."""
        ...

    def decode(self, vector: Iterable[int]) -> Candidate:
        """Return the candidate of a vector ``[L]``."""
        ...

    def walk(self) -> Iterator[Candidate]:
        """Yield all candidates."""
        ...


class Grid:
    """Candidates of a space as vectors.

    Attributes:
        axes: what varies: layers, then channel groups.
        lengths: number of options of each ``[L]``.
    """

    def __init__(self, space: Space) -> None:
        self.axes = tuple(axis for axis in space.axes if len(axis.options) > 1)
        self.held = [(axis, axis.options[0]) for axis in space.axes if len(axis.options) == 1]
        self.lengths = np.array([len(axis.options) for axis in self.axes], dtype=np.int64)
        self._index = [{option: i for i, option in enumerate(axis.options)} for axis in self.axes]
        self._space = space
        self._encoded: dict[str, Vector | None] = {}

    @property
    def size(self) -> float:
        """How many candidates there are."""
        return float(np.prod(self.lengths.astype(float)))

    def encode(self, candidate: Candidate) -> Vector | None:
        """Return the candidate's vector ``[L]``; None where it lies outside the space."""
        if candidate.key not in self._encoded:
            inside = self._space.contains(candidate)
            found = zip(self.axes, self._index, strict=True)
            options = [index[axis.of(candidate)] for axis, index in found] if inside else None
            self._encoded[candidate.key] = None if options is None else np.array(options, dtype=np.int64)
        return self._encoded[candidate.key]

    def decode(self, vector: Iterable[int]) -> Candidate:
        """Return the candidate of a vector ``[L]``."""
        chosen = [(axis, axis.options[i]) for axis, i in zip(self.axes, vector, strict=True)]
        return self._space.make([*self.held, *chosen])

    def values(self, value: Callable[[Axis, Any], float]) -> NDArray[np.float64]:
        """Return ``[L, K]``: a number for each axis and option, 0 where an axis has fewer options."""
        table = np.zeros((len(self.lengths), int(self.lengths.max(initial=1))))
        for row, axis in zip(table, self.axes, strict=True):
            row[: len(axis.options)] = [value(axis, option) for option in axis.options]
        return table

    def walk(self) -> Iterator[Candidate]:
        """Yield all candidates."""
        for vector in itertools.product(*(range(length) for length in self.lengths)):
            yield self.decode(vector)


def distinct(
    draw: Callable[[], Candidate | None],
    grid: Points,
    seen: set[str],
    n: int,
    random: np.random.Generator,
    redraws: int = REDRAWS,
) -> list[Candidate]:
    """Return ``n`` candidates that are not known, fewer only where the space has no more.

    What is drawn twice is drawn again; after ``redraws`` in vain an unseen point is taken at random, and in a small
    space the next one that is unseen.

    Args:
        draw: proposes a candidate, or None where it has no more.
        grid: the space.
        seen: keys of candidates that are not to come again; those that are found are added.
        n: how many are wanted.
        random: for the points taken at random.
        redraws: draws in vain, in all, before a point is taken at random.
    """
    found: list[Candidate] = []
    while len(found) < n:
        candidate = draw() if redraws > 0 else None
        if candidate is not None and candidate.key in seen:
            redraws -= 1
            continue
        candidate = candidate or _unseen(grid, seen, random)
        if candidate is None:
            break
        seen.add(candidate.key)
        found.append(candidate)
    return found


def _unseen(grid: Points, seen: Collection[str], random: np.random.Generator) -> Candidate | None:
    for vector in drawn(grid.lengths, random, REDRAWS):
        candidate = grid.decode(vector)
        if candidate.key not in seen:
            return candidate
    if grid.size > ENUMERABLE:
        return _unseen(grid, seen, random)
    return next((candidate for candidate in grid.walk() if candidate.key not in seen), None)
