"""Crops of scikit-image's photographs with what four filters make of them.

Photographs and crops are those of the study `painting`: the cat for evaluation, the cup of coffee for tests, all others for
training and calibration. Nothing is downloaded.
"""

import numpy as np
from numpy.typing import NDArray

from slimfront.studies.painting.data import CALIBRATION_CROPS, EVALUATION_CROPS, TEST_CROPS, crops
from slimfront.studies.styles.filters import FILTERS
from slimfront.studies.styles.model import STYLES

HELD_OUT = (1, 3, 4, 6)  # of eight crops: enough, as every one is painted in every style


def calibration() -> dict[str, NDArray]:
    """Crops of training photographs, each in two styles.

    Returns:
        `photograph`, float32 [32, 3, 128, 128] in 0..1; `style`, one-hot, float32 [32, 4]; `target`, uint8 [32, 3, 128, 128];
        `group`, the names of the styles [32].
    """
    photographs = crops(CALIBRATION_CROPS)
    chosen = [(index, style) for index in range(len(photographs)) for style in (index % 4, (index + 2) % 4)]
    return _in_styles(photographs, chosen)


def evaluation() -> dict[str, NDArray]:
    """Crops of the cat, each in all styles: as `calibration`, with 16 samples."""
    return _in_styles(crops(EVALUATION_CROPS), [(index, style) for index in HELD_OUT for style in range(4)])


def test() -> dict[str, NDArray]:
    """Crops of the cup of coffee, as `evaluation`."""
    return _in_styles(crops(TEST_CROPS), [(index, style) for index in HELD_OUT for style in range(4)])


def painted(photograph: NDArray[np.floating], style: str) -> NDArray[np.uint8]:
    """What a style's filter makes of a photograph [3, H, W] in 0..1; alike, in bytes."""
    image = FILTERS[style](photograph.transpose(1, 2, 0))
    return np.ascontiguousarray(np.round(255.0 * image).astype(np.uint8).transpose(2, 0, 1))


def _in_styles(photographs: NDArray[np.float32], chosen: list[tuple[int, int]]) -> dict[str, NDArray]:
    return {
        "photograph": photographs[[index for index, _ in chosen]],
        "style": np.eye(len(STYLES), dtype=np.float32)[[style for _, style in chosen]],
        "target": np.stack([painted(photographs[index], STYLES[style]) for index, style in chosen]),
        "group": np.array([STYLES[style] for _, style in chosen]),
    }
