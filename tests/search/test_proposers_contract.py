"""What every sampler keeps to."""

from dataclasses import replace

import numpy as np
import pytest

from slimfront.search.proposers import Observation, Task, make_proposer
from slimfront.search.start import start_points
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.space import Space
from slimfront.studies.definition import SAMPLERS

CHOICES = tuple(LayerChoice(w, a) for w in (2, 4, 8, 32) for a in (8, 32) if w <= 8 or a == 32)
PARAMETERS = {f"conv.{i}": 1000 * 2**i for i in range(4)}


RATIOS = {f"conv.{i}": (0.0, 0.25, 0.5) for i in range(3)}
SHARES = {name: ({f"conv.{i + 1}": 1.0}, {name: 1.0}) for i, name in enumerate(RATIOS)}


def make_task(layers=4, choices=CHOICES, ratios=RATIOS, **changes):
    names = list(PARAMETERS)[:layers]
    held = {"held": (LayerChoice(8, 8),)}
    ratios = {name: options for name, options in ratios.items() if int(name[-1]) < layers - 1}
    space = Space(dict.fromkeys(names, choices) | held, ratios)
    return Task(space, PARAMETERS | {"held": 10}, PARAMETERS, SHARES, **changes)


def measure(candidate):
    """A made-up model: a chain whose sizes and times go with the channels that stay, and whose errors add up."""
    total = sum(PARAMETERS.values())
    size = time = error = 0.0
    for i, (name, parameters) in enumerate(PARAMETERS.items()):
        choice, ratio = candidate.choice(name), candidate.ratio(name)
        kept = (1 - ratio) * (1 - candidate.ratio(f"conv.{i - 1}"))
        size += kept * choice.weight_bits * parameters / (32 * total)
        time += kept * (0.25 if choice.integer else 1.0) / len(PARAMETERS)
        error += 4.0**-choice.weight_bits * 20 + 0.01 * choice.integer + 0.4 * ratio**2 * (1 + i)
    return (0.05 + 0.95 * size, 0.05 + 0.95 * time, 10 * np.log10(1 + error) / 3)


def begin(task, count=12):
    """A history: the starting points, random ones, and a failure."""
    random = make_proposer("random", task)
    history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(task.space)]
    for candidate in random.propose(history, count - len(history)):
        history.append(Observation(candidate, measure(candidate), violation=float(len(history) % 2)))
    history[-1] = Observation(history[-1].candidate, None)
    return history


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
