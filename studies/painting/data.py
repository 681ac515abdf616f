"""Crops of scikit-image's photographs with their oil paintings.

Three separate sets of photographs: those that train the network (calibration crops come from them too), the cat
for evaluation, the cup of coffee for tests. All come with scikit-image; nothing is downloaded.
"""

import numpy as np
from numpy.typing import NDArray
from skimage import data

from slimfront.studies.painting.kuwahara import oil_paint

SIDE = 128
TRAINING = (
    "astronaut",
    "motorcycle",
    "rocket",
    "immunohistochemistry",
    "hubble_deep_field",
    "camera",
    "coins",
    "grass",
    "gravel",
    "brick",
)
CALIBRATION_CROPS = {
    "astronaut": [(10, 170), (200, 60), (330, 300), (60, 380)],
    "motorcycle": [(150, 250), (250, 340), (60, 420), (300, 120), (180, 560)],
    "rocket": [(10, 0), (130, 255), (270, 90), (290, 420)],
    "immunohistochemistry": [(100, 60)],
    "hubble_deep_field": [(300, 400)],
    "camera": [(60, 180)],
}
EVALUATION_CROPS = {"chelsea": [(top, left) for top in (20, 164) for left in (0, 108, 216, 323)]}
TEST_CROPS = {"coffee": [(top, left) for top in (60, 210) for left in (40, 172, 304, 436)]}


def calibration() -> dict[str, NDArray]:
    """Crops of training photographs: `input`, float32 [16, 3, 128, 128] in 0..1, and their paintings, `target`."""
    return _with_target(crops(CALIBRATION_CROPS))


def evaluation() -> dict[str, NDArray]:
    """Crops of the cat: `input`, float32 [8, 3, 128, 128] in 0..1, and their paintings, `target`, uint8 alike."""
    return _with_target(crops(EVALUATION_CROPS))


def test() -> dict[str, NDArray]:
    """Crops of the cup of coffee, as `evaluation`."""
    return _with_target(crops(TEST_CROPS))


def photograph(name: str) -> NDArray[np.float32]:
    """[H, W, 3] in 0..1; a grey photograph has three equal channels."""
    pixels = data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(data, name)()
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return pixels.astype(np.float32) / 255.0


def crops(places: dict[str, list[tuple[int, int]]]) -> NDArray[np.float32]:
    """Crops [N, 3, 128, 128] in 0..1 of photographs: the corners (top, left) by name."""
    found = []
    for name, corners in places.items():
        image = photograph(name)
        found += [image[top : top + SIDE, left : left + SIDE] for top, left in corners]
    return np.ascontiguousarray(np.stack(found).transpose(0, 3, 1, 2))


def _with_target(inputs: NDArray[np.float32]) -> dict[str, NDArray]:
    paintings = np.stack([oil_paint(crop.transpose(1, 2, 0)) for crop in inputs])
    target = np.round(255.0 * paintings).astype(np.uint8).transpose(0, 3, 1, 2)
    return {"input": inputs, "target": np.ascontiguousarray(target)}
