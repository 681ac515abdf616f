"""The space as a grid: each varying layer an axis, each candidate a vector of indices into the layers' choices."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..spaces.candidate import Candidate, LayerChoice
from ..spaces.space import Space

Vector = NDArray[np.int64]
ENUMERABLE = 100_000  # points of a space that may be walked through one by one
REDRAWS = 20


class Grid:
    """Candidates of a space as vectors.

    Attributes:
        axes: choices of each varying layer, by layer.
        lengths: number of choices ``[L]``.
    """

    def __init__(self, space: Space) -> None:
        self.axes = {layer: choices for layer, choices in space.choices.items() if len(choices) > 1}
        self.held = {layer: choices[0] for layer, choices in space.choices.items() if len(choices) == 1}
        self.lengths = np.array([len(choices) for choices in self.axes.values()], dtype=np.int64)
        self._index = [{choice: i for i, choice in enumerate(choices)} for choices in self.axes.values()]
        self._space = space

    def encode(self, candidate: Candidate) -> Vector | None:
        """Return the candidate's vector ``[L]``; None where it lies outside the space."""
        if not self._space.contains(candidate):
            return None
        choices = map(candidate.choice, self.axes)
        return np.array([index[choice] for index, choice in zip(self._index, choices, strict=True)], dtype=np.int64)

    def decode(self, vector: Iterable[int]) -> Candidate:
        """Return the candidate of a vector ``[L]``."""
        chosen = {layer: options[i] for (layer, options), i in zip(self.axes.items(), vector, strict=True)}
        return Candidate(layers=self.held | chosen)

    def values(self, value: Callable[[str, LayerChoice], float]) -> NDArray[np.float64]:
        """Return ``[L, K]``: a number for each layer and choice, 0 where a layer has fewer choices."""
        table = np.zeros((len(self.lengths), int(self.lengths.max(initial=1))))
        for row, (layer, choices) in zip(table, self.axes.items(), strict=True):
            row[: len(choices)] = [value(layer, choice) for choice in choices]
        return table

    def random(self, random: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Return ``[count, L]`` uniformly drawn vectors."""
        return random.integers(0, self.lengths, size=(count, len(self.lengths)))

    def mutate(self, vectors: NDArray[np.int64], random: np.random.Generator, most: int = 3) -> NDArray[np.int64]:
        """Return a copy of ``vectors [N, L]`` with 1 to ``most`` layers of each drawn anew."""
        layers = len(self.lengths)
        share = random.integers(1, most + 1, size=(len(vectors), 1)) / layers
        hit = random.random(vectors.shape) < share
        hit[np.arange(len(vectors)), random.integers(0, layers, len(vectors))] = True
        return np.where(hit, self.random(random, len(vectors)), vectors)

    def walk(self) -> Iterator[Candidate]:
        """Yield all candidates."""
        for vector in itertools.product(*(range(length) for length in self.lengths)):
            yield self.decode(vector)


def distinct(
    draw: Callable[[], Candidate | None],
    grid: Grid,
    known: Iterable[Candidate],
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
        known: candidates that are not to come again.
        n: how many are wanted.
        random: for the points taken at random.
        redraws: draws in vain, in all, before a point is taken at random.
    """
    seen = set(known)
    found: list[Candidate] = []
    while len(found) < n:
        candidate = draw() if redraws > 0 else None
        if candidate in seen:
            redraws -= 1
            continue
        candidate = candidate or _unseen(grid, seen, random)
        if candidate is None:
            break
        seen.add(candidate)
        found.append(candidate)
    return found


def _unseen(grid: Grid, seen: set[Candidate], random: np.random.Generator) -> Candidate | None:
    for vector in grid.random(random, REDRAWS):
        candidate = grid.decode(vector)
        if candidate not in seen:
            return candidate
    if np.prod(grid.lengths.astype(float)) > ENUMERABLE:
        return _unseen(grid, seen, random)
    return next((candidate for candidate in grid.walk() if candidate not in seen), None)
