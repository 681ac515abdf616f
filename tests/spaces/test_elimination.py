"""The least sum of tables, against trying all values."""

from __future__ import annotations

import itertools

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces import elimination
from slimfront.spaces.elimination import Elimination, Table


def cost(tables, values, weights) -> float:
    return sum(
        table.costs[tuple(values[v] for v in table.variables)]
        * (1.0 if table.weight is None else weights[table.weight])
        for table in tables
        if table.weight is None or np.isfinite(table.costs[tuple(values[v] for v in table.variables)])
    )


@st.composite
def problems(draw):
    """Some tables over up to seven variables, some of them told or fixed, and instances."""
    count = draw(st.integers(1, 7))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tables = []
    for _ in range(draw(st.integers(1, 10))):
        variables = tuple(random.permutation(count)[: random.integers(1, min(count, 3) + 1)].tolist())
        costs = random.uniform(0, 1, (2,) * len(variables))
        tables.append(Table(variables, costs, int(random.integers(3)) if random.random() < 0.5 else None))
    known = random.permutation(count)[: random.integers(0, count)].tolist()
    told, fixed = known[::2], {variable: int(random.integers(2)) for variable in known[1::2]}
    instances = draw(st.integers(1, 5))
    return (
        count,
        tables,
        told,
        fixed,
        random.integers(0, 2, (instances, len(told))),
        random.uniform(0, 2, (instances, 3)),
    )


@given(problems())
@settings(deadline=None, max_examples=200)
def test_no_values_cost_less(problem):
    count, tables, told, fixed, values, weights = problem
    found = Elimination(count, tables, told, fixed).solve(values, weights)
    assert found.shape == (len(values), count)
    for row, value, weight in zip(found, values, weights, strict=True):
        assert [row[v] for v in told] == value.tolist() and all(row[v] == each for v, each in fixed.items())
        every = (
            each
            for each in itertools.product([0, 1], repeat=count)
            if [each[v] for v in told] == value.tolist() and all(each[v] == one for v, one in fixed.items())
        )
        assert cost(tables, row, weight) == pytest.approx(min(cost(tables, each, weight) for each in every))


def test_values_that_exclude_each_other_are_never_found_whatever_the_weight():
    tables = [Table((0, 1), np.array([[0.0, np.inf], [np.inf, 0.0]]), 0), Table((0,), np.array([1.0, 0.0]))]
    found = Elimination(2, tables, told=[1]).solve(np.array([[0], [1]]), np.array([[0.5], [2.0]]))
    assert found.tolist() == [[0, 0], [1, 1]]


def test_equal_costs_give_the_lower_value():
    assert Elimination(2, [Table((0, 1), np.ones((2, 2)))]).solve(np.zeros((1, 0), int), np.ones((1, 0))).tolist() == [
        [0, 0]
    ]


def test_many_instances_are_solved_in_parts(monkeypatch):
    random = np.random.default_rng(0)
    tables = [Table((n, n + 1), random.uniform(0, 1, (2, 2)), n) for n in range(6)]
    weights = random.uniform(0, 1, (50, 6))
    whole = Elimination(7, tables).solve(np.zeros((50, 0), int), weights)
    monkeypatch.setattr(elimination, "AT_ONCE", 16)
    assert np.array_equal(Elimination(7, tables).solve(np.zeros((50, 0), int), weights), whole)


def test_a_wide_problem_gets_good_values_without_a_table_that_does_not_fit(monkeypatch):
    """All variables know each other: beyond the width some are guessed, all at 0 and all at 1; the rest is the least."""
    monkeypatch.setattr(elimination, "WIDEST", 4)
    random = np.random.default_rng(0)
    pairs = [Table(pair, random.uniform(0, 1, (2, 2)), 0) for pair in itertools.combinations(range(9), 2)]
    problem = Elimination(9, pairs, told=[8])
    assert 3 <= len(problem.guessed) < 6 and max(len(step.scope) for step in problem.steps) < 4
    told, weights = np.array([[0], [1]]), np.array([[1.0], [2.0]])
    found = problem.solve(told, weights)
    free = [v for v in range(8) if v not in problem.guessed]
    for row, value, weight in zip(found, told[:, 0], weights, strict=True):
        every = []
        for guess in (0, 1):
            for bits in itertools.product([0, 1], repeat=len(free)):
                values = np.full(9, guess)
                values[free], values[8] = bits, value
                every.append(cost(pairs, values, weight))
        assert row[8] == value
        assert cost(pairs, row, weight) == pytest.approx(min(every))


def test_a_wide_problem_whose_least_is_uniform_is_solved_exactly(monkeypatch):
    monkeypatch.setattr(elimination, "WIDEST", 3)
    pairs = [Table(pair, np.array([[0.0, 1.0], [1.0, 0.1]])) for pair in itertools.combinations(range(8), 2)]
    assert not Elimination(8, pairs).solve(np.zeros((1, 0), int), np.zeros((1, 0))).any()


def test_a_long_chain_is_a_minimum_cut():
    """Where pairs cost only when they differ, the least sum is a minimum cut; here of 300 nodes in a ladder."""
    random = np.random.default_rng(0)
    network, tables = networkx.DiGraph(), []
    for node in range(300):
        low, high = random.integers(0, 50, 2).tolist()
        tables.append(Table((node,), np.array([float(low), float(high)])))
        network.add_edge("zero", node, capacity=high)
        network.add_edge(node, "one", capacity=low)
        for other in (node + 1, node + 2):
            if other < 300:
                there, back = random.integers(0, 50, 2).tolist()
                tables.append(Table((node, other), np.array([[0.0, there], [back, 0.0]])))
                network.add_edge(node, other, capacity=there)
                network.add_edge(other, node, capacity=back)
    found = Elimination(300, tables).solve(np.zeros((1, 0), int), np.zeros((1, 0)))[0]
    assert cost(tables, found, ()) == networkx.minimum_cut_value(network, "zero", "one")
