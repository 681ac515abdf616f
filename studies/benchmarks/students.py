"""python studies/benchmarks/students.py [--students 12] [--steps 1500] [--processes 2]

Does the shared network judge students as training each alone does? Students of `painting`, spread over what the shared network
has to choose from, are trained alone from nothing, on the crops that it learned from. Prints for each what the shared
network and the lone training reach on the calibration data, and their rank correlation.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.numpy import load_file
from scipy.stats import spearmanr

import slimfront.studies.painting as painting
from slimfront.search.alone import Alone
from slimfront.search.distillation import Distillation, Example
from slimfront.search.losses import Loss
from slimfront.search.sandwich import Sandwich
from slimfront.search.shared_network import SharedNetwork
from slimfront.search.training import Schedule, Training
from slimfront.spaces.student import Student
from slimfront.spaces.work import multiply_adds
from slimfront.studies.painting import data
from slimfront.studies.painting.train_students import FAMILY, Crops, crops

WEIGHTS = Path(painting.__file__).parent / "students.safetensors"
RATE = 2e-3
BATCH = 8
CROPS = 4000


class Calibration:
    """The calibration data and its paintings."""

    def each(self) -> list[Example]:
        """All of it at once."""
        found = data.calibration()
        paintings = torch.from_numpy(found["target"]).float() / 255.0
        return [({"input": torch.from_numpy(found["input"])}, paintings, None)]

    def draw(self, random: np.random.Generator) -> Example:
        """All of it."""
        return self.each()[0]


def main() -> None:
    """Judge students in both ways and compare."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--students", type=int, default=12)
    flags.add_argument("--steps", type=int, default=1500)
    flags.add_argument("--processes", type=int, default=2)
    arguments = flags.parse_args()
    network = SharedNetwork(FAMILY, weights=load_file(WEIGHTS))
    lesson = Sandwich(network, Calibration(), Loss())
    every = sorted(FAMILY.students(), key=lambda student: sum(multiply_adds(FAMILY.graph_of(student)).values()))
    some = [every[row] for row in np.linspace(0, len(every) - 1, arguments.students).round().astype(int)]
    shared = [_db(lesson.loss_of(student)) for student in some]
    with TemporaryDirectory() as folder, ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        inputs, targets = crops(CROPS, arguments.processes, seed=0)
        np.savez(Path(folder) / "crops.npz", inputs=inputs.numpy(), targets=targets.numpy())
        alone = list(pool.map(partial(trained_alone, Path(folder), arguments.steps), some))
    print("| student | million multiply-adds | shared, dB | alone, dB |\n|---|---|---|---|")
    for student, first, second in zip(some, shared, alone, strict=True):
        work = sum(multiply_adds(FAMILY.graph_of(student)).values()) / 1e6
        print(f"| {student.width}-{student.fine_width}-{student.depth} | {work:.0f} | {first:.2f} | {second:.2f} |")
    print(f"Spearman {spearmanr(shared, alone).statistic:.3f} over {len(some)} students")


def trained_alone(folder: Path, steps: int, student: Student) -> float:
    """Return what a student reaches on the calibration data when it is trained alone, from nothing, in dB."""
    torch.set_num_threads(1)
    found = np.load(folder / "crops.npz")
    inputs, targets = (torch.from_numpy(found[name]) for name in ("inputs", "targets"))
    graph = FAMILY.graph_of(student)
    lesson = Distillation(Alone(graph), graph, Crops(inputs, targets, BATCH), Loss({"l1": 1.0}))  # type: ignore[arg-type]
    name = "-".join(map(str, student.to_json().values()))
    Training(lesson, Schedule(steps, RATE, clipped=True), folder / "training" / f"{name}.pt").go_on(steps)
    return _db(Distillation(lesson.module, graph, Calibration(), Loss()).standing())  # type: ignore[arg-type]


def _db(error: float) -> float:
    return float(-10.0 * np.log10(error))


if __name__ == "__main__":
    main()
