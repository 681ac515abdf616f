"""Distillation: a student learns to give what the reference gives, on the calibration data alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..spaces.session import batches
from .training import device
from .variation import moved

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spaces.graph import Graph
    from ..spaces.torch_view import TorchView

REMEMBERED = 1 << 30  # bytes of the teacher's outputs that are not worked out anew

Student = TypeVar("Student", bound="nn.Module")
Feed = dict[str, "Tensor"]
Loss = Callable[["Tensor", "Tensor"], "Tensor"]


class Examples:
    """Samples, turned and mirrored, with what the teacher makes of them.

    Args:
        teacher: the reference, on `device`.
        inputs: samples by name, ``[N, ...]``.
        batch: how many go together.
    """

    def __init__(self, teacher: TorchView, inputs: Mapping[str, NDArray], batch: int) -> None:
        self.teacher = teacher
        self.feeds: Sequence[Mapping[str, NDArray]] = list(batches(inputs, batch))
        self._known: OrderedDict[tuple[int, int, bool], tuple[Feed, Tensor]] = OrderedDict()
        self._bytes = 0

    def draw(self, random: np.random.Generator) -> tuple[Feed, Tensor]:
        """Return a batch and the teacher's output for it."""
        return self._told(int(random.integers(len(self.feeds))), int(random.integers(4)), bool(random.integers(2)))

    def each(self) -> list[tuple[Feed, Tensor]]:
        """Return all batches as they are, and the teacher's outputs."""
        return [self._told(number, 0, False) for number in range(len(self.feeds))]

    def _told(self, number: int, turns: int, mirrored: bool) -> tuple[Feed, Tensor]:
        import torch

        key = number, turns, mirrored
        if key not in self._known:
            arrays = moved(self.feeds[number], turns, mirrored)
            feed = {name: torch.from_numpy(array).to(device()) for name, array in arrays.items()}
            with torch.no_grad():
                wanted = self.teacher(feed)
            size = sum(tensor.nbytes for tensor in (*feed.values(), wanted))
            if self._bytes + size > REMEMBERED:
                return feed, wanted
            self._bytes += size
            self._known[key] = feed, wanted
        return self._known[key]


class Distillation(Generic[Student]):
    """The lesson of one student.

    Args:
        student: takes inputs by name, gives its first output.
        graph: its graph, for what is told of it.
        examples: what it learns from.
        span: of the output's values, black to white: losses are in parts of it.
    """

    def __init__(self, student: Student, graph: Graph, examples: Examples, span: float) -> None:
        self.module: Student = student.to(device())
        self.graph = graph
        self.examples = examples
        self.span = span

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the mean squared error against the teacher's output."""
        return self._error(*self.examples.draw(random))

    def standing(self) -> float:
        """Return the mean squared error over all samples as they are."""
        import torch

        with torch.no_grad():
            return float(np.mean([float(self._error(*pair)) for pair in self.examples.each()]))

    def why_no_gradient(self) -> str:
        """Return which ops no gradient comes through."""
        from ..spaces.torch_view import steps

        return f"no gradient reaches the weights through {', '.join(steps(self.graph)) or 'this graph'}"

    def _error(self, feed: Feed, wanted: Tensor) -> Tensor:
        return ((self.module(**feed) - wanted) / self.span).square().mean()
