"""python studies/benchmarks/proposals.py [--trials 1000] [--layers 60]

What does the frontier sampler itself take? A made-up task of that many layers, each with thirteen choices and a channel group
of five ratios, and as many measured trials. Prints the milliseconds of processor time for a proposal (the mean over enough of
them that the model is fitted anew several times, and the longest), and how many candidates a second the model predicts.
"""

from __future__ import annotations

import argparse
import itertools
import time

import numpy as np

from slimfront.search.additive import fitted
from slimfront.search.frontier import STEPS, Frontier
from slimfront.search.proposers import Observation, Point, Task
from slimfront.search.start import start_points
from slimfront.search.vectors import draw, mutate
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.space import Space

CHOICES = tuple(LayerChoice(w, a) for w in (2, 3, 4, 5, 6, 8, 32) for a in (8, 32) if w <= 8 or a == 32)
RATIOS = (0.0, 0.125, 0.25, 0.375, 0.5)
MANY = 20_000
REFITS = 4  # that the mean is taken over


def main() -> None:
    """Propose, predict and print."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--trials", type=int, default=1000)
    flags.add_argument("--layers", type=int, default=60)
    arguments = flags.parse_args()
    task = made_up(arguments.layers)
    frontier = Frontier(task)
    random = np.random.default_rng(0)
    history = [Observation(candidate, measured(task, candidate)) for _, candidate in start_points(task.space)]
    start = frontier.grid.encode(history[-1].candidate)
    near = mutate(frontier.grid.lengths, np.repeat([start], arguments.trials, axis=0), random, arguments.layers)
    known = (frontier.grid.decode(vector) for vector in near)
    history += [Observation(candidate, measured(task, candidate)) for candidate in known]
    history = history[: arguments.trials]

    seconds = []
    for _ in range(REFITS * max(arguments.trials // STEPS, 1)):
        begun = time.process_time()
        (candidate,) = frontier.propose(history, 1)
        seconds.append(time.process_time() - begun)
        history.append(Observation(candidate, measured(task, candidate)))

    vectors = np.array([frontier.grid.encode(observation.candidate) for observation in history])
    model = fitted(frontier.layouts[0], vectors, np.array([observation.point for observation in history]))
    many = draw(frontier.grid.lengths, random, MANY)
    begun = time.process_time()
    model.predict(many)
    rate = MANY / (time.process_time() - begun)
    print("| parameters | trials | ms a proposal, mean | longest | predictions a second |\n|---|---|---|---|---|")
    means = f"{1000 * np.mean(seconds):.0f} | {1000 * np.max(seconds):.0f}"
    print(f"| {len(frontier.grid.lengths)} | {arguments.trials} | {means} | {rate:,.0f} |")


def made_up(layers: int) -> Task:
    """Return a chain of layers of different sizes, works and errors."""
    random = np.random.default_rng(0)
    names = [f"layer{number}" for number in range(layers)]
    parameters = {name: int(10 ** random.uniform(3, 5)) for name in names}
    work = {name: int(10 ** random.uniform(6, 8)) for name in names}
    following = dict(itertools.pairwise(names))
    shares = {name: ({following[name]: 1.0} if name in following else {}, {name: 1.0}) for name in names}
    space = Space(dict.fromkeys(names, CHOICES), dict.fromkeys(names, RATIOS))
    errors = {}
    for axis in space.axes:
        scale = 10 ** random.uniform(-3, -1)
        errors[axis.label] = {
            option: 0.0
            if option == LayerChoice()
            else scale * (4.0 ** (3 - option.weight_bits))
            if isinstance(option, LayerChoice)
            else 4.0 * scale * option**2
            for option in axis.options
        }
    return Task(space, parameters, work, shares, errors)


def measured(task: Task, candidate: Candidate) -> Point:
    """Return the point of a candidate: the model's sums, each layer off by a factor of its own."""
    size = cost = error = before = 0.0
    for number, name in enumerate(task.parameters):
        choice, ratio = candidate.choice(name), candidate.ratio(name)
        kept = (1.0 - ratio) * (1.0 - before)
        size += kept * choice.weight_bits / 32 * task.parameters[name]
        cost += kept * (0.3 if choice.integer else 1.0) * task.work[name]
        error += task.errors[name][choice] * (0.5 + number % 3 / 2) + 0.005 * choice.integer
        error += task.errors[f"{name} pruning_ratio"][ratio] * (0.5 + number % 2)
        before = ratio
    whole = sum(task.parameters.values()), sum(task.work.values())
    return 0.02 + 0.98 * size / whole[0], 0.05 + 0.95 * cost / whole[1], float(10 * np.log10(1 + error) / 3)


if __name__ == "__main__":
    main()
