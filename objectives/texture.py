"""Texture: whether fine structure is kept, which a mean over all pixels hardly tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .protocol import About, Reading, Subject
from .quality import judged_against, planes, psnr_db

SIGMA = 1.5  # of the Gaussian blur in pixels, as of SSIM's window: what it takes away is the high frequencies
STABLE = 170.0 / 255.0**2  # the constant of Xue et al., for a range of 1


def high_frequencies(images: NDArray) -> NDArray[np.float32]:
    """Return pictures without their Gaussian blur ``[N, C, H, W]``; beyond their edge they are continued by reflection.

    Args:
        images: any shape whose last two axes are a picture.
    """
    from scipy.ndimage import gaussian_filter

    pictures = planes(images).astype(np.float32)
    return pictures - gaussian_filter(pictures, sigma=(0.0, 0.0, SIGMA, SIGMA))


def gradient_similarity(images: NDArray, targets: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """Return how alike the magnitudes of the gradients of each pair are ``[N]``, 0 to 1.

    Xue, Zhang, Mou and Bovik: Gradient Magnitude Similarity Deviation (IEEE Transactions on Image Processing 2014), with its
    Prewitt filter and constant. Ours is the mean over pixels (their GMSM), which is 1 for equal pictures, over all planes, and of
    pictures in their own size, as small ones are not to be halved.

    Args:
        images: ``[N, C, H, W]``, or any shape whose last two axes are a picture, in ``low..high``.
        targets: alike.
        low: black.
        high: white.
    """
    one, other = (_gradients(array) for array in (images, targets))
    stable = STABLE * (high - low) ** 2
    similar = (2.0 * one * other + stable) / (one**2 + other**2 + stable)
    return np.asarray(similar.reshape(len(similar), -1).mean(axis=1), np.float64)


def _gradients(images: NDArray) -> NDArray[np.float64]:
    """Return the magnitudes of the gradients by Prewitt's filter, pictures continued by reflection."""
    from scipy.ndimage import correlate1d

    pictures = planes(images).astype(np.float64)
    slopes = [
        correlate1d(correlate1d(pictures, (1.0, 0.0, -1.0), axis=along), (1.0, 1.0, 1.0), axis=across)
        for along, across in ((2, 3), (3, 2))
    ]
    return np.hypot(*slopes) / 3.0


class Texture:
    """Reads `texture_db`, the PSNR of the high frequencies, and `gradient_similarity`.

    Means over the images, against the target where the samples have one, else against the reference's output.
    """

    name = "texture"
    readings: ClassVar[Mapping[str, About]] = {
        "texture_db": About(
            "PSNR of high frequencies", "dB", explanation="the PSNR of the pictures without their Gaussian blur"
        ),
        "gradient_similarity": About(
            "gradient similarity", explanation="how alike the magnitudes of the gradients are, 0 to 1 (Xue et al. 2014)"
        ),
    }

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the two readings."""
        samples, outputs = subject.model.samples, subject.model.outputs
        target, against = judged_against(subject)
        fine = psnr_db(high_frequencies(outputs), high_frequencies(target), samples.low, samples.high)
        alike = gradient_similarity(outputs, target, samples.low, samples.high)
        how = f"mean of {len(outputs)} images against {against}"
        return {
            "texture_db": Reading(float(fine.mean()), "dB", how=how),
            "gradient_similarity": Reading(float(alike.mean()), "", how=how),
        }
