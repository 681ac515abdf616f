"""A made-up task and model that samplers are tried on."""

import numpy as np

from slimfront.search.proposers import Observation, Task, make_proposer
from slimfront.search.start import start_points
from slimfront.spaces.candidate import LayerChoice
from slimfront.spaces.space import Space

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
