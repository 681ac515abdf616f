"""Train encoder and decoder, and say how near the decoder comes to digits that they never saw.

    python -m slimfront.studies.strokes_rvae.train --threads 1

Minutes. How it is trained (the evidence lower bound, digits warped at random, Adam with one cycle) is that of `digits_vae`.
"""

from pathlib import Path

from slimfront.studies.digits_vae.train import train, vae_options

from .model import Encoder, build

HERE = Path(__file__).parent


def main() -> None:
    """Train this study's networks."""
    out = HERE / "strokes_rvae.safetensors"
    train(Encoder, build, vae_options("the digits' recurrent variational autoencoder", out, steps=3600, rate=3e-3))


if __name__ == "__main__":
    main()
