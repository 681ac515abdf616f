"""Training by distillation: a candidate learns to give what the reference gives, on the calibration data alone."""

from __future__ import annotations

import copy
import io
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import BuildError
from ..spaces.session import batches
from ..spaces.statistics import Progress
from ..studies.run_folder import write_whole, writing_to
from .variation import varied

if TYPE_CHECKING:
    import torch

    from ..spaces.torch_view import TorchView
    from ..spaces.trainee import Trainee

RISE = 0.05  # part of the steps in which the rate rises
BETAS = (0.9, 0.99)
SAVED_SECONDS = 30.0  # from one checkpoint to the next
HALVINGS = 2  # of the rate, after losses that are no numbers


@dataclass(frozen=True)
class Schedule:
    """How a candidate is trained.

    Attributes:
        steps: of one batch each.
        rate: the highest learning rate of Adam (Kingma and Ba, ICLR 2015), for weights; it rises, then falls to zero along
            half a cosine.
        grid_rate: likewise, for the logarithms of the grids' steps.
        seed: of the order and the variation of the samples.
    """

    steps: int
    rate: float = 3e-4
    grid_rate: float = 1e-3
    seed: int = 0

    def part(self, step: int) -> float:
        """Return the part of the rate at a step, from 0."""
        done = step / self.steps
        return min(1.0, (step + 1) / max(RISE * self.steps, 1.0)) * 0.5 * (1.0 + math.cos(math.pi * done))


class Training:
    """A candidate in training; it goes on from its checkpoint.

    Args:
        student: what is trained.
        teacher: the reference.
        inputs: samples by name, ``[N, ...]``.
        span: of the output's values, black to white: losses are in parts of it.
        schedule: how.
        checkpoint: a file for what there is so far.
    """

    def __init__(
        self,
        student: Trainee,
        teacher: TorchView,
        inputs: Mapping[str, NDArray],
        span: float,
        schedule: Schedule,
        checkpoint: Path,
    ) -> None:
        import torch

        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.student = student.to(self.device)
        self.teacher = teacher.to(self.device)
        self.feeds = list(batches(inputs, student.graph.batch))
        self.span = span
        self.schedule = schedule
        self.checkpoint = checkpoint
        self.step = 0
        self.halvings = 0
        self._optimizer = self._make_optimizer()
        self._good = self._state()

    def run(self, progress: Progress | None = None) -> tuple[float, float]:
        """Train to the end; return the mean loss on the samples as they are, before and after.

        Raises:
            BuildError: losses or gradients are no numbers, at a quarter of the rate too; or an op fails.
            InputError: the disk cannot be written to.
        """
        before = self._loss_of_all()
        self._resume()
        saved = time.monotonic()
        while self.step < self.schedule.steps:
            if not self._one_step():
                self._go_back()
                continue
            self.step += 1
            if time.monotonic() - saved > SAVED_SECONDS:
                saved = time.monotonic()
                self._save()
            if progress is not None:
                progress("training", self.step / self.schedule.steps)
        self._save()
        return before, self._loss_of_all()

    def _loss_of_all(self) -> float:
        import torch

        with torch.no_grad():
            return float(np.mean([float(self._loss(feed)) for feed in self.feeds]))

    def _loss(self, feed: Mapping[str, NDArray]) -> torch.Tensor:
        """Return the mean squared error against the reference's output on a batch, in parts of the span."""
        import torch

        given = {name: torch.from_numpy(array).to(self.device) for name, array in feed.items()}
        with torch.no_grad():
            wanted = self.teacher(given)
        return ((self.student(**given) - wanted) / self.span).square().mean()

    def _make_optimizer(self) -> torch.optim.Optimizer:
        import torch

        named = [(name, each) for name, each in self.student.named_parameters() if each.requires_grad]
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

        random = np.random.default_rng([self.schedule.seed, self.step])
        loss = self._loss(varied(self.feeds[random.integers(len(self.feeds))], random))
        if not torch.isfinite(loss):
            return False
        if not loss.requires_grad:
            raise BuildError(self._without_gradient())
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * self.schedule.part(self.step) * 0.5**self.halvings
        self._optimizer.zero_grad()
        loss.backward()
        slopes = [
            each.grad for group in self._optimizer.param_groups for each in group["params"] if each.grad is not None
        ]
        if not all(bool(torch.isfinite(slope).all()) for slope in slopes):
            return False
        if self.step == 0 and not any(bool(slope.any()) for slope in slopes) and float(loss) > 0.0:
            raise BuildError(self._without_gradient())
        self._optimizer.step()
        return True

    def _without_gradient(self) -> str:
        from ..spaces.torch_view import steps

        return f"no gradient reaches the weights through {', '.join(steps(self.student.graph)) or 'this graph'}"

    def _go_back(self) -> None:
        """Go on from the last checkpoint with half the rate."""
        if self.halvings == HALVINGS:
            raise BuildError(
                f"the loss, or its gradient, is no number at step {self.step}, at a quarter of the rate too"
            )
        halvings = self.halvings + 1
        self._load(self._good)
        self.halvings = halvings

    def _state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {
                "step": self.step,
                "halvings": self.halvings,
                "student": self.student.state_dict(),
                "optimizer": self._optimizer.state_dict(),
            }
        )

    def _load(self, state: Mapping[str, Any]) -> None:
        self.step, self.halvings = state["step"], state["halvings"]
        self.student.load_state_dict(state["student"])
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
            self._load(torch.load(self.checkpoint, map_location=self.device, weights_only=True))
        except FileNotFoundError:
            return
        except (OSError, RuntimeError, ValueError, KeyError, EOFError, pickle.UnpicklingError):
            self.step = self.halvings = 0  # written by another version, or no checkpoint at all
            self._load(self._good)
        self._good = self._state()
