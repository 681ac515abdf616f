"""Pictures for the report: reference, candidate and their amplified difference as small WebP data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pictures = NDArray[np.uint8]  # [N, H, W, 3]

BUDGET_BYTES = 4_600_000  # of data URIs: with plotly.js beside them a page stays below 10 MB


@dataclass(frozen=True)
class Level:
    """How many images a candidate shows, how large (pixels) and how they are stored (None: lossless)."""

    images: int
    side: int
    quality: int | None


LEVELS = (
    Level(3, 256, None),
    Level(3, 256, 92),
    Level(2, 256, 88),
    Level(2, 192, 85),
    Level(1, 192, 80),
    Level(1, 128, 75),
    Level(1, 64, 70),
)


@dataclass(frozen=True)
class Comparison:
    """One image of one candidate: its PSNR, and the names of three tiles of the gallery."""

    image: int
    psnr_db: float
    reference: str
    candidate: str
    difference: str


@dataclass(frozen=True)
class Gallery:
    """All pictures of a page.

    Attributes:
        comparisons: by trial number, the worst image first.
        tiles: data URIs by name; a reference picture is there once, however many candidates show it.
        factor: what differences are multiplied with.
        side: height and width of the tiles, pixels (H, W).
        cropped: whether tiles are the centres of larger pictures.
        lossless: whether tiles show the exact 8-bit values.
    """

    comparisons: Mapping[int, tuple[Comparison, ...]]
    tiles: Mapping[str, str]
    factor: int
    side: tuple[int, int]
    cropped: bool
    lossless: bool


def as_pictures(outputs: NDArray, low: float, high: float) -> Pictures | None:
    """Return model outputs as 8-bit pictures ``[N, H, W, 3]``, or None where they are no pictures.

    Args:
        outputs: ``[N, C, H, W]`` with C of 1 (grey), 3 (RGB) or more (the first three channels); of two the first.
        low: black.
        high: white.
    """
    if outputs.ndim != 4 or min(outputs.shape[2:]) < 4:
        return None
    channels = [0, 1, 2] if outputs.shape[1] >= 3 else [0, 0, 0]
    scaled = np.clip((outputs[:, channels] - low) / (high - low), 0.0, 1.0)
    return np.round(255.0 * scaled).astype(np.uint8).transpose(0, 2, 3, 1)


def make_gallery(
    reference: Pictures,
    candidates: Mapping[int, Pictures],
    psnr_db: Mapping[int, NDArray[np.float64]],
    budget_bytes: int = BUDGET_BYTES,
) -> Gallery:
    """Compare candidates (by trial number) with the reference, in pictures of at most ``budget_bytes`` together.

    Each candidate shows its own worst image first, then those that are the worst on average, so that candidates can be
    compared on the same ones. All differences have the same factor.

    Args:
        reference: the reference's outputs.
        candidates: the candidates' outputs, alike.
        psnr_db: PSNR of each image ``[N]``.
        budget_bytes: of the data URIs.
    """
    factor = difference_factor(reference, list(candidates.values()))
    for level in LEVELS:
        gallery = _gallery(level, reference, candidates, psnr_db, factor, budget_bytes)
        if gallery is not None:
            return gallery
    return Gallery({}, {}, factor, (0, 0), False, False)


def _gallery(
    level: Level,
    reference: Pictures,
    candidates: Mapping[int, Pictures],
    psnr_db: Mapping[int, NDArray[np.float64]],
    factor: int,
    budget_bytes: int,
) -> Gallery | None:
    """Return the gallery at one level, or None as soon as it is sure to exceed the budget."""
    reference = _centre(reference, level.side)
    shared = _worst_on_average(psnr_db)
    tiles: dict[str, str] = {}
    comparisons: dict[int, tuple[Comparison, ...]] = {}
    used = 0
    for done, (trial, full) in enumerate(candidates.items()):
        candidate = _centre(full, level.side)
        rows = []
        for image in _shown(psnr_db[trial], shared, level.images):
            row = Comparison(image, float(psnr_db[trial][image]), f"r{image}", f"c{trial}-{image}", f"d{trial}-{image}")
            if row.reference not in tiles:
                tiles[row.reference] = data_uri(reference[image], level.quality)
                used += len(tiles[row.reference])
            tiles[row.candidate] = data_uri(candidate[image], level.quality)
            gap = difference(reference[image], candidate[image], factor)
            tiles[row.difference] = data_uri(gap, level.quality)
            used += len(tiles[row.candidate]) + len(tiles[row.difference])
            rows.append(row)
        comparisons[trial] = tuple(rows)
        if used * max(1.0, 0.7 * len(candidates) / (done + 1)) > budget_bytes:
            return None
    height, width = reference.shape[1:3]
    cropped = next(iter(candidates.values())).shape[1:3] != (height, width) if candidates else False
    return Gallery(comparisons, tiles, factor, (height, width), cropped, level.quality is None)


def _worst_on_average(psnr_db: Mapping[int, NDArray[np.float64]]) -> list[int]:
    return np.argsort(np.mean(list(psnr_db.values()), axis=0), kind="stable").tolist() if psnr_db else []


def _shown(psnr_db: NDArray[np.float64], shared: list[int], count: int) -> list[int]:
    worst = int(np.argmin(psnr_db))
    return [worst, *(image for image in shared if image != worst)][:count]


def _centre(pictures: Pictures, side: int) -> Pictures:
    height, width = pictures.shape[1:3]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return pictures[:, top : top + side, left : left + side]


def difference_factor(reference: Pictures, candidates: list[Pictures]) -> int:
    """Return the power of two (1 to 32) that shows the differences of most candidates without clipping the largest."""
    if not candidates:
        return 1
    levels = [max(1.0, float(np.percentile(np.abs(c.astype(np.int16) - reference), 99.0))) for c in candidates]
    between = np.sqrt(np.median(levels) * max(levels))
    return int(2 ** np.clip(np.floor(np.log2(200.0 / between)), 0, 5))


def difference(reference: Pictures, candidate: Pictures, factor: int) -> Pictures:
    """Return ``factor * |candidate - reference|``, clipped to 255: black where they agree."""
    gap = np.abs(candidate.astype(np.int16) - reference.astype(np.int16))
    return np.minimum(gap * factor, 255).astype(np.uint8)


def data_uri(picture: Pictures, quality: int | None) -> str:
    """Return one picture ``[H, W, 3]`` as a WebP data URI; lossless where ``quality`` is None."""
    from PIL import Image

    stream = io.BytesIO()
    options = {"lossless": True, "quality": 60} if quality is None else {"quality": quality}
    Image.fromarray(picture).save(stream, format="WEBP", method=4, **options)
    return "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
