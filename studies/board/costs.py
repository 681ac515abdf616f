"""What each layer of a candidate costs: its part of the error that is predicted at the model's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...spaces.candidate import Candidate

if TYPE_CHECKING:
    from ...spaces.sensitivity import Sensitivity
    from ..strip import Network


def layer_errors(candidate: Candidate, network: Network, found: Sensitivity) -> dict[str, float]:
    """Return the predicted mean squared error of each layer's bits, sparsity and removed channels, without repair or training.

    The error of a channel group's ratio is divided among the layers that lose channels by it.

    Args:
        candidate: of the network's base.
        network: names its layers and groups.
        found: the sensitivities of that base.
    """
    errors = {layer: found.error(layer, candidate.choice(layer)) for layer in network.layers}
    for group in network.groups:
        losers = [layer for layer in network.layers if network.shares.get(layer, {}).get(group)]
        for layer in losers:
            errors[layer] += found.error(group, candidate.ratio(group)) / len(losers)
    return errors


def parts(errors: Mapping[str, float]) -> dict[str, float]:
    """Return errors as parts of their sum; nothing where there is none."""
    total = float(np.sum(list(errors.values())))
    return {name: error / total for name, error in errors.items()} if total > 0.0 else {}
