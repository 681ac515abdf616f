"""Train the network of four styles, and say how near it comes to the filters on photographs it never saw.

    python -m slimfront.studies.styles.train --bfloat16 --threads 1

Minutes. `--bfloat16` halves the time on processors that multiply in bfloat16; leave it out elsewhere.
"""

import argparse
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.io import imsave
from torch import Tensor, nn
from torch.nn import functional

from slimfront.objectives.quality import psnr_db
from slimfront.studies.painting.data import TRAINING, photograph
from slimfront.studies.painting.train import at_scales, drawn_crop, other_colours
from slimfront.studies.training_script import begin, given, keep, optimise, options_parser, tell

from . import data
from .model import STYLES, build

HERE = Path(__file__).parent
CROP = 64


def main() -> None:
    """Crops, network, training, judgement, files."""
    options = _options()
    begin(options)
    began = time.time()
    inputs, targets = training_crops(options.crops, np.random.default_rng(options.seed))
    print(f"{options.crops} crops painted in {len(STYLES)} styles in {time.time() - began:.0f} s", flush=True)
    network = build()
    tell(network, options, "crops")
    train(network, inputs, targets, options)
    for name, held_out in (("evaluation", data.evaluation()), ("test", data.test())):
        of_styles = judge(network, held_out)
        print(f"{name}: " + ", ".join(f"{style} {psnr:.2f} dB" for style, psnr in of_styles.items()))
    keep(network, options.out)
    imsave(options.out.with_suffix(".png"), picture(network))


def training_crops(count: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Random crops of the training photographs at several scales, turned and in varied colours, in every style.

    The filters see the crop alone, as in the evaluation data, so that the network learns its edges too.

    Returns:
        Two uint8 tensors, [count, 3, 64, 64] and [count, 4, 3, 64, 64].
    """
    scaled = {name: at_scales(photograph(name)) for name in TRAINING}
    inputs = torch.empty(count, 3, CROP, CROP, dtype=torch.uint8)
    targets = torch.empty(count, len(STYLES), 3, CROP, CROP, dtype=torch.uint8)
    for i in range(count):
        crop = drawn_crop(scaled, CROP, rng, partial(other_colours, rng=rng))
        crop = np.rot90(crop, int(rng.integers(4))).transpose(2, 0, 1)
        crop = np.round(255.0 * crop[..., :: int(rng.choice([-1, 1]))]).astype(np.uint8)
        inputs[i] = torch.from_numpy(crop)
        for k, style in enumerate(STYLES):
            targets[i, k] = torch.from_numpy(data.painted(crop / 255.0, style))
    return inputs, targets


def train(network: nn.Module, inputs: Tensor, targets: Tensor, options: argparse.Namespace) -> None:
    """L1 loss; every batch has all styles, each on crops of its own."""
    held_out = data.evaluation()
    style = torch.arange(options.batch) % len(STYLES)

    def loss() -> Tensor:
        chosen = torch.randint(len(inputs), (options.batch,))
        shown = (inputs[chosen].float() / 255.0).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=options.bfloat16):
            output = network(shown, functional.one_hot(style, len(STYLES)).float())
        return functional.l1_loss(output.float(), targets[chosen, style].float() / 255.0)

    def cat() -> str:
        return "cat in dB " + ", ".join(f"{name} {psnr:.2f}" for name, psnr in judge(network, held_out).items())

    optimise(network, loss, cat, options, every=250, rise=0.15)


def judge(network: nn.Module, held_out: dict[str, NDArray]) -> dict[str, float]:
    """Mean PSNR in dB of the network's pictures against the filters', by style."""
    made = styled(network, held_out["photograph"], held_out["style"])
    psnr = psnr_db(made, held_out["target"] / np.float32(255.0), 0.0, 1.0)
    return {name: float(psnr[held_out["style"][:, k] == 1.0].mean()) for k, name in enumerate(STYLES)}


def styled(network: nn.Module, photographs: NDArray[np.float32], style: NDArray[np.float32]) -> NDArray[np.float32]:
    """[N, 3, H, W] and [N, 4] to [N, 3, H, W], in 0..1."""
    return given(network, torch.from_numpy(photographs), torch.from_numpy(style)).clamp(0.0, 1.0).numpy()


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
    out = HERE / "styles.safetensors"
    parser = options_parser("the network of four styles", out, steps=1800, batch=4, rate=1e-3)
    parser.add_argument("--crops", type=int, default=1200, help="training crops that are painted beforehand")
    return parser.parse_args()


if __name__ == "__main__":
    main()
