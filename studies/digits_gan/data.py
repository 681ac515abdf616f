"""Noise and the digits to draw: the generator's two inputs.

There is no true picture of a noise: a candidate is judged by its fidelity, against what the reference draws. Calibration,
evaluation and test data are drawn from generators of their own.
"""

import numpy as np
from numpy.typing import NDArray

from slimfront.studies.digits_gan.model import DIGITS, NOISE

SAMPLES = 80  # every digit eight times
CALIBRATION_SAMPLES = 2400  # a sample has one pixel where the generator begins


def calibration() -> dict[str, NDArray]:
    """`noise`, float32 [2400, 64], and `digit`, one-hot, float32 [2400, 10]: 0 to 9 in turn; `group`, the digit, int64 [2400]."""
    return drawn(CALIBRATION_SAMPLES, seed=1)


def evaluation() -> dict[str, NDArray]:
    """As `calibration`, 80 samples of other noise."""
    return drawn(SAMPLES, seed=2)


def test() -> dict[str, NDArray]:
    """As `evaluation`, of other noise again."""
    return drawn(SAMPLES, seed=3)


def drawn(count: int, seed: int) -> dict[str, NDArray]:
    """So many samples: standard normal `noise`, and `digit`, from 0 to 9 in turn, which is their `group` as well."""
    noise, group = np.random.default_rng(seed).standard_normal((count, NOISE)), np.arange(count) % DIGITS
    return {"noise": noise.astype(np.float32), "digit": np.eye(DIGITS, dtype=np.float32)[group], "group": group}
