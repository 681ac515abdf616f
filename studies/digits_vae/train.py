"""Train encoder and decoder, and say how near the decoder comes to digits that they never saw.

    python -m slimfront.studies.digits_vae.train --bfloat16 --threads 1

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from skimage.io import imsave
from torch import Tensor, nn
from torch.nn import functional

from slimfront.objectives.quality import psnr_db
from slimfront.studies.training_script import begin, keep, optimise, options_parser, tell

from .digits import LATENTS_FILE, PARTS, digits
from .model import LATENT, Encoder, build

HERE = Path(__file__).parent


def main() -> None:
    """Train this study's networks."""
    out = HERE / "digits_vae.safetensors"
    train(Encoder, build, vae_options("the digits' variational autoencoder", out, steps=1200, rate=2e-3))


def vae_options(what: str, out: Path, *, steps: int, rate: float) -> argparse.Namespace:
    """Options of a variational autoencoder of digits."""
    parser = options_parser(what, out, steps=steps, batch=32, rate=rate)
    parser.add_argument("--beta", type=float, default=1.0, help="what nats of the latent count beside the pixels'")
    return parser.parse_args()


def train(
    make_encoder: Callable[[], nn.Module], make_decoder: Callable[[], nn.Module], options: argparse.Namespace
) -> None:
    """Digits, networks, training, judgement, files: weights, a picture, and `LATENTS_FILE`, the latents of all digits."""
    begin(options)
    encoder, decoder = make_encoder(), make_decoder()
    tell(decoder, options, "digits")
    loss = partial(lower_bound, encoder, decoder, torch.from_numpy(digits("training")[0]), options)
    held_out = digits("evaluation")[0]
    networks = nn.ModuleList([encoder, decoder])

    def judged() -> str:
        return f"held out {judge(decoder, encoded(encoder, held_out), held_out):.2f} dB"

    optimise(networks, loss, judged, options, every=300, rise=0.1, most=100.0)
    latents = {part: encoded(encoder, digits(part)[0]) for part in PARTS}
    for part in ("evaluation", "test"):
        print(f"{part}: {judge(decoder, latents[part], digits(part)[0]):.2f} dB")
    keep(decoder, options.out)
    save_file(latents, options.out.with_name(LATENTS_FILE))
    imsave(options.out.with_suffix(".png"), picture(decoder, latents["evaluation"], held_out))


def lower_bound(encoder: nn.Module, decoder: nn.Module, images: Tensor, options: argparse.Namespace) -> Tensor:
    """Minus the evidence lower bound of a batch, with a pixel's cross entropy; digits warped at random."""
    true = warped(images[torch.randint(len(images), (options.batch,))])
    with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
        mean, log_variance = (t.float() for t in encoder(true))
        drawn = decoder(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean))
    far = functional.binary_cross_entropy(drawn.float().clamp(1e-6, 1 - 1e-6), true, reduction="sum")
    surprise = 0.5 * (mean**2 + log_variance.exp() - 1.0 - log_variance).sum()
    loss: Tensor = (far + options.beta * surprise) / len(true)
    return loss


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
    return float(psnr_db(decoded(decoder, latents), images, 0.0, 1.0).mean())


def picture(decoder: nn.Module, latents: Tensor, images: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Held-out digits, what the decoder draws of their latents, and of latents drawn at random; [192, 1024]."""
    random = torch.randn(16, LATENT, generator=torch.Generator().manual_seed(0))
    rows = [images[:16], decoded(decoder, latents[:16]), decoded(decoder, random)]
    sheet = np.concatenate([np.concatenate(list(row[:, 0]), axis=1) for row in rows])
    return np.round(255.0 * sheet).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


if __name__ == "__main__":
    main()
