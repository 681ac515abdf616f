"""Train the super-resolution network, and say how far it is above bicubic enlargement on photographs it never saw.

    python -m slimfront.studies.superres.train --bfloat16 --threads 1

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.
"""

import argparse
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.io import imsave
from torch import Tensor, nn

from slimfront.objectives.quality import psnr_db
from slimfront.studies.painting.data import TRAINING, photograph
from slimfront.studies.painting.train import crop_loss, drawn_crop
from slimfront.studies.training_script import begin, given, keep, optimise, options_parser, tell

from . import data
from .model import FACTOR, build

HERE = Path(__file__).parent
CROP = 64  # at full size
LEAST_SPREAD = 8.0  # of a crop in bytes: less is plain sky
SCALES = (1.0, 0.75, 0.5)


def main() -> None:
    """Crops, network, training, judgement, files."""
    options = _options()
    begin(options)
    small, large = training_crops(options.crops, np.random.default_rng(options.seed))
    network = build()
    tell(network, options, "crops")
    train(network, small, large, options)
    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        bicubic, enlarged = judge(network, held_out)
        print(f"{name}: bicubic {bicubic:.2f} dB, network {enlarged:.2f} dB")
    keep(network, options.out)
    imsave(options.out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, at half their size and whole.

    Returns:
        Two uint8 tensors, [count, 3, 32, 32] and [count, 3, 64, 64].
    """
    whole = {name: np.round(255.0 * photograph(name)).astype(np.uint8) for name in TRAINING}
    scaled = {name: [data.resized(image, scale) for scale in SCALES] for name, image in whole.items()}
    large = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    small = torch.empty(count, 3, CROP // FACTOR, CROP // FACTOR, dtype=torch.uint8)
    for i in range(count):
        crop = drawn_crop(scaled, CROP, rng, np.asarray, LEAST_SPREAD)
        large[i] = torch.tensor(crop).permute(2, 0, 1)
        small[i] = torch.tensor(data.resized(crop, 1 / FACTOR)).permute(2, 0, 1)
    return small, large


def train(network: nn.Module, small: Tensor, large: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; every crop turned and mirrored at random."""
    held_out = data.evaluation()
    loss = partial(crop_loss, network, small, large, options)
    optimise(network, loss, lambda: f"cat {judge(network, held_out)[1]:.2f} dB", options, every=250, rise=0.1)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> tuple[float, float]:
    """Mean PSNR in dB over the pictures against the true ones: of bicubic enlargement, and of the network's output."""
    true, made = (
        held_out["target"] / np.float32(255.0),
        (bicubic(held_out["input"]), enlarge(network, held_out["input"])),
    )
    simple, enlarged = (psnr_db(images, true, 0.0, 1.0).mean() for images in made)
    return float(simple), float(enlarged)


def enlarge(network: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3, H, W] to [N, 3, 2 H, 2 W], in 0..1."""
    return given(network, torch.from_numpy(inputs)).clamp(0.0, 1.0).numpy()


def bicubic(inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """As `enlarge`, by Pillow's bicubic filter."""
    images = np.round(255.0 * inputs).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.stack([data.resized(image, FACTOR) for image in images]).transpose(0, 3, 1, 2).astype(np.float32) / 255.0


def picture(network: nn.Module) -> NDArray[np.uint8]:
    """Three held-out crops, one a row: bicubic, the network's output, the true one; [384, 384, 3]."""
    rows = []
    for held_out, index in ((data.evaluation(), 1), (data.evaluation(), 6), (data.test(), 6)):
        inputs, true = held_out["input"][index : index + 1], held_out["target"][index]
        row = [*(np.round(255.0 * made[0]) for made in (bicubic(inputs), enlarge(network, inputs))), true]
        rows.append(np.concatenate(row, axis=2).astype(np.uint8))
    return np.concatenate(rows, axis=1).transpose(1, 2, 0)


def _options() -> argparse.Namespace:
    out = HERE / "superres.safetensors"
    parser = options_parser("the super-resolution network", out, steps=2000, batch=8, rate=8e-4)
    parser.add_argument("--crops", type=int, default=8000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
