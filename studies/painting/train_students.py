"""Train the shared network of the painting network's students on the same photographs, and say how near they come.

    python -m slimfront.studies.painting.train_students          # students.safetensors

It took 42 minutes on two cores, beside other work; a GPU is used where there is one (there with a larger `--batch`).
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import Tensor

from slimfront.search.distillation import Example
from slimfront.search.losses import Loss
from slimfront.search.sandwich import Sandwich
from slimfront.search.shared_network import SharedNetwork
from slimfront.search.training import Schedule, Training, device
from slimfront.spaces.family import Family
from slimfront.spaces.graph import Port

from . import data
from .train import judge, training_crops, turned

HERE = Path(__file__).parent
FAMILY = Family(
    Port("input", (1, 3, data.SIDE, data.SIDE), (1, 3, data.SIDE, data.SIDE), "float32"),
    Port("output", (1, 3, data.SIDE, data.SIDE), (1, 3, data.SIDE, data.SIDE), "float32"),
    coarse=(4,),
    fine=(2,),
)
TOLD = 10  # times that it is said how near they come


class Crops:
    """Random crops of the training photographs and their paintings, turned and mirrored."""

    def __init__(self, inputs: Tensor, targets: Tensor, batch: int) -> None:
        self.inputs, self.targets = inputs.to(device()), targets.to(device())
        self.batch = batch

    def draw(self, random: np.random.Generator) -> Example:
        """A batch in 0..1, and its paintings."""
        chosen = torch.from_numpy(random.integers(len(self.inputs), size=self.batch)).to(device())
        turns, mirrored = int(random.integers(4)), bool(random.integers(2))
        photographs, paintings = (turned(t[chosen], turns, mirrored) for t in (self.inputs, self.targets))
        return {"input": photographs}, paintings, None

    def each(self) -> list[Example]:
        """The first of the crops as they are."""
        first = (t[: 4 * self.batch].float() / 255.0 for t in (self.inputs, self.targets))
        photographs, paintings = first
        return [({"input": photographs}, paintings, None)]


def main() -> None:
    """Crops, network, training, judgement, file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crops", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "students.safetensors")
    options = parser.parse_args()

    began = time.time()
    inputs, targets = crops(options.crops, options.processes, options.seed)
    print(f"{options.crops} crops painted in {time.time() - began:.0f} s", flush=True)

    network = SharedNetwork(FAMILY, input_scale=float(inputs.float().std()) / 255.0)
    schedule = Schedule(options.steps, rate=options.rate, seed=options.seed, clipped=True)
    lesson = Sandwich(network, Crops(inputs, targets, options.batch), Loss({"l1": 1.0}))
    checkpoint = options.out.with_suffix(".checkpoint") / "training.pt"
    training, began = Training(lesson, schedule, checkpoint), time.time()
    for part in range(TOLD):
        training.go_on(options.steps * (part + 1) // TOLD)
        print(f"step {training.step}, {time.time() - began:.0f} s: {judged(network)}", flush=True)
        save_file(network.arrays(), options.out)
    checkpoint.unlink()
    checkpoint.parent.rmdir()


def crops(count: int, processes: int, seed: int) -> tuple[Tensor, Tensor]:
    """Training crops and their paintings, made by several processes: two uint8 tensors [count, 3, 96, 96]."""
    seeds = np.random.SeedSequence(seed).spawn(processes)
    counts = [len(part) for part in np.array_split(np.arange(count), processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        parts = list(pool.map(_crops, counts, seeds))
    inputs, targets = (torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*parts, strict=True))
    return inputs, targets


def judged(network: SharedNetwork) -> str:
    """PSNR of the largest and the smallest student, and of two between, on the evaluation data."""
    largest = FAMILY.kinds[0]
    between = [replace(largest, width=width, fine_width=16, depth=depth) for width, depth in ((48, 3), (32, 4))]
    students = [largest, *between, FAMILY.smallest(largest)]
    return ", ".join(f"{judge(_Student(network, student), data.evaluation())[1]:.2f}" for student in students) + " dB"


class _Student(torch.nn.Module):
    """A student of a shared network as a module of photographs."""

    def __init__(self, network: SharedNetwork, student: object) -> None:
        super().__init__()
        self.given = partial(network, student)

    def forward(self, photographs: Tensor) -> Tensor:
        """[N, 3, H, W] to the same."""
        output: Tensor = self.given({"input": photographs.to(device())})
        return output.cpu()


def _crops(count: int, seed: np.random.SeedSequence) -> tuple[np.ndarray, np.ndarray]:
    inputs, targets = training_crops(count, np.random.default_rng(seed))
    return inputs.numpy(), targets.numpy()


if __name__ == "__main__":
    main()
