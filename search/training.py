"""Training, whatever is trained: a rate that rises and falls, checkpoints, and what is done about losses that are no numbers."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..spaces.errors import BuildError
from ..spaces.statistics import Progress
from ..studies.run_folder import write_whole, writing_to

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

TRAINING_FOLDER = "training"  # of a run, for checkpoints
RISE = 0.05  # part of the steps in which the rate rises
BETAS = (0.9, 0.99)
MOST_NORM = 1.0  # of all gradients together, where a lesson asks for it
SAVED_SECONDS = 30.0  # from one checkpoint to the next
ETA = 3  # one in so many of trainings that are compared goes on, with so many times the steps
HALVINGS = 2  # of the rate, after losses that are no numbers


@dataclass(frozen=True)
class Schedule:
    """How something is trained.

    Attributes:
        steps: of one loss each.
        rate: the highest learning rate of Adam (Kingma and Ba, ICLR 2015), for weights in the module's own units (a
            candidate's are parts of their root mean square); it rises, then falls to zero along half a cosine. The default is
            meant for one layer: see `for_layers`.
        grid_rate: likewise, for the logarithms of the grids' steps.
        seed: of all that is drawn.
        clipped: whether gradients whose norm is above `MOST_NORM` are scaled down to it.
    """

    steps: int
    rate: float = 1.2e-2
    grid_rate: float = 2.4e-3
    seed: int = 0
    clipped: bool = False

    def for_layers(self, count: int) -> Schedule:
        """Return the schedule for so many layers, which move the output together: rates fall with the root of the depth.

        Yang, Yu, Zhu and Hayou: Tensor Programs VI (ICLR 2024).
        """
        less = math.sqrt(max(count, 1))
        return replace(self, rate=self.rate / less, grid_rate=self.grid_rate / less)

    def part(self, step: int) -> float:
        """Return the part of the rate at a step, from 0."""
        done = step / self.steps
        return min(1.0, (step + 1) / max(RISE * self.steps, 1.0)) * 0.5 * (1.0 + math.cos(math.pi * done))


class Lesson(Protocol):
    """What is trained, and by what loss."""

    @property
    def module(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the loss of a step, on samples that are drawn."""
        ...

    def standing(self) -> float:
        """Return how far it is from its aim on the samples as they are; less is better."""
        ...

    def why_no_gradient(self) -> str:
        """Return why no gradient may have reached a weight."""
        ...


def device() -> str:
    """Return where training runs: on a GPU where there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


class Training:
    """A lesson that is gone through; it goes on from its checkpoint.

    Args:
        lesson: what is trained, on `device`.
        schedule: how.
        checkpoint: a file for what there is so far.
    """

    def __init__(self, lesson: Lesson, schedule: Schedule, checkpoint: Path) -> None:
        self.lesson = lesson
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.step = 0
        self.halvings = 0
        self._optimizer = self._make_optimizer()
        self._good = self._state()

    def run(self, progress: Progress | None = None) -> tuple[float, float]:
        """Train to the end; return the standing before and after.

        Raises:
            BuildError: losses or gradients are no numbers, at a quarter of the rate too; or an op fails.
            InputError: the disk cannot be written to.
        """
        before = self.lesson.standing()
        self.go_on(self.schedule.steps, progress)
        return before, self.lesson.standing()

    def go_on(self, until: int, progress: Progress | None = None) -> None:
        """Train until a step, from the checkpoint where there is one, and leave a checkpoint; raises as `run`."""
        if not self.step:
            self._resume()
        saved = time.monotonic()
        while self.step < until:
            if not self._one_step():
                self._go_back()
                continue
            self.step += 1
            if time.monotonic() - saved > SAVED_SECONDS:
                saved = time.monotonic()
                self._save()
            if progress is not None:
                self._tell(progress)
        self._save()

    def _tell(self, progress: Progress) -> None:
        try:
            progress("training", self.step / self.schedule.steps)
        except BaseException:  # the time is over, or somebody interrupts
            self._save()
            raise

    def _make_optimizer(self) -> torch.optim.Optimizer:
        import torch

        named = [(name, each) for name, each in self.lesson.module.named_parameters() if each.requires_grad]
        grids = [each for name, each in named if name.endswith("log_scale")]
        others = [each for name, each in named if not name.endswith("log_scale")]
        groups = [
            {"params": some, "rate": rate}
            for some, rate in ((others, self.schedule.rate), (grids, self.schedule.grid_rate))
            if some
        ]
        return torch.optim.Adam(groups, betas=BETAS)

    def _one_step(self) -> bool:
        """Take a step; return whether it could be taken: loss and gradient were numbers."""
        import torch

        loss = self.lesson.loss(np.random.default_rng([self.schedule.seed, self.step]))
        if not torch.isfinite(loss):
            return False
        if not loss.requires_grad:
            raise BuildError(self.lesson.why_no_gradient())
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * self.schedule.part(self.step) * 0.5**self.halvings
        self._optimizer.zero_grad()
        loss.backward()
        slopes = self._slopes()
        if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
            return False
        if self.step == 0 and not any(bool(slope.any()) for slope in slopes) and float(loss) > 0.0:
            raise BuildError(self.lesson.why_no_gradient())
        if self.schedule.clipped:
            torch.nn.utils.clip_grad_norm_(self.lesson.module.parameters(), MOST_NORM)
        self._optimizer.step()
        return True

    def _slopes(self) -> Sequence[Tensor]:
        groups = self._optimizer.param_groups
        return [each.grad for group in groups for each in group["params"] if each.grad is not None]

    def _go_back(self) -> None:
        """Go on from the last checkpoint with half the rate."""
        if self.halvings == HALVINGS:
            step = self.step
            self._load(self._good)
            raise BuildError(f"the loss, or its gradient, is no number at step {step}, at a quarter of the rate too")
        halvings = self.halvings + 1
        self._load(self._good)
        self.halvings = halvings

    def _state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "step": self.step,
                "halvings": self.halvings,
                "student": self.lesson.module.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            }
        )

    def _load(self, state: Mapping[str, Any]) -> None:
        self.step, self.halvings = state["step"], state["halvings"]
        self.lesson.module.load_state_dict(state["student"])
        self._optimizer.load_state_dict(
            copy.deepcopy(state["optimizer"])
        )  # it works on the very tensors that it is given

    def _save(self) -> None:
        import torch

        self._good = self._state()
        written = io.BytesIO()
        torch.save(self._good, written)
        with writing_to(self.checkpoint.parent.parent):
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.checkpoint, written.getvalue())

    def _resume(self) -> None:
        """Go on from the checkpoint, where there is one of this training."""
        import pickle

        import torch

        try:
            self._load(torch.load(self.checkpoint, map_location=device(), weights_only=True))
        except FileNotFoundError:
            return
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError):
            self.step = self.halvings = 0  # written by another version, or no checkpoint at all
            self._load(self._good)
        self._good = self._state()
