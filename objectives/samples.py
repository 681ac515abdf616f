"""Samples that a model is judged on: inputs, and targets where there are some."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GLANCED = 2  # samples that are looked at before all others


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each ``[N, ...]``, and the pictures that the model should make of them.

    Attributes:
        inputs: in the model's own input range.
        target: float32 ``[N, C, H, W]`` in ``low..high``, or None where there is no truth.
        low: black in the model's output.
        high: white in the model's output.
        group: what each sample belongs to, whole numbers or texts ``[N]`` (a style, a class); None where nothing is known.
    """

    inputs: dict[str, NDArray]
    target: NDArray[np.float32] | None = None
    low: float = 0.0
    high: float = 1.0
    group: NDArray | None = None

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))

    def first(self, count: int) -> Samples:
        """Return the first few samples."""
        target = None if self.target is None else self.target[:count]
        group = None if self.group is None else self.group[:count]
        return Samples({name: array[:count] for name, array in self.inputs.items()}, target, self.low, self.high, group)

    def glanced(self, batch: int) -> int:
        """Return how many samples are looked at before all others, in whole batches; 0 where they are most of them."""
        count = batch * math.ceil(GLANCED / batch)
        return count if 2 * count <= self.count else 0
