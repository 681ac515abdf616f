"""Latents of digits, with the digits themselves as targets.

The digits, and which of them train, calibrate, evaluate and test, are those of `digits_vae`. The latents are what the trained
recurrent encoder said of them (train.py writes latents.safetensors). Nothing is downloaded.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from slimfront.studies.digits_vae.digits import digits

LATENTS = Path(__file__).parent / "latents.safetensors"


def calibration() -> dict[str, NDArray]:
    """Training digits: `input`, float32 [1397, 16], their latents, and `target`, uint8 [1397, 1, 32, 32]."""
    return _pairs("training")


def evaluation() -> dict[str, NDArray]:
    """Digits that were not trained on, as `calibration`, 200 of them."""
    return _pairs("evaluation")


def test() -> dict[str, NDArray]:
    """Digits that are in neither, as `evaluation`."""
    return _pairs("test")


def _pairs(part: str) -> dict[str, NDArray]:
    return {"input": load_file(LATENTS)[part], "target": np.round(255.0 * digits(part)[0]).astype(np.uint8)}
