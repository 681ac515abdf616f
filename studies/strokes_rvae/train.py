"""Train encoder and decoder, and say how near the decoder comes to digits that they never saw.

    python -m slimfront.studies.strokes_rvae.train --threads 1

Minutes. How it is trained (the evidence lower bound, digits warped at random, Adam with one cycle) is that of `digits_vae`.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from skimage.io import imsave

from slimfront.studies.digits_vae.digits import PARTS, digits
from slimfront.studies.digits_vae.train import encoded, judge, picture, train

from . import data
from .model import Encoder, build

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


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the digits' recurrent variational autoencoder.")
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=3e-3, help="the cycle's highest learning rate")
    parser.add_argument("--beta", type=float, default=1.0, help="what nats of the latent count beside the pixels'")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE / "strokes_rvae.safetensors", help="where the weights go")
    parser.set_defaults(bfloat16=False)
    return parser.parse_args()


if __name__ == "__main__":
    main()
