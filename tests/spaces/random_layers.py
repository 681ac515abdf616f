"""Random weights and inputs of small layers, for what is tested on a layer's rows and its Gram matrix alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st


def weights_and_inputs(seed: int, rows: int, inputs: int, samples: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [R, D] and correlated, clipped inputs [M, D]."""
    random = np.random.default_rng(seed)
    weights = (scale * random.standard_normal((rows, inputs))).astype(np.float32)
    return weights, np.maximum(random.standard_normal((samples, inputs)) @ random.standard_normal((inputs, inputs)), 0)


def layers_of(make: Callable[..., Any]) -> st.SearchStrategy:
    """Return layers that ``make`` makes of (seed, rows, inputs, samples, scale)."""
    return st.builds(
        make,
        seed=st.integers(0, 10**6),
        rows=st.integers(1, 6),
        inputs=st.integers(1, 24),
        samples=st.sampled_from([1, 3, 30, 300]),
        scale=st.sampled_from([1e-4, 1.0, 1e3]),
    )
