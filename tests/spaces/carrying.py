"""What the networks share in which values are moved between integer layers: names of layers, and weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ALL = ("head", "body", "low", "up", "mix", "tail")
BIASES = ((0, 16), (2, 16), (3, 8), (5, 3))  # number of the layer, and channels


def weights(weight: Callable[..., np.ndarray]) -> dict[str, np.ndarray]:
    """Return w0 to w5, and biases, of layers that read images of 3 channels."""
    shapes = ((16, 3, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3), (16, 8, 4, 4), (16, 24, 1, 1), (3, 4, 3, 3))
    found = {f"w{number}": weight(*shape, seed=number) for number, shape in enumerate(shapes)}
    return found | {f"b{number}": weight(size, 1, seed=number)[:, 0] for number, size in BIASES}
