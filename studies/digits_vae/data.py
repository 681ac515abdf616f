"""Latents of digits, with the digits themselves as targets.

The latents are what the trained encoder said of scikit-learn's digits (train.py writes latents.safetensors): the first 1,397
digits trained both networks and calibrate, 200 others each are for evaluation and for tests. Nothing is downloaded.
"""

from pathlib import Path

from numpy.typing import NDArray

from slimfront.studies.digits_vae.digits import latents_of

HERE = Path(__file__).parent


def calibration() -> dict[str, NDArray]:
    """Training digits: `input`, float32 [1397, 16], their latents, and `target`, uint8 [1397, 1, 32, 32]."""
    return latents_of(HERE, "training")


def evaluation() -> dict[str, NDArray]:
    """Digits that were not trained on, as `calibration`, 200 of them."""
    return latents_of(HERE, "evaluation")


def test() -> dict[str, NDArray]:
    """Digits that are in neither, as `evaluation`."""
    return latents_of(HERE, "test")
