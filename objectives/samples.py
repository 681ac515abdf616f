"""Samples that a model is judged on: inputs, and targets where there are some."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Samples:
    """Inputs by name, each ``[N, ...]``, and the pictures that the model should make of them.

    Attributes:
        inputs: in the model's own input range.
        target: float32 ``[N, C, H, W]`` in ``low..high``, or None where there is no truth.
        low: black in the model's output.
        high: white in the model's output.
    """

    inputs: dict[str, NDArray]
    target: NDArray[np.float32] | None = None
    low: float = 0.0
    high: float = 1.0

    @property
    def count(self) -> int:
        """Number of samples."""
        return len(next(iter(self.inputs.values())))
