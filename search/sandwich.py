"""A shared network learns all its students at once, by the sandwich rule.

Each step teaches the largest student, the smallest one and some between (Yu and Huang: Universally Slimmable Networks and
Improved Training Techniques, ICCV 2019), of one kind. There is no normalisation whose statistics would differ between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .distillation import Feed
from .shared_network import SharedNetwork
from .training import device

if TYPE_CHECKING:
    from torch import Tensor

    from ..spaces.student import Student

BETWEEN = 1  # students a step beside the largest and the smallest


class Drawn(Protocol):
    """What a shared network learns from."""

    def draw(self, random: np.random.Generator) -> tuple[Feed, Tensor]:
        """Return a batch and what is wanted for it."""
        ...

    def each(self) -> list[tuple[Feed, Tensor]]:
        """Return all batches as they are."""
        ...


class Sandwich:
    """The lesson of a shared network.

    Args:
        network: what learns.
        examples: what it learns from.
        span: of the output's values, black to white: losses are in parts of it.
        error: of outputs and what is wanted, both in parts of the span; by default the mean absolute difference.
    """

    def __init__(
        self,
        network: SharedNetwork,
        examples: Drawn,
        span: float,
        error: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        from torch.nn import functional

        self.module: SharedNetwork = network.to(device())
        self.network = network
        self.examples = examples
        self.span = span
        self.error = error or functional.l1_loss

    def chosen(self, random: np.random.Generator) -> list[Student]:
        """Return the students of a step: largest, smallest, and some between."""
        family = self.network.family
        kind = family.kinds[random.integers(len(family.kinds))]
        return [kind, family.smallest(kind), *(family.draw(kind, random) for _ in range(BETWEEN))]

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the mean of the students' losses on one batch."""
        feed, wanted = self.examples.draw(random)
        students = self.chosen(random)
        losses = [self.error(self.network(student, feed) / self.span, wanted / self.span) for student in students]
        return sum(losses[1:], losses[0]) / len(losses)

    def standing(self) -> float:
        """Return the mean loss of the largest students over all samples as they are."""
        return float(np.mean([self.loss_of(kind) for kind in self.network.family.kinds]))

    def loss_of(self, student: Student) -> float:
        """Return a student's mean loss over all samples as they are."""
        import torch

        with torch.no_grad():
            found = [
                float(self.error(self.network(student, feed) / self.span, wanted / self.span))
                for feed, wanted in self.examples.each()
            ]
        return float(np.mean(found))

    def why_no_gradient(self) -> str:
        """Return why no gradient may have reached a weight."""
        return "no gradient reaches the students' weights: are the wanted outputs all the same?"
