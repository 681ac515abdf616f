"""What every sampler keeps to."""

from dataclasses import replace

import numpy as np
import pytest

from slimfront.search.proposers import Observation, Task, make_proposer
from slimfront.search.start import start_points
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.space import Space
from slimfront.studies.definition import SAMPLERS

from .made_up import CHOICES, RATIOS, begin, make_task, measure


@pytest.fixture(params=SAMPLERS)
def sampler(request):
    return request.param


@pytest.mark.parametrize("known", [0, 1, 12])
def test_proposals_are_new_distinct_and_of_the_space(sampler, known):
    task = make_task()
    history = begin(task)[:known]
    proposals = make_proposer(sampler, task).propose(history, 3)
    assert len(set(proposals)) == 3
    assert not set(proposals) & {observation.candidate for observation in history}
    assert all(task.space.contains(candidate) for candidate in proposals)
    assert all(candidate.choice("held") == LayerChoice(8, 8) for candidate in proposals)


def test_proposals_follow_from_history_and_seed_alone(sampler):
    history = begin(make_task())
    first = make_proposer(sampler, make_task(seed=3))
    first.propose(history[:5], 2)
    assert first.propose(history, 2) == make_proposer(sampler, make_task(seed=3)).propose(history, 2)


def test_another_seed_begins_with_others(sampler):
    history = begin(make_task())[:1]
    proposals = {tuple(make_proposer(sampler, make_task(seed=seed)).propose(history, 3)) for seed in range(4)}
    assert len(proposals) > 1


def test_a_small_space_is_walked_to_its_end(sampler):
    task = make_task(layers=1)
    history = []
    while proposals := make_proposer(sampler, task).propose(history, 1):
        history.append(Observation(proposals[0], measure(proposals[0])))
    assert len(history) == task.space.size == len(CHOICES)


def test_a_history_outside_the_space_does_no_harm(sampler):
    task = make_task(choices=(LayerChoice(4, 8), LayerChoice(8, 8)))
    history = [Observation(Candidate(), (1.0, 1.0, 0.0)), Observation(Candidate({"conv.0": LayerChoice(4, 8)}), None)]
    assert len(make_proposer(sampler, task).propose(history, 2)) == 2


def test_nothing_but_failures_does_no_harm(sampler):
    task = make_task()
    history = [Observation(observation.candidate, None) for observation in begin(task)]
    assert len(make_proposer(sampler, task).propose(history, 2)) == 2


@pytest.mark.parametrize("point", [(0.5, 0.5, 0.0), (0.5, 0.5, 1.0)])
def test_an_objective_that_never_changes_does_no_harm(sampler, point):
    task = make_task()
    history = [
        Observation(observation.candidate, (measure(observation.candidate)[0], *point[1:]))
        for observation in begin(task)
    ]
    same = [Observation(observation.candidate, point) for observation in history]
    for told in (history, same):
        assert len(set(make_proposer(sampler, task).propose(told, 2))) == 2


def test_a_space_of_one_point_ends_with_it(sampler):
    task = make_task(layers=1, choices=(LayerChoice(4, 8),))
    (only,) = make_proposer(sampler, task).propose([], 3)
    assert task.space.contains(only)
    assert make_proposer(sampler, task).propose([Observation(only, measure(only))], 1) == []
    assert make_proposer(sampler, task).propose([Observation(only, None)], 1) == []


def test_options_that_depend_on_others_come_only_with_them(sampler):
    """Sparsity is offered with 8 bits alone: it is part of one choice, so that no proposal has it with other widths."""
    choices = (LayerChoice(4, 8), LayerChoice(8, 8), LayerChoice(8, 8, sparsity=0.5))
    task = make_task(choices=choices, ratios={})
    proposals = make_proposer(sampler, task).propose(begin(task), 10)
    chosen = [candidate.choice(name) for candidate in proposals for name in task.parameters if name != "held"]
    assert set(chosen) <= set(choices)
    assert len({candidate.key for candidate in proposals}) == 10


def test_frontier_refits_seldom_in_a_long_history_and_follows_from_it_all_the_same():
    task = make_task()
    history = begin(task, 12)
    proposer = make_proposer("frontier", task)
    while len(history) < 110:
        (candidate,) = proposer.propose(history, 1)
        history.append(Observation(candidate, measure(candidate)))
        if len(history) in (50, 101, 109):
            assert make_proposer("frontier", task).propose(history, 1) == proposer.propose(history, 1)


def test_frontier_proposes_what_keeps_the_limits():
    task = make_task(limits=(0.2, float("inf"), 0.5))
    history = [Observation(observation.candidate, measure(observation.candidate)) for observation in begin(task)]
    points = np.array([measure(candidate) for candidate in make_proposer("frontier", task).propose(history, 6)])
    assert (points[:, 0] <= 0.21).mean() >= 0.8
    assert (points[:, 2] <= 0.55).mean() >= 0.8


def test_frontier_reaches_more_hypervolume_than_random_search():
    from slimfront.studies.front import hypervolume

    reached = {}
    for sampler in ("frontier", "random"):
        task = make_task()
        history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(task.space)]
        while len(history) < 25:
            (candidate,) = make_proposer(sampler, task).propose(history, 1)
            history.append(Observation(candidate, measure(candidate)))
        reached[sampler] = hypervolume([observation.point for observation in history])
    assert reached["frontier"] > reached["random"] + 0.01


def test_frontier_recovers_a_planted_additive_model_with_interactions():
    """40 layers of seven widths whose neighbours' errors pull at each other: most of the front in 60 evaluations."""
    from slimfront.search.additive import fitted
    from slimfront.search.solve import solve
    from slimfront.search.vectors import draw
    from slimfront.studies.front import hypervolume

    random = np.random.default_rng(5)
    names = [f"conv.{i}" for i in range(40)]
    widths = tuple(LayerChoice(w, 32) for w in (2, 3, 4, 5, 6, 8, 32))
    parameters = dict(zip(names, (10 ** random.uniform(3, 5, 40)).astype(int).tolist(), strict=True))
    own = 10 ** random.uniform(-2.0, 0.5, 40)
    pulls = random.uniform(-0.5, 1.5, 39)
    guesses = own * 10 ** random.normal(0, 0.15, 40)

    def planted(candidate):
        bits = np.array([candidate.choice(name).weight_bits for name in names])
        errors = own * np.where(bits < 32, 4.0 ** (2 - bits), 0.0)
        error = errors.sum() + (pulls * np.sqrt(errors[:-1] * errors[1:])).sum()
        size = (bits * list(parameters.values())).sum() / (32 * sum(parameters.values()))
        return (size, 0.9, 10 * np.log10(1 + max(error, 0.0)) / 3)

    space = Space(dict.fromkeys(names, widths))
    errors = {
        name: {choice: guess * (4.0 ** (2 - choice.weight_bits) if choice.rounded else 0.0) for choice in widths}
        for name, guess in zip(names, guesses, strict=True)
    }
    task = Task(space, parameters, parameters, {}, errors)
    history = [Observation(candidate, planted(candidate)) for _, candidate in start_points(space)]
    proposer = make_proposer("frontier", task)
    while len(history) < 60:
        (candidate,) = proposer.propose(history, 1)
        history.append(Observation(candidate, planted(candidate)))
    vectors = draw(proposer.grid.lengths, random, 4000)
    points = np.array([planted(proposer.grid.decode(vector)) for vector in vectors])
    taught = fitted(proposer.layouts[0], vectors, points)  # what a hundred times as many evaluations would tell
    best = solve(taught, proposer.grid.lengths, vectors[:1], random, sweeps=2000)
    reachable = hypervolume([planted(proposer.grid.decode(vector)) for vector in best.pool])
    assert hypervolume([observation.point for observation in history]) > 0.95 * reachable
    assert hypervolume(points[:60]) < 0.7 * reachable


def test_frontier_reaches_more_with_pruning_ratios_than_without():
    from slimfront.studies.front import hypervolume

    reached = []
    for ratios in (RATIOS, {}):
        task = make_task(ratios=ratios)
        history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(task.space)]
        while len(history) < 25:
            (candidate,) = make_proposer("frontier", task).propose(history, 1)
            history.append(Observation(candidate, measure(candidate)))
        reached.append(hypervolume([observation.point for observation in history]))
    assert reached[0] > reached[1] + 0.02


def test_twins_are_front_members_repaired_in_order_each_once():
    from slimfront.search.twins import sequential_twin

    task = make_task()
    history = begin(task, 20)
    found = []
    while twin := sequential_twin(history, (1, 1, 1)):
        size, time, drop = next(o.point for o in history if o.candidate == replace(twin, repair="static"))
        history.append(Observation(twin, (size, time, 0.6 * drop)))
        found.append(twin)
    assert len(set(found)) == len(found) > 0
    assert all(twin.repair == "sequential" for twin in found)
    assert all(task.space.contains(replace(twin, repair="static")) for twin in found)
    assert not any(
        task.space.contains(twin) for twin in found
    )  # so that no sampler takes its point for the static one's
