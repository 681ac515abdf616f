"""The least sum of cost tables over variables of two values, exactly, for many instances at once.

Variables are eliminated one after another: the tables that know one are added up, and its better value is kept for each
setting of its neighbours (Bertele and Brioschi, Nonserial Dynamic Programming, 1972). The work grows with the width of the
order, the most variables that are in one table: small where a graph is narrow, as networks are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

WIDEST = 20  # variables in one table; where more would be, some are guessed, and the sum may not be the least
AT_ONCE = 2**22  # entries of a table, over all instances that are solved together


@dataclass(frozen=True)
class Table:
    """Costs of some variables' values.

    Attributes:
        variables: their numbers.
        costs: one axis of 2 for each of them; infinite where values exclude each other.
        weight: column of the instances' weights by which it is multiplied; None where all count the same.
    """

    variables: tuple[int, ...]
    costs: Floats
    weight: int | None = None


@dataclass(frozen=True)
class _Term:
    """A table with its known variables taken out: those that are told come first, free ones follow in rising order."""

    told: tuple[int, ...]
    free: tuple[int, ...]
    costs: Floats
    weight: int | None


@dataclass(frozen=True)
class _Step:
    """One variable leaves: the messages and terms that know it, and the neighbours that it is then a function of."""

    variable: int
    scope: tuple[int, ...]
    terms: tuple[int, ...]
    messages: tuple[int, ...]


class Elimination:
    """A sum of tables.

    Args:
        count: of variables.
        tables: over them.
        told: variables whose values are told for each instance.
        fixed: values of variables that are the same in all.

    Attributes:
        guessed: variables without which no table gets wider than ``WIDEST``. All are tried at 0 and all at 1, and the better
            is taken; where there are none, as in all but densely connected graphs, no values cost less than those found.
    """

    def __init__(
        self,
        count: int,
        tables: Sequence[Table],
        told: Sequence[int] = (),
        fixed: Mapping[int, int] | None = None,
    ) -> None:
        self.count = count
        self.fixed = dict(fixed or {})
        known = {*told, *self.fixed}
        order, scopes, guessed = _order([set(table.variables) - known for table in tables])
        self.guessed = tuple(guessed)
        self.told = {variable: column for column, variable in enumerate((*told, *guessed))}
        every = [self._term(table) for table in tables]
        self.terms = [term for term in every if term.free]
        self.constant = [term for term in every if not term.free] if guessed else []  # tells guesses apart
        self.steps = self._steps(order, scopes)

    def solve(self, told: NDArray[np.int64], weights: Floats) -> NDArray[np.int8]:
        """Return the values that cost least, the lower value between equal ones.

        Args:
            told: values of the told variables ``[M, told]``.
            weights: of the tables ``[M, weights]``.

        Returns:
            Values of all variables ``[M, count]``; 0 of those that no table knows.
        """
        widest = max((len(step.scope) for step in self.steps), default=0) + 1
        rows = max(AT_ONCE >> widest, 1)
        parts = [
            self._guess(told[start : start + rows], weights[start : start + rows])
            for start in range(0, max(len(told), 1), rows)
        ]
        return np.concatenate(parts)

    def _guess(self, told: NDArray[np.int64], weights: Floats) -> NDArray[np.int8]:
        """Return the values of some instances; the better of both guesses where there is something to guess."""
        found = [
            self._solve(
                np.concatenate([told, np.full((len(told), len(self.guessed)), guess, np.int64)], axis=1), weights
            )
            for guess in ((0, 1) if self.guessed else (0,))
        ]
        values, cost = found[0]
        for others, other_cost in found[1:]:
            values = np.where((other_cost < cost)[:, None], others, values)
        return values

    def _solve(self, told: NDArray[np.int64], weights: Floats) -> tuple[NDArray[np.int8], Floats]:
        """Return the values, and what they cost beside tables that are the same for all guesses."""
        rows = np.arange(len(told))
        cost = np.zeros(len(told))
        for term in self.constant:
            cost = cost + self._costs(term, told, weights)
        messages: dict[int, Floats] = {}  # until they are read
        better: list[NDArray[np.bool_]] = []
        for place, step in enumerate(self.steps):
            joined = np.zeros((1,) + (2,) * (len(step.scope) + 1))
            inner = tuple(sorted((*step.scope, step.variable)))
            for number in step.terms:
                joined = joined + _spread(
                    self._costs(self.terms[number], told, weights), self.terms[number].free, inner
                )
            for number in step.messages:
                joined = joined + _spread(messages.pop(number), self.steps[number].scope, inner)
            axis = 1 + inner.index(step.variable)
            zero, one = np.take(joined, 0, axis), np.take(joined, 1, axis)
            better.append(one < zero)
            messages[place] = np.minimum(zero, one)
            if not step.scope:
                cost = cost + messages.pop(place)
        values = np.zeros((len(told), self.count), np.int8)
        for variable, value in self.fixed.items():
            values[:, variable] = value
        for variable, column in self.told.items():
            values[:, variable] = told[:, column]
        for step, one in zip(reversed(self.steps), reversed(better), strict=True):
            row = rows if len(one) == len(told) else np.zeros(len(told), np.int64)
            values[:, step.variable] = one[(row, *(values[:, other] for other in step.scope))]
        return values, cost

    def _term(self, table: Table) -> _Term:
        known = tuple(self.fixed[variable] if variable in self.fixed else slice(None) for variable in table.variables)
        left = [variable for variable in table.variables if variable not in self.fixed]
        told = [variable for variable in left if variable in self.told]
        free = sorted(variable for variable in left if variable not in self.told)
        costs = table.costs[known].transpose([left.index(variable) for variable in (*told, *free)])
        return _Term(tuple(self.told[variable] for variable in told), tuple(free), costs, table.weight)

    def _costs(self, term: _Term, told: NDArray[np.int64], weights: Floats) -> Floats:
        """Return a term's costs ``[M or 1, 2, ...]`` over its free variables."""
        costs = term.costs[tuple(told[:, column] for column in term.told)] if term.told else term.costs[None]
        if term.weight is None:
            return costs
        weight = weights[:, term.weight].reshape(-1, *[1] * len(term.free))
        return np.multiply(costs, weight, out=np.full(np.broadcast_shapes(costs.shape, weight.shape), np.inf),
                           where=np.isfinite(costs))  # fmt: skip

    def _steps(self, order: Sequence[int], scopes: Mapping[int, tuple[int, ...]]) -> list[_Step]:
        place = {variable: number for number, variable in enumerate(order)}
        terms: dict[int, list[int]] = {variable: [] for variable in order}
        for number, term in enumerate(self.terms):
            terms[min(term.free, key=place.__getitem__)].append(number)
        messages: dict[int, list[int]] = {variable: [] for variable in order}
        for number, variable in enumerate(order):
            if scopes[variable]:
                messages[min(scopes[variable], key=place.__getitem__)].append(number)
        return [_Step(v, scopes[v], tuple(terms[v]), tuple(messages[v])) for v in order]


def _order(scopes: Sequence[set[int]]) -> tuple[list[int], dict[int, tuple[int, ...]], list[int]]:
    """Return an order of elimination, the neighbours that each variable has then, and variables to guess beforehand.

    Always the variable with the fewest neighbours is next.
    """
    guessed: list[int] = []
    neighbours: dict[int, set[int]] = {}
    for scope in scopes:
        for variable in scope:
            neighbours.setdefault(variable, set()).update(scope - {variable})
    left = {variable: set(near) for variable, near in neighbours.items()}
    order: list[int] = []
    found: dict[int, tuple[int, ...]] = {}
    while left:
        variable = min(left, key=lambda v: (len(left[v]), v))
        near = left.pop(variable)
        if len(near) >= WIDEST:
            guessed.append(max((variable, *near), key=lambda v: (len(neighbours[v]), v)))
            again = [scope - set(guessed) for scope in scopes]
            order, found, more = _order(again)
            return order, found, [*guessed, *more]
        for other in near:
            left[other] |= near - {other}
            left[other].discard(variable)
        order.append(variable)
        found[variable] = tuple(sorted(near))
    return order, found, guessed


def _spread(costs: Floats, scope: Sequence[int], wanted: Sequence[int]) -> Floats:
    """Return costs over a scope as costs over a wider one; both are in rising order."""
    shape = [2 if variable in scope else 1 for variable in wanted]
    return costs.reshape(len(costs), *shape)
