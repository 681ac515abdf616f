"""Train encoder and decoder, and say how near the decoder comes to digits that they never saw.

    python -m slimfront.studies.digits_vae.train --bfloat16 --threads 1

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

from . import data
from .digits import PARTS, digits
from .model import LATENT, Encoder, build

HERE = Path(__file__).parent


def main() -> None:
    """Digits, networks, training, judgement, files."""
    options = _options()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    encoder, decoder = Encoder(), build()
    count = sum(p.numel() for p in decoder.parameters())
    print(f"{count:,} weights in the decoder, {options.steps} steps of {options.batch} digits", flush=True)
    train(encoder, decoder, torch.from_numpy(digits("training")[0]), options)

    latents = {part: encoded(encoder, digits(part)[0]) for part in PARTS}
    for part in ("evaluation", "test"):
        print(f"{part}: {judge(decoder, latents[part], digits(part)[0]):.2f} dB")
    save_file({name: weights.contiguous() for name, weights in decoder.state_dict().items()}, options.out)
    save_file(latents, options.out.with_name(data.LATENTS.name))
    imsave(options.out.with_suffix(".png"), picture(decoder, latents["evaluation"], digits("evaluation")[0]))


def train(encoder: nn.Module, decoder: nn.Module, images: Tensor, options: argparse.Namespace) -> None:
    """The evidence lower bound with a pixel's cross entropy; Adam with one cycle; digits warped at random."""
    networks = nn.ModuleList([encoder, decoder]).train()
    optimizer = torch.optim.Adam(networks.parameters(), options.rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, options.rate, options.steps, pct_start=0.1)
    held_out, began, mean_loss = digits("evaluation")[0], time.time(), 0.0
    for step in range(1, options.steps + 1):
        true = warped(images[torch.randint(len(images), (options.batch,))])
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            mean, log_variance = (t.float() for t in encoder(true))
            drawn = decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
        far = functional.binary_cross_entropy(drawn.float().clamp(1e-6, 1 - 1e-6), true, reduction="sum")
        surprise = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum()
        loss = (far + options.beta * surprise) / len(true)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(networks.parameters(), 100.0)
        optimizer.step()
        schedule.step()
        mean_loss += (loss.item() - mean_loss) / min(step, 200)
        if step % 300 == 0 or step == options.steps:
            psnr = judge(decoder, encoded(encoder, held_out), held_out)
            print(f"step {step}: loss {mean_loss:.1f}, held out {psnr:.2f} dB, {time.time() - began:.0f} s", flush=True)


def warped(images: Tensor) -> Tensor:
    """Images [N, 1, H, W], each turned by up to 10 degrees, sheared, scaled by up to a tenth and moved by a pixel or two."""
    count = len(images)
    angle = torch.empty(count).uniform_(-0.17, 0.17)
    shear = torch.empty(count).uniform_(-0.15, 0.15)
    scale = torch.empty(count, 2).uniform_(0.95, 1.15)
    move = torch.empty(count, 2).uniform_(-0.08, 0.08)
    rows = [
        torch.stack([scale[:, 0] * angle.cos(), shear - angle.sin(), move[:, 0]], dim=1),
        torch.stack([angle.sin(), scale[:, 1] * angle.cos(), move[:, 1]], dim=1),
    ]
    grid = functional.affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def encoded(encoder: nn.Module, images: NDArray[np.float32]) -> Tensor:
    """[N, 1, 32, 32] to the means of their latents, [N, 16]."""
    with torch.no_grad():
        return encoder(torch.from_numpy(images))[0].contiguous()


def decoded(decoder: nn.Module, latents: Tensor) -> NDArray[np.float32]:
    """[N, 16] to [N, 1, 32, 32] in 0..1."""
    with torch.no_grad():
        return decoder(latents).numpy()


def judge(decoder: nn.Module, latents: Tensor, images: NDArray[np.float32]) -> float:
    """Mean PSNR in dB of what the decoder draws, against the images that were encoded."""
    errors = np.square(decoded(decoder, latents) - images).mean(axis=(1, 2, 3))
    return float((-10.0 * np.log10(errors)).mean())


def picture(decoder: nn.Module, latents: Tensor, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Held-out digits, what the decoder draws of their latents, and of latents drawn at random; [192, 1024]."""
    random = torch.randn(16, LATENT, generator=torch.Generator().manual_seed(0))
    rows = [images[:16], decoded(decoder, latents[:16]), decoded(decoder, random)]
    sheet = np.concatenate([np.concatenate(list(row[:, 0]), axis=1) for row in rows])
    return np.round(255.0 * sheet).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the digits' variational autoencoder.")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3, help="the cycle's highest learning rate")
    parser.add_argument("--beta", type=float, default=1.0, help="what nats of the latent count beside the pixels'")
    parser.add_argument("--bfloat16", action="store_true", help="multiply in bfloat16 while training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "digits_vae.safetensors", help="where the weights go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
