"""Train the painting network, and say how near it comes to the paintings of photographs it never saw.

    python -m slimfront.studies.painting.train --bfloat16 --threads 1          # the shipped weights
    python -m slimfront.studies.painting.train --bfloat16 --threads 1 --half   # half the width, for comparison

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.
"""

import argparse
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.io import imsave
from skimage.transform import rescale
from torch import Tensor, nn
from torch.nn import functional

from slimfront.objectives.quality import psnr_db
from slimfront.studies.training_script import begin, given, keep, optimise, options_parser, tell

from . import data
from .kuwahara import oil_paint
from .model import build

HERE = Path(__file__).parent
CROP = 96
LEAST_SPREAD = 0.03  # of a crop in 0..1: less is plain sky
SCALES = (1.25, 1.0, 0.8, 0.64, 0.5)
# How often a photograph is drawn: scenes with edges at all angles more often than textures.
SHARES = {
    "astronaut": 4.0,
    "motorcycle": 5.0,
    "rocket": 3.0,
    "immunohistochemistry": 2.0,
    "hubble_deep_field": 1.0,
    "camera": 2.0,
    "coins": 1.0,
    "grass": 1.0,
    "gravel": 1.0,
    "brick": 0.5,
}


def main() -> None:
    """Crops, network, training, judgement, files."""
    options = _options()
    begin(options)

    began = time.time()
    inputs, targets = training_crops(options.crops, np.random.default_rng(options.seed))
    print(f"{options.crops} crops painted in {time.time() - began:.0f} s", flush=True)

    network = build(width=16 if options.half else 32)
    tell(network, options, "crops")
    train(network, inputs, targets, options)

    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        untouched, painted = judge(network, held_out)
        print(f"{name}: untouched {untouched:.2f} dB, network {painted:.2f} dB")
    out = options.out or (None if options.half else HERE / "painting.safetensors")
    if out:
        keep(network, out)
        imsave(out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, in varied colours, and their paintings.

    The filter sees the crop alone, as in the evaluation data, so that the network learns its edges too.

    Returns:
        Two uint8 tensors [count, 3, 96, 96].
    """
    scaled = {name: at_scales(data.photograph(name)) for name in data.TRAINING}
    inputs = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    targets = torch.empty_like(inputs)
    for i in range(count):
        crop = np.round(255.0 * drawn_crop(scaled, CROP, rng, partial(other_colours, rng=rng)))
        painting = np.round(255.0 * oil_paint(crop / 255.0))
        inputs[i] = torch.from_numpy(crop.astype(np.uint8)).permute(2, 0, 1)
        targets[i] = torch.from_numpy(painting.astype(np.uint8)).permute(2, 0, 1)
    return inputs, targets


def drawn_crop(
    scaled: Mapping[str, list[NDArray]],
    side: int,
    rng: np.random.Generator,
    changed: Callable[[NDArray], NDArray],
    least: float = LEAST_SPREAD,
) -> NDArray:
    """A crop [side, side, 3] of a photograph, drawn by its share, at one of its sizes, and changed; plain sky teaches nothing.

    Args:
        scaled: the sizes of each photograph, by name.
        side: of the crop.
        rng: draws.
        changed: what becomes of the crop.
        least: standard deviation of one of its channels.
    """
    names = list(scaled)
    shares = np.array([SHARES[name] for name in names])
    while True:
        sizes = scaled[rng.choice(names, p=shares / shares.sum())]
        image = sizes[int(rng.integers(len(sizes)))]
        top, left = (rng.integers(length - side + 1) for length in image.shape[:2])
        crop = changed(image[top : top + side, left : left + side])
        if crop.std(axis=(0, 1)).max() >= least:
            return crop


def train(network: nn.Module, inputs: Tensor, targets: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; every crop turned and mirrored at random, with which the filter commutes."""
    held_out = data.evaluation()
    loss = partial(crop_loss, network, inputs, targets, options)
    optimise(network, loss, lambda: f"cat {judge(network, held_out)[1]:.2f} dB", options, every=500, rise=0.15)


def crop_loss(network: nn.Module, inputs: Tensor, targets: Tensor, options: argparse.Namespace) -> Tensor:
    """The L1 loss of a batch of crops, bytes [N, 3, H, W], turned and mirrored as their targets are."""
    chosen = torch.randint(len(inputs), (options.batch,))
    turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
    crops, wanted = (turned(t[chosen], turns, mirrored) for t in (inputs, targets))
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        output = network(crops)
    return functional.l1_loss(output.float(), wanted)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> tuple[float, float]:
    """Mean PSNR in dB over the pictures against their paintings: of the photographs, and of the network's output."""
    outputs = given(network, torch.from_numpy(held_out["input"])).clamp(0.0, 1.0).numpy()
    paintings = held_out["target"] / np.float32(255.0)
    untouched, painted = (psnr_db(images, paintings, 0.0, 1.0).mean() for images in (held_out["input"], outputs))
    return float(untouched), float(painted)


def picture(network: nn.Module) -> NDArray[np.uint8]:
    """Three held-out crops, one a row: photograph, painting, the network's output; [384, 384, 3]."""
    rows = []
    for held_out, index in ((data.evaluation(), 1), (data.evaluation(), 6), (data.test(), 6)):
        photograph, painting = held_out["input"][index], held_out["target"][index]
        output = given(network, torch.from_numpy(photograph[None]))[0].clamp(0.0, 1.0).numpy()
        row = [np.round(255.0 * photograph), painting, np.round(255.0 * output)]
        rows.append(np.concatenate(row, axis=2).astype(np.uint8))
    return np.concatenate(rows, axis=1).transpose(1, 2, 0)


def turned(images: Tensor, turns: int, mirrored: bool) -> Tensor:
    """Images [N, C, H, W] of bytes, turned by 90 degrees so often and mirrored, in 0..1."""
    images = torch.rot90(images, turns, (2, 3))
    images = torch.flip(images, (3,)) if mirrored else images
    return (images.float() / 255.0).contiguous(memory_format=torch.channels_last)


def at_scales(photograph: NDArray) -> list[NDArray]:
    """The photograph at those of the scales at which it is still larger than a crop."""
    sizes = [s for s in SCALES if s * min(photograph.shape[:2]) >= 1.5 * CROP]
    return [np.clip(rescale(photograph, s, channel_axis=2, anti_aliasing=s < 1), 0.0, 1.0) for s in sizes]


def other_colours(crop: NDArray, rng: np.random.Generator) -> NDArray:
    """The crop lighter or darker and tinted, grey ones more, now and then with its channels exchanged."""
    grey = np.array_equal(crop[..., 0], crop[..., 1])
    tint = rng.uniform(-0.5, 0.5, 3) if grey else rng.uniform(-0.15, 0.15, 3)
    crop = crop ** np.exp(tint + rng.uniform(-0.35, 0.35))
    return crop[..., rng.permutation(3)] if rng.random() < 0.25 else crop


def _options() -> argparse.Namespace:
    parser = options_parser("the painting network", None, steps=2000, batch=6, rate=1e-3)
    parser.add_argument("--half", action="store_true", help="half the width; saved only where --out says so")
    parser.add_argument("--crops", type=int, default=2500, help="training crops that are painted beforehand")
    return parser.parse_args()


if __name__ == "__main__":
    main()
