"""Train the generator against a discriminator, and say how often a classifier reads the digit that was asked for.

    python -m slimfront.studies.digits_gan.train --bfloat16 --threads 1

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.

The hinge loss of Lim and Ye (2017), spectral normalisation and a projection of the condition (Miyato and others, ICLR 2018),
and a running mean of the generator's weights (Yazıcı and others, ICLR 2019), which is what is kept.
"""

import argparse
import copy
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.io import imsave
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from slimfront.studies.digits_vae.digits import SIDE, digits
from slimfront.studies.digits_vae.train import warped
from slimfront.studies.training_script import begin, given, keep, options_parser, tell

from . import data
from .model import DIGITS, NOISE, build

HERE = Path(__file__).parent


class Discriminator(nn.Module):
    """Images [N, 1, 32, 32] in -1..1 and digits [N, 10], one-hot, to a score [N]: high for real ones."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inputs, outputs in ((1, width), (width, 2 * width), (2 * width, 4 * width)):
            layers += [spectral_norm(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)), nn.LeakyReLU(0.2)]
        self.features = nn.Sequential(*layers, nn.Flatten())
        size = 4 * width * (SIDE // 8) ** 2
        self.real = spectral_norm(nn.Linear(size, 1))
        self.fits = spectral_norm(nn.Linear(DIGITS, size, bias=False))

    def forward(self, images: Tensor, digit: Tensor) -> Tensor:
        """See the class."""
        features = self.features(images)
        return self.real(features)[:, 0] + (self.fits(digit) * features).sum(dim=1)


def main() -> None:
    """Digits, networks, training, judgement, files."""
    options = _options()
    begin(options)
    generator = build()
    tell(generator, options, "digits")
    images, labels = digits("training")
    kept = train(generator, torch.from_numpy(images), torch.from_numpy(labels), options)
    print(f"read as what was asked for: {100 * accuracy(kept):.1f} % of 1,000")
    keep(kept, options.out)
    imsave(options.out.with_suffix(".png"), picture(kept))


def train(generator: nn.Module, images: Tensor, labels: Tensor, options: argparse.Namespace) -> nn.Module:
    """Both networks a step each, in turn; the running mean of the generator is returned."""
    discriminator = Discriminator()
    for module in generator.modules():
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
    kept = copy.deepcopy(generator).eval()
    draws = torch.optim.Adam(generator.parameters(), options.rate, betas=(0.0, 0.9))
    judges = torch.optim.Adam(discriminator.parameters(), 2 * options.rate, betas=(0.0, 0.9))
    schedules = [torch.optim.lr_scheduler.PolynomialLR(o, options.steps) for o in (draws, judges)]  # to zero, linearly
    began = time.time()
    for step in range(1, options.steps + 1):
        chosen = torch.randint(len(images), (options.batch,))
        true, digit = 2.0 * warped(images[chosen]) - 1.0, functional.one_hot(labels[chosen], DIGITS).float()
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            made = generator(torch.randn(options.batch, NOISE), digit).float()
            real, false = discriminator(true, digit).float(), discriminator(made.detach(), digit).float()
        _step(judges, functional.relu(1.0 - real).mean() + functional.relu(1.0 + false).mean())
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            score = discriminator(made, digit).float().mean()
        _step(draws, -score)
        _follow(kept, generator, 0.998)
        for schedule in schedules:
            schedule.step()
        if step % 500 == 0 or step == options.steps:
            gap = (real.mean() - false.mean()).item()
            print(
                f"step {step}: gap {gap:.2f}, read {100 * accuracy(kept):.1f} %, {time.time() - began:.0f} s",
                flush=True,
            )
    return kept


def generated(generator: nn.Module, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """So many pictures, [N, 1, 32, 32] in 0..1, and the digits that were asked for, [N]."""
    samples = data.drawn(count, seed)
    images: NDArray[np.float32] = given(generator, *map(torch.from_numpy, (samples["noise"], samples["digit"]))).numpy()
    return (images + 1.0) / 2.0, samples["digit"].argmax(axis=1)


def accuracy(generator: nn.Module, count: int = 1000, seed: int = 4) -> float:
    """The share of pictures that a support vector machine, which learned scikit-learn's digits, reads as was asked for."""
    images, asked = generated(generator, count, seed)
    true, labels = digits("training")
    reader = SVC(gamma=0.03, C=10.0).fit(_reduced(true), labels)
    return float((reader.predict(_reduced(images)) == asked).mean())


def picture(generator: nn.Module) -> NDArray[np.uint8]:
    """Sixteen pictures of each digit, one digit a row; [640, 1024]."""
    images, _ = generated(generator, 16 * DIGITS, seed=5)
    sheet = images[:, 0].reshape(16, DIGITS, SIDE, SIDE).transpose(1, 2, 0, 3).reshape(DIGITS * SIDE, 16 * SIDE)
    return np.round(255.0 * sheet).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


def _reduced(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 1, 32, 32] to rows [N, 64]: the means of 4 x 4 pixels."""
    return images.reshape(len(images), SIDE // 4, 4, SIDE // 4, 4).mean(axis=(2, 4)).reshape(len(images), -1)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def _follow(kept: nn.Module, generator: nn.Module, decay: float) -> None:
    with torch.no_grad():
        for mean, now in zip(kept.state_dict().values(), generator.state_dict().values(), strict=True):
            mean.lerp_(now, 1.0 - decay) if mean.is_floating_point() else mean.copy_(now)


def _options() -> argparse.Namespace:
    return options_parser(
        "the digits' generator; its discriminator learns at twice the rate",
        HERE / "digits_gan.safetensors",
        steps=3000,
        batch=64,
        rate=2e-4,
    ).parse_args()


if __name__ == "__main__":
    main()
