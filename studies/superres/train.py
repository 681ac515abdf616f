"""Train the super-resolution network, and say how far it is above bicubic enlargement on photographs it never saw.

    python -m slimfront.studies.superres.train --bfloat16 --threads 1

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
from slimfront.studies.painting.train import SHARES, turned

from . import data
from .model import FACTOR, build

HERE = Path(__file__).parent
CROP = 64  # at full size
SCALES = (1.0, 0.75, 0.5)


def main() -> None:
    """Crops, network, training, judgement, files."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    small, large = training_crops(options.crops, np.random.default_rng(options.seed))
    network = build()
    count = sum(p.numel() for p in network.parameters())
    print(f"{count:,} weights, {options.steps} steps of {options.batch} crops", flush=True)
    train(network, small, large, options)
    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        bicubic, enlarged = judge(network, held_out)
        print(f"{name}: bicubic {bicubic:.2f} dB, network {enlarged:.2f} dB")
    save_file({name: weights.contiguous() for name, weights in network.state_dict().items()}, options.out)
    imsave(options.out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, at half their size and whole.

    Returns:
        Two uint8 tensors, [count, 3, 32, 32] and [count, 3, 64, 64].
    """
    whole = {name: np.round(255.0 * photograph(name)).astype(np.uint8) for name in TRAINING}
    scaled = {name: [data.resized(image, scale) for scale in SCALES] for name, image in whole.items()}
    shares = np.array([SHARES[name] for name in TRAINING])
    large = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    small = torch.empty(count, 3, CROP // FACTOR, CROP // FACTOR, dtype=torch.uint8)
    for i in range(count):
        crop = np.zeros((CROP, CROP, 3), np.uint8)
        while crop.std(axis=(0, 1)).max() < 8:  # plain sky teaches nothing
            image = scaled[rng.choice(TRAINING, p=shares / shares.sum())][rng.integers(len(SCALES))]
            top, left = (rng.integers(side - CROP + 1) for side in image.shape[:2])
            crop = image[top : top + CROP, left : left + CROP]
        large[i] = torch.tensor(crop).permute(2, 0, 1)
        small[i] = torch.tensor(data.resized(crop, 1 / FACTOR)).permute(2, 0, 1)
    return small, large


def train(network: nn.Module, small: Tensor, large: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; Adam with one cycle; every crop turned and mirrored at random."""
    network.train()
    optimizer = torch.optim.Adam(network.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=0.1)
    held_out, began, mean_loss = data.evaluation(), time.time(), 0.0
    for step in range(1, options.steps + 1):
        chosen = torch.randint(len(small), (options.batch,))
        turns, mirrored = int(torch.randint(4, ())), bool(torch.randint(2, ()))
        reduced, true = (turned(t[chosen], turns, mirrored) for t in (small, large))
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            output = network(reduced)
        loss = functional.l1_loss(output.float(), true)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 200)
        if step % 250 == 0 or step == options.steps:
            psnr = judge(network, held_out)[1]
            print(f"step {step}: loss {mean_loss:.4f}, cat {psnr:.2f} dB, {time.time() - began:.0f} s", flush=True)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> tuple[float, float]:
    """Mean PSNR in dB over the pictures against the true ones: of bicubic enlargement, and of the network's output."""
    return _psnr_db(bicubic(held_out["input"]), held_out["target"]), _psnr_db(
        enlarge(network, held_out["input"]), held_out["target"]
    )


def enlarge(network: nn.Module, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3, H, W] to [N, 3, 2 H, 2 W], in 0..1."""
    network.eval()
    with torch.no_grad():
        output = network(torch.from_numpy(inputs)).clamp(0.0, 1.0).numpy()
    network.train()
    return output


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


def _psnr_db(images: NDArray[np.float32], targets: NDArray[np.uint8]) -> float:
    errors = np.square(images - targets.astype(np.float32) / 255.0).mean(axis=(1, 2, 3))
    return float((-10.0 * np.log10(errors)).mean())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the super-resolution network.")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crops", type=int, default=8000)
    parser.add_argument("--rate", type=float, default=8e-4, help="the cycle's highest learning rate")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "superres.safetensors", help="where the weights go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
