"""Losses: what training makes small, of what a student gives and what is wanted.

An extension point: a measure is a function of two tensors, the student's and the wanted one, in `MEASURES` under its name.
Pictures are in parts of the output's range; logits and labels of classifiers are as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SIGMA = 1.5  # of SSIM's window, as in the readings
RADIUS = 5
STABILISERS = (0.01**2, 0.03**2)
TEMPERATURE = 4.0
OF_PICTURES = ("l1", "l2", "ssim")
OF_CLASSES = ("kl", "cross_entropy")

Measure = Callable[["Tensor", "Tensor"], "Tensor"]


def l1(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean absolute difference."""
    return (found - wanted).abs().mean()


def l2(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean squared difference."""
    return (found - wanted).square().mean()


def ssim(found: Tensor, wanted: Tensor) -> Tensor:
    """Return 1 minus the structural similarity of pictures ``[N, C, H, W]`` of range 1, in the mean.

    Wang, Bovik, Sheikh and Simoncelli: Image Quality Assessment (IEEE Transactions on Image Processing, 2004).
    """
    import torch
    from torch.nn import functional

    ticks = torch.arange(-RADIUS, RADIUS + 1, dtype=found.dtype, device=found.device)
    line = torch.exp(-ticks.square() / (2.0 * SIGMA**2))
    line = line / line.sum()
    channels = found.shape[1]
    window = (line[:, None] * line[None, :]).expand(channels, 1, -1, -1)

    def mean(pictures: Tensor) -> Tensor:
        return functional.conv2d(pictures, window, groups=channels)

    first, second = mean(found), mean(wanted)
    spread, spread_wanted = mean(found.square()) - first.square(), mean(wanted.square()) - second.square()
    together = mean(found * wanted) - first * second
    a, b = STABILISERS
    alike = (2.0 * first * second + a) * (2.0 * together + b)
    return 1.0 - (alike / ((first.square() + second.square() + a) * (spread + spread_wanted + b))).mean()


def kl(found: Tensor, wanted: Tensor, temperature: float = TEMPERATURE) -> Tensor:
    """Return KL(softmax(found / T), softmax(wanted / T)) of logits ``[N, K]``, summed over classes, in the mean over samples.

    Its two arguments stand as in the classical form of this loss: the student's distribution first.
    """
    import torch

    student, teacher = (torch.log_softmax(logits / temperature, 1) for logits in (found, wanted))
    return (student.exp() * (student - teacher)).sum(1).mean()


def cross_entropy(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the cross entropy of logits ``[N, K]`` and labels ``[N]``, or probabilities ``[N, K]``, in the mean."""
    from torch.nn import functional

    return functional.cross_entropy(found, wanted.long() if wanted.ndim == 1 else wanted)


MEASURES: dict[str, Measure] = {"l1": l1, "l2": l2, "ssim": ssim, "kl": kl, "cross_entropy": cross_entropy}


@dataclass(frozen=True)
class Loss:
    """A weighted sum of measures: against the reference's output, and against the target where there is one.

    With ``Loss({"kl": beta}, {"cross_entropy": alpha})`` it is the classical loss of distillation (Hinton, Vinyals and Dean:
    Distilling the Knowledge in a Neural Network, 2015), alpha CE(y, softmax(z)) + beta KL(softmax(z / T), softmax(t / T)).

    Attributes:
        reference, target: weights by the names of `MEASURES`.
        span: of the output's values, black to white.
        temperature: of "kl".
    """

    reference: Mapping[str, float] = field(default_factory=lambda: {"l2": 1.0})
    target: Mapping[str, float] = field(default_factory=dict)
    span: float = 1.0
    temperature: float = TEMPERATURE

    def __call__(self, found: Tensor, wanted: Tensor, target: Tensor | None = None) -> Tensor:
        """Return the loss.

        Args:
            found: what the student gives.
            wanted: what the reference gives.
            target: what is true, where that is known.
        """
        parts = self._parts(self.reference, found, wanted)
        parts += self._parts(self.target, found, target) if target is not None else []
        if not parts:  # a sample without a target, where targets alone are asked for
            parts = [found.sum() * 0.0]
        return sum(parts[1:], parts[0])

    def _parts(self, weights: Mapping[str, float], found: Tensor, wanted: Tensor) -> list[Tensor]:
        return [weight * self._measured(name, found, wanted) for name, weight in weights.items() if weight]

    def _measured(self, name: str, found: Tensor, wanted: Tensor) -> Tensor:
        if name == "kl":
            return kl(found, wanted, self.temperature)
        if name in OF_PICTURES:
            return MEASURES[name](found / self.span, wanted / self.span)
        return MEASURES[name](found, wanted)
