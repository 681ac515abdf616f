"""Train the painting network, and say how near it comes to the paintings of photographs it never saw.

    python -m slimfront.studies.painting.train --bfloat16 --threads 1          # the shipped weights
    python -m slimfront.studies.painting.train --bfloat16 --threads 1 --half   # half the width, for comparison

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from skimage.io import imsave
from skimage.transform import rescale
from torch import Tensor, nn
from torch.nn import functional

from . import data
from .kuwahara import oil_paint
from .model import build

HERE = Path(__file__).parent
CROP = 96
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
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)

    began = time.time()
    inputs, targets = training_crops(options.crops, np.random.default_rng(options.seed))
    print(f"{options.crops} crops painted in {time.time() - began:.0f} s", flush=True)

    network = build(width=16 if options.half else 32)
    count = sum(p.numel() for p in network.parameters())
    print(f"{count:,} weights, {options.steps} steps of {options.batch} crops", flush=True)
    train(network, inputs, targets, options)

    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        untouched, painted = judge(network, held_out)
        print(f"{name}: untouched {untouched:.2f} dB, network {painted:.2f} dB")
    out = options.out or (None if options.half else HERE / "painting.safetensors")
    if out:
        save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, out)
        imsave(out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, in varied colours, and their paintings.

    The filter sees the crop alone, as in the evaluation data, so that the network learns its edges too.

    Returns:
        Two uint8 tensors [count, 3, 96, 96].
    """
    scaled = {name: at_scales(data.photograph(name)) for name in data.TRAINING}
    shares = np.array([SHARES[name] for name in data.TRAINING])
    inputs = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    targets = torch.empty_like(inputs)
    for i in range(count):
        crop = np.zeros((CROP, CROP, 3))
        while crop.std(axis=(0, 1)).max() < 0.03:  # plain sky teaches nothing
            sizes = scaled[rng.choice(data.TRAINING, p=shares / shares.sum())]
            image = sizes[rng.integers(len(sizes))]
            top, left = (rng.integers(side - CROP + 1) for side in image.shape[:2])
            crop = other_colours(image[top : top + CROP, left : left + CROP], rng)
        crop = np.round(255.0 * crop)
        painting = np.round(255.0 * oil_paint(crop / 255.0))
        inputs[i] = torch.from_numpy(crop.astype(np.uint8)).permute(2, 0, 1)
        targets[i] = torch.from_numpy(painting.astype(np.uint8)).permute(2, 0, 1)
    return inputs, targets


def train(network: nn.Module, inputs: Tensor, targets: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; Adam with one cycle; every crop turned and mirrored at random, with which the filter commutes."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=0.15)
    held_out, began, mean_loss = data.evaluation(), time.time(), 0.0
    for step in range(1, options.steps + 1):
        chosen = torch.randint(len(inputs), (options.batch,))
        turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        photograph, painting = (turned(t[chosen], turns, mirrored) for t in (inputs, targets))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            output = network(photograph)
        loss = functional.l1_loss(output.float(), painting)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 200)
        if step % 500 == 0 or step == options.steps:
            psnr = judge(network, held_out)[1]
            print(f"step {step}: loss {mean_loss:.4f}, cat {psnr:.2f} dB, {time.time() - began:.0f} s", flush=True)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> tuple[float, float]:
    """Mean PSNR in dB over the pictures against their paintings: of the photographs, and of the network's output."""
    photographs = torch.from_numpy(held_out["input"])
    paintings = torch.from_numpy(held_out["target"]).float() / 255.0
    network.eval()
    with torch.no_grad():
        outputs = network(photographs).clamp(0.0, 1.0)
    network.train()
    return _psnr_db(photographs, paintings), _psnr_db(outputs, paintings)


def picture(network: nn.Module) -> NDArray[np.uint8]:
    """Three held-out crops, one a row: photograph, painting, the network's output; [384, 384, 3]."""
    rows = []
    for held_out, index in ((data.evaluation(), 1), (data.evaluation(), 6), (data.test(), 6)):
        photograph, painting = held_out["input"][index], held_out["target"][index]
        with torch.no_grad():
            output = network(torch.from_numpy(photograph[None]))[0].clamp(0.0, 1.0).numpy()
        row = [np.round(255.0 * photograph), painting, np.round(255.0 * output)]
        rows.append(np.concatenate(row, axis=2).astype(np.uint8))
    return np.concatenate(rows, axis=1).transpose(1, 2, 0)


def _psnr_db(images: Tensor, targets: Tensor) -> float:
    errors = torch.square(images - targets).mean(dim=(1, 2, 3))
    return float((-10.0 * torch.log10(errors)).mean())


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
    parser = argparse.ArgumentParser(description="Train the painting network.")
    parser.add_argument("--half", action="store_true", help="half the width; saved only where --out says so")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crops", type=int, default=2500, help="training crops that are painted beforehand")
    parser.add_argument("--rate", type=float, default=1e-3, help="the cycle's highest learning rate")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="where the weights go; default painting.safetensors beside this file")
    return parser.parse_args()


if __name__ == "__main__":
    main()
