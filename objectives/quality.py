"""Quality of a model's pictures: PSNR, SSIM and fidelity, from ONNX Runtime's own outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .protocol import Reading, Subject

CAP_DB = 100.0
SSIM_SIGMA = 1.5
SSIM_WINDOW = 11  # what scikit-image takes for this sigma: 2 * int(3.5 * 1.5 + 0.5) + 1


def psnr_db(images: NDArray, targets: NDArray, low: float, high: float) -> NDArray[np.float64]:
    """Return the peak signal-to-noise ratio of each image ``[N]``, at most 100 dB.

    Args:
        images: ``[N, ...]`` in ``low..high``.
        targets: alike.
        low: black.
        high: white; the peak is ``high - low``.
    """
    difference = images.reshape(len(images), -1) - targets.reshape(len(targets), -1)
    mse = np.einsum("ij,ij->i", difference, difference, dtype=np.float64) / difference.shape[1]
    floor = 10.0 ** (-CAP_DB / 10.0)
    return -10.0 * np.log10(np.maximum(mse / (high - low) ** 2, floor))


def ssim(images: NDArray, targets: NDArray, low: float, high: float) -> tuple[NDArray[np.float64], int]:
    """Return the structural similarity of each image ``[N]`` and the side of the window it was computed with.

    Wang, Bovik, Sheikh and Simoncelli (2004) as scikit-image computes it: Gaussian window, sigma 1.5, population
    covariance, mean over channels. An image smaller than the 11-pixel window gets the largest odd one that fits.

    Args:
        images: ``[N, C, H, W]``, or any shape whose last two axes are a picture, in ``low..high``.
        targets: alike.
        low: black.
        high: white.
    """
    from skimage.metrics import structural_similarity

    pictures = [planes(array) for array in (images, targets)]
    smallest = min(pictures[0].shape[-2:])
    window = min(SSIM_WINDOW, smallest - 1 + smallest % 2)
    values = [
        float(
            np.mean(
                structural_similarity(
                    image,
                    target,
                    channel_axis=0,
                    gaussian_weights=True,
                    sigma=SSIM_SIGMA,
                    use_sample_covariance=False,
                    data_range=high - low,
                    win_size=window,
                )
            )
        )
        for image, target in zip(*pictures, strict=True)
    ]
    return np.array(values), window


def planes(images: NDArray) -> NDArray:
    """Return ``[N, planes, H, W]``; what has fewer axes is one row of pixels."""
    if images.ndim < 3:
        return images.reshape(len(images), 1, 1, -1)
    return images.reshape(len(images), -1, *images.shape[-2:])


def judged_against(subject: Subject) -> tuple[NDArray[np.float32], str]:
    """Return the pictures that a model's are compared with ``[N, ...]``, and what they are called."""
    target = subject.model.samples.target
    return (subject.reference.outputs, "the reference's output") if target is None else (target, "the target")


class Quality:
    """Reads `psnr_db`, `worst_psnr_db`, `fidelity_db` and `ssim`.

    PSNR and SSIM are means over the images, against the target where the samples have one, else against the
    reference's output; fidelity is always against the reference's output. Outputs are clipped, not rounded.
    """

    name = "quality"

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the four readings."""
        samples = subject.model.samples
        outputs = subject.model.outputs
        reference = subject.reference.outputs
        target, against = judged_against(subject)
        psnr = psnr_db(outputs, target, samples.low, samples.high)
        fidelity = psnr_db(outputs, reference, samples.low, samples.high)
        similarity, window = ssim(outputs, target, samples.low, samples.high)
        of = f"{len(outputs)} images against {against}"
        note = "" if window == SSIM_WINDOW else f", window of {window} pixels as the images are small"
        return {
            "psnr_db": Reading(float(psnr.mean()), "dB", how=f"mean of {of}"),
            "worst_psnr_db": Reading(float(psnr.min()), "dB", how=f"worst of {of}"),
            "fidelity_db": Reading(float(fidelity.mean()), "dB", how="mean against the reference's output"),
            "ssim": Reading(float(similarity.mean()), "", how=f"mean of {of}{note}"),
        }

    def glance(self, subject: Subject) -> dict[str, Reading]:
        """Return `glance_psnr_db` and `glance_fidelity_db`, of the first few images; nothing where there are hardly more."""
        samples = subject.model.samples
        count = samples.glanced(subject.model.batch)
        if not count:
            return {}
        outputs, reference = subject.model.glanced, subject.reference.glanced
        target = reference if samples.target is None else samples.target[:count]
        psnr = psnr_db(outputs, target, samples.low, samples.high)
        fidelity = psnr_db(outputs, reference, samples.low, samples.high)
        how = f"mean of the first {count} of {samples.count} images"
        return {
            "glance_psnr_db": Reading(float(psnr.mean()), "dB", how=how),
            "glance_fidelity_db": Reading(float(fidelity.mean()), "dB", how=how),
        }
