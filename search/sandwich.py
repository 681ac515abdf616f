"""A shared network learns all its students at once, by the sandwich rule.

Each step teaches the largest student, the smallest one and some between (Yu and Huang: Universally Slimmable Networks and
Improved Training Techniques, ICCV 2019), of one kind. There is no normalisation whose statistics would differ between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .distillation import Drawn
from .losses import Loss
from .shared_network import SharedNetwork
from .training import device

if TYPE_CHECKING:
    from torch import Tensor

    from ..spaces.student import Student

BETWEEN = 1  # students a step beside the largest and the smallest


class Sandwich:
    """The lesson of a shared network.

    Args:
        network: what learns.
        examples: what it learns from.
        loss: what is made small.
    """

    def __init__(self, network: SharedNetwork, examples: Drawn, loss: Loss) -> None:
        self.module: SharedNetwork = network.to(device())
        self.examples = examples
        self.measure = loss

    def chosen(self, random: np.random.Generator) -> list[Student]:
        """Return the students of a step: largest, smallest, and some between."""
        family = self.module.family
        kind = family.kinds[random.integers(len(family.kinds))]
        return [kind, family.smallest(kind), *(family.draw(kind, random) for _ in range(BETWEEN))]

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the mean of the students' losses on one batch."""
        feed, wanted, target = self.examples.draw(random)
        losses = [self.measure(self.module(student, feed), wanted, target) for student in self.chosen(random)]
        return sum(losses[1:], losses[0]) / len(losses)

    def standing(self) -> float:
        """Return the mean loss of the largest students over all samples as they are."""
        return float(np.mean([self.loss_of(kind) for kind in self.module.family.kinds]))

    def loss_of(self, student: Student) -> float:
        """Return a student's mean loss over all samples as they are."""
        import torch

        with torch.no_grad():
            found = [
                float(self.measure(self.module(student, feed), wanted, target))
                for feed, wanted, target in self.examples.each()
            ]
        return float(np.mean(found))

    def why_no_gradient(self) -> str:
        """Return why no gradient may have reached a weight."""
        return "no gradient reaches the students' weights: are the wanted outputs all the same?"
