"""A cost model for any Optuna study: what each choice of each parameter is thought to add to the objectives."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import InputError
from .chain import best_chain
from .solve import Costs
from .sums import Guess, Sums

Floats = NDArray[np.float64]
Vectors = NDArray[np.int64]

OBJECTIVES = 3  # at most, as the expected gain of hypervolume is worked out in three dimensions
SCALES = (0.003, 0.02, 0.1, 0.3)  # of what sums miss, in parts of the objective's spread
ROOM = 3.0  # standard deviations of the objective by which the part that no parameter is to blame for may move


class CostModel(Protocol):
    """What `FrontierSampler` is made with.

    Attributes:
        choices: by parameter, what it can be; neighbours stand next to each other.
        objectives: how many it tells, at most three.
    """

    choices: Mapping[str, Sequence[Any]]
    objectives: int

    def fit(self, vectors: Vectors, values: Floats, signs: Sequence[float]) -> Costs:
        """Return the model as measurements correct it; it tells 0, surely, of objectives beyond its own.

        Args:
            vectors: of finished trials ``[M, L]``, the places of their choices, -1 where a parameter was not asked for.
            values: of their objectives, times the signs ``[M, objectives]``.
            signs: by objective, 1 where it is minimised, -1 where it is maximised.
        """
        ...


class AdditiveCosts:
    """Objectives that are sums over the parameters' choices, each parameter's part known but for a factor.

    Factors, the part that no parameter is to blame for, and what neighbouring parameters add together are learned.

    Args:
        tables: by parameter and choice, what is thought to be added to each objective: a number, or one for each of up to
            three objectives. Only ratios between a parameter's choices, and between parameters, have to be nearly right.

    Raises:
        InputError: no parameters, a parameter without choices, a number that is not finite, or unequal numbers of them.

    Example:
        Two objectives, size and error, of two layers::

            costs = AdditiveCosts({
                "conv1.bits": {4: (400, 0.020), 8: (800, 0.001)},
                "conv2.bits": {4: (900, 0.007), 8: (1800, 0.0005)},
            })
            study = optuna.create_study(directions=["minimize"] * 2, sampler=FrontierSampler(costs, seed=0))
    """

    def __init__(self, tables: Mapping[str, Mapping[Any, float | Sequence[float]]]) -> None:
        self.choices: dict[str, tuple[Hashable, ...]] = {name: tuple(table) for name, table in tables.items()}
        if not self.choices or not all(self.choices.values()):
            raise InputError("the cost tables need at least one parameter, and each at least one choice")
        rows = {name: np.array([np.atleast_1d(np.asarray(v, float)) for v in t.values()]) for name, t in _even(tables)}
        widths = sorted({row.shape[1] for row in rows.values()})
        if len(widths) != 1 or widths[0] > OBJECTIVES:
            raise InputError(
                f"every choice needs a number for each objective, at most {OBJECTIVES}, but there are {widths} of them"
            )
        wrong = next((name for name, row in rows.items() if not np.isfinite(row).all()), None)
        if wrong is not None:
            raise InputError(f"the costs of {wrong!r} must be finite numbers, but got {dict(tables[wrong])}")
        most = max(map(len, rows.values()))
        self.objectives = widths[0]
        self.tables = np.zeros((self.objectives, len(rows), most + 1))  # the last choice: not asked for, adds nothing
        for axis, row in enumerate(rows.values()):
            self.tables[:, axis, : len(row)] = row.T
        self.valid = np.arange(most + 1) < np.array([[len(row)] for row in rows.values()])

    def fit(self, vectors: Vectors, values: Floats, signs: Sequence[float]) -> Costs:
        """Return the sums as measurements correct them; see `CostModel`."""
        turned = self.tables * np.asarray(signs)[:, None, None]
        return _Fitted(turned, self.valid, np.where(vectors < 0, self.tables.shape[2] - 1, vectors), values)


def _even(tables: Mapping[str, Mapping[Any, float | Sequence[float]]]) -> list[tuple[str, Mapping[Any, Any]]]:
    """Return the tables by name. Raises `InputError` where the choices of one have unequal numbers of costs."""
    for name, table in tables.items():
        if len({np.size(value) for value in table.values()}) != 1:
            raise InputError(f"the choices of {name!r} have unequal numbers of costs: {dict(table)}")
    return list(tables.items())


class _Fitted:
    """Sums for each objective, and what the axes' least costs and the base add to them."""

    def __init__(self, tables: Floats, valid: NDArray[np.bool_], vectors: Vectors, values: Floats) -> None:
        self.valid = valid
        objectives, axes, options = tables.shape
        self.scale, self.shift = np.ones(objectives), np.zeros(objectives)
        self.sums: list[Sums] = []
        first = np.arange(axes - 1)
        links = np.stack([first, first + 1], axis=1)
        for objective, own in enumerate(tables):
            table = _from_zero(own, valid)
            thought = table[np.arange(axes), vectors].sum(axis=1)
            alone = float(np.sqrt(sum(np.var(row[some]) for row, some in zip(table, valid, strict=True)))) or 1.0
            factor, base, spread = _line(thought, values[:, objective], alone)
            room = ROOM * spread
            self.scale[objective], self.shift[objective] = spread, base - room
            guess = np.vstack([factor * table, np.full(options, room)])
            target = values[:, objective] - self.shift[objective]
            self.sums.append(Sums(Guess(guess, links), _based(vectors), target, np.full(len(target), spread), SCALES))

    def predict(self, vectors: Vectors) -> Floats:
        """Return the expected objectives ``[M, 3]``."""
        return in_three(np.stack([sums.predict(_based(vectors)) for sums in self.sums], axis=1) + self.shift)

    def spread(self, vectors: Vectors) -> Floats:
        """Return standard deviations ``[M, 3]``."""
        noise = self.scale * [sums.posterior.noise for sums in self.sums]
        return in_three(np.hypot(np.stack([sums.spread(_based(vectors)) for sums in self.sums], axis=1), noise))

    def novelty(self, vectors: Vectors) -> Floats:
        """Return how little the choices of candidates were measured ``[M]``."""
        return self.sums[0].novelty(_based(vectors))

    def canonical(self, vectors: Vectors) -> Vectors:
        """Return the vectors: each candidate has one."""
        return vectors

    def sweep(self, random: np.random.Generator, count: int, starts: Vectors) -> Vectors:
        """Return candidates ``[count, L]`` that are exactly best for random weights of the objectives."""
        weights = 10.0 ** random.uniform(-2.0, 1.0, size=(count, len(self.sums))) / self.scale
        own = np.einsum("wd,dak->wak", weights, np.array([sums.table[:-1] for sums in self.sums]))

        def together(place: int) -> Floats | None:
            pairs = np.array([sums.together(place) for sums in self.sums])
            return np.einsum("wd,dkj->wkj", weights, pairs) if pairs.any() else None

        return best_chain(np.where(self.valid, own, np.inf), together)


def _based(vectors: Vectors) -> Vectors:
    """Return vectors with an axis more, of one option: what no parameter is to blame for."""
    return np.column_stack([vectors, np.zeros(len(vectors), np.int64)])


def in_three(values: Floats) -> Floats:
    """Return values ``[M, objectives]`` with 0 for those that lack to three ``[M, 3]``."""
    return np.pad(values, ((0, 0), (0, OBJECTIVES - values.shape[1])))


def _from_zero(table: Floats, valid: NDArray[np.bool_]) -> Floats:
    """Return a table whose least entry of each axis is 0; the last, of what was not asked for, as well."""
    least = np.where(valid, table, np.inf).min(axis=1)[:, None]
    return np.where(valid, table - least, 0.0)


def _line(thought: Floats, values: Floats, alone: float) -> tuple[float, float, float]:
    """Return a positive factor and a base that bring what was thought near to the values, and the values' spread.

    Args:
        thought, values: of what was measured ``[M]``.
        alone: the spread where the values tell none.
    """
    if len(values) < 2 or np.ptp(values) == 0.0:
        return 1.0, float((values - thought).mean()) if len(values) else 0.0, alone
    spread = float(np.std(values))
    reach = float(np.var(thought))
    factor = float(np.cov(thought, values, bias=True)[0, 1]) / reach if reach > 0.0 else 1.0
    if factor <= 0.0:  # the data contradict it: as wide as they are
        factor = spread / np.sqrt(reach)
    return factor, float(values.mean() - factor * thought.mean()), spread
