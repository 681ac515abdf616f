"""Distillation: a student learns to give what the reference gives, on the calibration data alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..spaces.session import batches
from .losses import Loss
from .training import device
from .variation import Variation, moved

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..spaces.graph import Graph
    from ..spaces.torch_view import TorchView

REMEMBERED = 1 << 29  # bytes of the teacher's outputs that are not worked out anew
VARIED = 0.5  # part of the inputs that are made of samples
MADE = 512  # different batches of such inputs

Student = TypeVar("Student", bound="nn.Module")
Feed = dict[str, "Tensor"]
Example = tuple[Feed, "Tensor", "Tensor | None"]


class Drawn(Protocol):
    """What a lesson is taught with."""

    def draw(self, random: np.random.Generator) -> Example:
        """Return a batch, what is wanted for it, and the target, if any."""
        ...

    def each(self) -> list[Example]:
        """Return all batches as they are, each as `draw` does."""
        ...


class Examples:
    """Samples, and inputs made of them, with what the teacher makes of each.

    Args:
        teacher: the reference, on `device`.
        inputs: samples by name, ``[N, ...]``.
        batch: how many go together.
        target: what is true of them ``[N, ...]``, where that is known. It is turned with the samples where both are pictures of
            as many channels; else only the samples as they are have a target, and what is made of samples has none.
        varied: the part of what is drawn that is made of samples (`Variation`), where anything can be; the rest are samples,
            turned and mirrored.
    """

    def __init__(
        self,
        teacher: TorchView,
        inputs: Mapping[str, NDArray],
        batch: int,
        target: NDArray | None = None,
        varied: float = VARIED,
    ) -> None:
        self.teacher = teacher
        self.batch = batch
        self.variation = Variation(inputs)
        self.varied = varied if self.variation.able else 0.0
        self.feeds: Sequence[Mapping[str, NDArray]] = list(batches(inputs, batch))
        self.targets = [None] * len(self.feeds) if target is None else list(_parts(target, batch, len(self.feeds)))
        self._turns_alike = target is not None and all(_alike(array, target) for array in inputs.values())
        self._known: dict[tuple[int, ...], Example] = {}
        self._bytes = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process, which may have another device: without what is remembered."""
        teacher = copy.deepcopy(self.teacher).cpu()
        return {**vars(self), "teacher": teacher, "feeds": [], "_known": {}, "_bytes": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.teacher = self.teacher.to(device())
        self.feeds = list(batches(self.variation.inputs, self.batch))

    def draw(self, random: np.random.Generator) -> Example:
        """Return a batch, the teacher's output for it and the target, if any."""
        if random.random() < self.varied:
            return self._made(int(random.integers(MADE)))
        return self._told(int(random.integers(len(self.feeds))), int(random.integers(4)), bool(random.integers(2)))

    def each(self) -> list[Example]:
        """Return all batches of samples as they are, each as `draw` does."""
        return [self._told(number, 0, False) for number in range(len(self.feeds))]

    def _made(self, number: int) -> Example:
        """Return a batch made of samples."""
        if (number,) not in self._known:
            return self._remembered((number,), self.variation.draw(np.random.default_rng(number), self.batch), None)
        return self._known[(number,)]

    def _told(self, number: int, turns: int, mirrored: bool) -> Example:
        """Return a batch of samples."""
        key = number, turns, int(mirrored)
        if key in self._known:
            return self._known[key]
        target = self.targets[number]
        if target is not None and (self._turns_alike or not (turns or mirrored)):
            target = moved({"": target}, turns, mirrored)[""]
        else:
            target = None
        return self._remembered(key, moved(self.feeds[number], turns, mirrored), target)

    def _remembered(self, key: tuple[int, ...], arrays: Mapping[str, NDArray], known: NDArray | None) -> Example:
        """Ask the teacher; remember what it says while there is room."""
        import torch

        feed = {name: torch.from_numpy(array).to(device()) for name, array in arrays.items()}
        with torch.no_grad():
            wanted = self.teacher(feed)
        target = None if known is None else torch.from_numpy(known).to(device())
        example = feed, wanted, target
        size = sum(tensor.nbytes for tensor in (*feed.values(), wanted, target) if tensor is not None)
        if self._bytes + size <= REMEMBERED:
            self._bytes += size
            self._known[key] = example
        return example


def _alike(array: NDArray, target: NDArray) -> bool:
    """Whether samples and targets are pictures of the same things: of as many channels."""
    return array.ndim == target.ndim == 4 and array.shape[1] == target.shape[1]


def _parts(target: NDArray, batch: int, count: int) -> Iterator[NDArray]:
    """Yield targets in batches, the last one filled up as that of the inputs is."""
    yield from (part[""] for part in islice(batches({"": target}, batch), count))


class Distillation(Generic[Student]):
    """The lesson of one student.

    Args:
        student: takes inputs by name, gives its first output.
        graph: its graph, for what is told of it.
        examples: what it learns from.
        loss: what is made small.
    """

    def __init__(self, student: Student, graph: Graph, examples: Drawn, loss: Loss) -> None:
        self.module: Student = student.to(device())
        self.graph = graph
        self.examples = examples
        self.measure = loss

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the loss on a batch that is drawn."""
        return self._loss(*self.examples.draw(random))

    def standing(self) -> float:
        """Return the mean loss over all samples as they are."""
        import torch

        with torch.no_grad():
            return float(np.mean([float(self._loss(*example)) for example in self.examples.each()]))

    def why_no_gradient(self) -> str:
        """Return which ops no gradient comes through."""
        from ..spaces.torch_view import steps

        return f"no gradient reaches the weights through {', '.join(steps(self.graph)) or 'this graph'}"

    def _loss(self, feed: Feed, wanted: Tensor, target: Tensor | None) -> Tensor:
        return self.measure(self.module(**feed), wanted, target)
