"""Candidates as vectors: one index for each axis, below its number of options."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.int64]


def draw(lengths: Vectors, random: np.random.Generator, count: int) -> Vectors:
    """Return ``[count, L]`` uniformly drawn vectors below ``lengths [L]``."""
    return random.integers(0, lengths, size=(count, len(lengths)))


def mutate(lengths: Vectors, vectors: Vectors, random: np.random.Generator, most: int = 3) -> Vectors:
    """Return a copy of ``vectors [N, L]`` with 1 to about ``most`` entries of each drawn anew below ``lengths [L]``."""
    axes = len(lengths)
    share = random.integers(1, most + 1, size=(len(vectors), 1)) / axes
    hit = random.random(vectors.shape) < share
    hit[np.arange(len(vectors)), random.integers(0, axes, len(vectors))] = True
    return np.where(hit, draw(lengths, random, len(vectors)), vectors)


def cross(first: Vectors, second: Vectors, random: np.random.Generator) -> Vectors:
    """Return vectors ``[N, L]`` that have each entry from ``first`` or from ``second``, by chance."""
    return np.where(random.random(first.shape) < 0.5, first, second)


def distinct_rows(vectors: Vectors) -> Vectors:
    """Return the rows ``[M, L]`` without repetitions, in order of their first appearance."""
    rows = {vector.tobytes(): row for row, vector in zip(range(len(vectors) - 1, -1, -1), vectors[::-1], strict=True)}
    return vectors[sorted(rows.values())]


def unseen(vectors: Vectors, seen: Iterable[Vectors]) -> NDArray[np.bool_]:
    """Return which rows ``[M]`` of ``vectors [M, L]`` are none of ``seen``.

    A negative entry of a vector that was seen fits every entry: it did not matter there.
    """
    by_places: dict[bytes, set[bytes]] = {}
    for vector in seen:
        mattered = vector >= 0
        by_places.setdefault(mattered.tobytes(), set()).add(vector[mattered].tobytes())
    new = np.ones(len(vectors), bool)
    for places, known in by_places.items():
        some = np.ascontiguousarray(vectors[:, np.frombuffer(places, bool)])
        new &= np.array([row.tobytes() not in known for row in some])
    return new
