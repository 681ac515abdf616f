"""Train the network of four styles, and say how near it comes to the filters on photographs it never saw.

    python -m slimfront.studies.styles.train --bfloat16 --threads 1

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
from torch import Tensor, nn
from torch.nn import functional

from slimfront.studies.painting.data import TRAINING, photograph
from slimfront.studies.painting.train import SHARES, at_scales, other_colours

from . import data
from .model import STYLES, build

HERE = Path(__file__).parent
CROP = 64


def main() -> None:
    """Crops, network, training, judgement, files."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    began = time.time()
    inputs, targets = training_crops(options.crops, np.random.default_rng(options.seed))
    print(f"{options.crops} crops painted in {len(STYLES)} styles in {time.time() - began:.0f} s", flush=True)
    network = build()
    count = sum(p.numel() for p in network.parameters())
    print(f"{count:,} weights, {options.steps} steps of {options.batch} crops", flush=True)
    train(network, inputs, targets, options)
    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        of_styles = judge(network, held_out)
        print(f"{name}: " + ", ".join(f"{style} {psnr:.2f} dB" for style, psnr in of_styles.items()))
    save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, options.out)
    imsave(options.out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, turned and in varied colours, in every style.

    The filters see the crop alone, as in the evaluation data, so that the network learns its edges too.

    Returns:
        Two uint8 tensors, [count, 3, 64, 64] and [count, 4, 3, 64, 64].
    """
    scaled = {name: at_scales(photograph(name)) for name in TRAINING}
    shares = np.array([SHARES[name] for name in TRAINING])
    inputs = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    targets = torch.empty(count, len(STYLES), 3, CROP, CROP, dtype=torch.uint8)
    for i in range(count):
        crop = np.zeros((CROP, CROP, 3))
        while crop.std(axis=(0, 1)).max() < 0.03:  # plain sky teaches nothing
            sizes = scaled[rng.choice(TRAINING, p=shares / shares.sum())]
            image = sizes[rng.integers(len(sizes))]
            top, left = (rng.integers(side - CROP + 1) for side in image.shape[:2])
            crop = other_colours(image[top : top + CROP, left : left + CROP], rng)
        crop = np.rot90(crop, int(rng.integers(4))).transpose(2, 0, 1)
        crop = np.round(255.0 * crop[..., :: int(rng.choice([-1, 1]))]).astype(np.uint8)
        inputs[i] = torch.from_numpy(crop)
        for k, style in enumerate(STYLES):
            targets[i, k] = torch.from_numpy(data.painted(crop / 255.0, style))
    return inputs, targets


def train(network: nn.Module, inputs: Tensor, targets: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; Adam with one cycle; every batch has all styles, each on crops of its own."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=0.15)
    held_out, began, mean_loss = data.evaluation(), time.time(), 0.0
    style = torch.arange(options.batch) % len(STYLES)
    for step in range(1, options.steps + 1):
        chosen = torch.randint(len(inputs), (options.batch,))
        given = (inputs[chosen].float() / 255.0).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            output = network(given, functional.one_hot(style, len(STYLES)).float())
        loss = functional.l1_loss(output.float(), targets[chosen, style].float() / 255.0)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 200)
        if step % 250 == 0 or step == options.steps:
            cat = ", ".join(f"{style} {psnr:.2f}" for style, psnr in judge(network, held_out).items())
            print(f"step {step}: loss {mean_loss:.4f}, cat in dB {cat}, {time.time() - began:.0f} s", flush=True)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> dict[str, float]:
    """Mean PSNR in dB of the network's pictures against the filters', by style."""
    made = styled(network, held_out["photograph"], held_out["style"])
    psnr = psnr_db(made, held_out["target"])
    return {name: float(psnr[held_out["style"][:, k] == 1.0].mean()) for k, name in enumerate(STYLES)}


def styled(network: nn.Module, photographs: NDArray[np.float32], style: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3, H, W] and [N, 4] to [N, 3, H, W], in 0..1."""
    network.eval()
    with torch.no_grad():
        output = network(torch.from_numpy(photographs), torch.from_numpy(style)).clamp(0.0, 1.0).numpy()
    network.train()
    return output


def psnr_db(images: NDArray[np.float32], targets: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Of each image [N, C, H, W] in 0..1 against bytes alike; [N]."""
    errors = np.square(images - targets.astype(np.float64) / 255.0).mean(axis=(1, 2, 3))
    return -10.0 * np.log10(errors)


def picture(network: nn.Module) -> NDArray[np.uint8]:
    """Two held-out crops: each photograph with the filters' pictures to its right, and the network's below; [512, 640, 3]."""
    rows = []
    for held_out, first in ((data.evaluation(), 0), (data.test(), 12)):
        chosen = slice(first, first + len(STYLES))
        photographs, style = held_out["photograph"][chosen], held_out["style"][chosen]
        made = np.round(255.0 * styled(network, photographs, style)).astype(np.uint8)
        shown = np.round(255.0 * photographs[0]).astype(np.uint8)
        rows += [[shown, *held_out["target"][chosen]], [np.full_like(shown, 255), *made]]
    return np.concatenate([np.concatenate(row, axis=2) for row in rows], axis=1).transpose(1, 2, 0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the network of four styles.")
    parser.add_argument("--steps", type=int, default=1800)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--crops", type=int, default=1200, help="training crops that are painted beforehand")
    parser.add_argument("--rate", type=float, default=1e-3, help="the cycle's highest learning rate")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "styles.safetensors", help="where the weights go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
