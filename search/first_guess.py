"""How much each option adds to the error, before any candidate told them apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..spaces.space import Axis
from .layout import Floats, Layout, Vectors

DB_PER_BIT = 6.0
PRUNED_DB = 2.0  # the drop where every group loses a quarter of its channels
ROUNDED_DB = {8: 0.05, 4: 0.8}  # the drop of uniform candidates
CLEAN = 1e-6


def uniform_rows(layout: Layout, vectors: Vectors) -> dict[int, int]:
    """Return which rows of ``vectors [M, L]`` are uniform candidates, by weight bits."""
    found = {}
    for bits, vector in layout.uniform.items():
        for row in (vectors == vector).all(axis=1).nonzero()[0][:1]:
            found[bits] = int(row)
    return found


def error_guess(layout: Layout, vectors: Vectors, error: Floats, uniform: Mapping[int, int]) -> Floats:
    """Return a first guess of the error of each axis's options ``[L, K]``.

    From the task's sensitivities where it has some; else all layers, and all groups, are taken to be alike, and uniform
    candidates tell how much a width costs.

    Args:
        layout: of the task.
        vectors: measured candidates ``[M, L]``.
        error: theirs ``[M]``, in parts of the reference's.
        uniform: rows of ``vectors`` that are uniform candidates, by weight bits.
    """
    task, grid = layout.task, layout.grid
    layers, groups = max(layout.split, 1), max(len(grid.axes) - layout.split, 1)
    measured = {bits: float(error[row]) for bits, row in uniform.items()} or {
        bits: 10.0 ** (db / 10.0) - 1.0 for bits, db in ROUNDED_DB.items()
    }

    def alike(bits: int) -> float:
        near = min(measured, key=lambda known: abs(known - bits))
        return measured[near] * 10.0 ** (DB_PER_BIT * (near - bits) / 10.0) if bits < 16 else 0.0

    rounded = {bits: alike(bits) / layers for bits in range(2, 33)}
    pruned = (10.0 ** (PRUNED_DB / 10.0) - 1.0) / groups

    def guess(axis: Axis, option: Any) -> float:
        known = task.errors.get(axis.label)
        if axis.is_group:
            return known[option] if known else pruned * (option / 0.25) ** 2
        own = known[option] if known else rounded[option.weight_bits] * (1.0 + 4.0 * option.sparsity**2)
        return max(own, CLEAN / layers if option.rounded else 0.0)

    table = grid.values(guess)
    beyond = {  # what integer kernels lose beyond rounding, for each of the layers that run in them
        bits: _beyond_rounding(layout, vectors[row], float(error[row]), table) for bits, row in uniform.items()
    }
    if beyond:
        least = min(beyond.values())
        saturated = max(beyond.get(8, 0.0) - 2 * least, 0.0)  # processors without VNNI lose more at 8 bits
        table += grid.values(
            lambda axis, option: (
                0.0 if axis.is_group or not option.integer else least + saturated * (option.weight_bits == 8)
            )
        )
    return table


def _beyond_rounding(layout: Layout, vector: Vectors, error: float, table: Floats) -> float:
    axes = layout.grid.axes
    integers = sum(not axis.is_group and axis.options[i].integer for axis, i in zip(axes, vector, strict=True))  # type: ignore[union-attr]
    left = error - float(table[np.arange(len(vector)), vector].sum())
    return max(left, 0.02 * error, CLEAN) / max(integers, 1)
