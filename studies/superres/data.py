"""Crops of scikit-image's photographs at half their size, with the true crops.

Photographs and crops are those of the study `painting`: the cat for evaluation, the cup of coffee for tests, all others for
training and calibration. Nothing is downloaded.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from slimfront.studies.painting.data import CALIBRATION_CROPS, EVALUATION_CROPS, TEST_CROPS, crops


def calibration() -> dict[str, NDArray]:
    """Crops of training photographs: `input`, float32 [16, 3, 64, 64] in 0..1, and `target`, uint8 [16, 3, 128, 128]."""
    return _pairs(crops(CALIBRATION_CROPS))


def evaluation() -> dict[str, NDArray]:
    """Crops of the cat: `input`, float32 [8, 3, 64, 64] in 0..1, and `target`, uint8 [8, 3, 128, 128]."""
    return _pairs(crops(EVALUATION_CROPS))


def test() -> dict[str, NDArray]:
    """Crops of the cup of coffee, as `evaluation`."""
    return _pairs(crops(TEST_CROPS))


def resized(image: NDArray[np.uint8], factor: float) -> NDArray[np.uint8]:
    """A picture [H, W, 3] of bytes at another size, by Pillow's bicubic filter (antialiased where it reduces)."""
    height, width = image.shape[:2]
    size = (round(factor * width), round(factor * height))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def _pairs(photographs: NDArray[np.float32]) -> dict[str, NDArray]:
    targets = np.round(255.0 * photographs).astype(np.uint8)
    reduced = np.stack([resized(target.transpose(1, 2, 0), 0.5).transpose(2, 0, 1) for target in targets])
    return {"input": np.ascontiguousarray(reduced, np.float32) / np.float32(255.0), "target": targets}
