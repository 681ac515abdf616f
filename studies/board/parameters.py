"""What points of the board are coloured and brushed by: the parameters of candidates as columns of numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...spaces.candidate import Candidate
from ..strip import Network

if TYPE_CHECKING:
    from ..trial import Trial

LAYER, GROUP = "layer:", "group:"  # how the names of columns begin that are a layer's bits or a group's ratio
SHAPES = {
    "bits": "mean weight bits",
    "integer": "part of layers in integer kernels",
    "pruned": "mean pruning ratio",
}


def parameter_names(networks: Sequence[Network]) -> dict[str, str]:
    """Return the columns that `column` makes, and what they are called: shapes first, then layers and groups of a network."""
    layers = {name: None for network in networks for name in network.layers}
    groups = {name: None for network in networks for name in network.groups}
    bits = {LAYER + name: f"weight bits of {name}" for name in layers}
    return SHAPES | bits | {GROUP + name: f"pruning ratio of {name}" for name in groups}


def column(name: str, trials: Sequence[Trial], network: Callable[[str], Network]) -> list[float]:
    """Return a parameter of each trial's candidate; NaN where its network has no such layer or group.

    Args:
        name: of `parameter_names`.
        trials: whose candidates are asked.
        network: of a base.
    """
    if name in SHAPES:
        return [shape_of(trial.candidate, network(trial.candidate.base))[name] for trial in trials]
    kind, _, part = name.partition(":")
    known = {base: part in _parts(network(base), kind) for base in {trial.candidate.base for trial in trials}}
    value = _bits if kind + ":" == LAYER else _ratio
    return [value(trial.candidate, part) if known[trial.candidate.base] else np.nan for trial in trials]


def shape_of(candidate: Candidate, network: Network) -> dict[str, float]:
    """Return the columns of `SHAPES` of a candidate: what it does not name is uncompressed."""
    choices, count = list(candidate.layers.values()), max(len(network.layers), len(candidate.layers), 1)
    groups = len(network.groups)
    return {
        "bits": (sum(choice.weight_bits for choice in choices) + 32.0 * (count - len(choices))) / count,
        "integer": sum(choice.integer for choice in choices) / count,
        "pruned": sum(candidate.groups.values()) / groups if groups else 0.0,
    }


def _parts(network: Network, kind: str) -> Sequence[str]:
    return network.layers if kind + ":" == LAYER else network.groups


def _bits(candidate: Candidate, layer: str) -> float:
    return float(candidate.choice(layer).weight_bits)


def _ratio(candidate: Candidate, group: str) -> float:
    return float(candidate.ratio(group))
