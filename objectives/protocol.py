"""What an objective is, what it is given, and the readings it gives.

class Energy:
    name = "energy"
    readings = {"energy_j": About("energy of a batch", "J", maximise=False)}

    def measure(self, subject: Subject) -> dict[str, Reading]:
        joules = my_meter(subject.model.session)
        return {"energy_j": Reading(joules, "J", how="power meter")}

study = sf.Study(…, objectives={"energy": {"objective": Energy(), "front": True}})
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..spaces.session import infer
from .samples import Samples
from .target import STOCK, Session, Target


@dataclass(frozen=True)
class Reading:
    """A measured value.

    Attributes:
        value: the value, finite.
        unit: "bytes", "dB", "ms", "x", or "" for a plain number.
        low: lower end of the 95 % interval, where the value is uncertain.
        high: upper end of it.
        how: how it was got, for people.
    """

    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    how: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the reading as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reading:
        """Read what `to_json` wrote."""
        return cls(**data)


@dataclass(frozen=True)
class OpenModel:
    """A model file with its samples; its session and its outputs are made when first asked for, and then kept.

    Attributes:
        path: the file.
        samples: what it is judged on.
        batch: the model's own batch size.
        target: what runs it.
        save_graph: writes the ONNX graph that the file was made of, where it is another thing and can be had.
    """

    path: Path
    samples: Samples
    batch: int = 1
    target: Target = STOCK
    save_graph: Callable[[Path], None] | None = field(default=None, compare=False)

    @contextmanager
    def graph(self) -> Iterator[Path | None]:
        """Give the path of the ONNX graph that the file is, or was made of; None where that cannot be had.

        Raises `BuildError` where it cannot be built again.
        """
        if self.target.rules.format.pack is None:
            yield self.path
        elif self.save_graph is None:
            yield None
        else:
            with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
                path = Path(folder) / "model.onnx"
                self.save_graph(path)
                yield path

    @property
    def session(self) -> Session:
        """The target's session, on ONNX Runtime a stock one. Raises `BuildError` where the file cannot be opened."""
        return self._opened[0]

    @property
    def integer_reads(self) -> Counter[str] | None:
        """How many integer kernels are known by each tensor (`Target.inspected`); None where that is not seen."""
        return self._opened[1]

    @cached_property
    def _opened(self) -> tuple[Session, Counter[str] | None]:
        shapes = {name: (self.batch, *array.shape[1:]) for name, array in self.samples.inputs.items()}
        return self.target.inspected(self.path, shapes)

    @cached_property
    def outputs(self) -> NDArray[np.float32]:
        """The first output for all samples, ``[N, ...]``, clipped to their range.

        Raises `BuildError` where the model fails or an output is not finite.
        """
        seen = self.samples.glanced(self.batch)
        rest = self._outputs(slice(seen, None))
        return np.concatenate([self.glanced, rest]) if seen else rest

    @cached_property
    def glanced(self) -> NDArray[np.float32]:
        """The same for the samples that are looked at first, ``[K, ...]`` (`Samples.glanced`)."""
        return self._outputs(slice(self.samples.glanced(self.batch)))

    def _outputs(self, part: slice) -> NDArray[np.float32]:
        inputs = {name: array[part] for name, array in self.samples.inputs.items()}
        raw = infer(self.session, inputs, self.batch, self.target.runtime)
        return np.clip(raw, self.samples.low, self.samples.high).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Subject:
    """What an objective measures: a model, and the uncompressed one beside it, opened once and shared.

    For the reference itself both are the same object.

    Attributes:
        model: what is measured.
        reference: the uncompressed model.
        reference_seconds: what a batch of the reference needs when nothing disturbs it, as far as it is known.
        predicted: the model's predicted speedup with its 90 % interval, where a timing only has to confirm it.
    """

    model: OpenModel
    reference: OpenModel
    reference_seconds: float | None = None
    predicted: Reading | None = None

    @property
    def is_reference(self) -> bool:
        """Whether the model is the uncompressed one."""
        return self.model is self.reference


class Objective(Protocol):
    """Something that can be measured on a model.

    One that can tell something from a few samples already has a method `glance` as well, like `Quality`'s.

    Attributes:
        name: the stage its records are kept under.
    """

    name: str

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return readings by name, all finite.

        Raises:
            BuildError: the model does not load or run, or gives values that are not finite.
        """
        ...


@dataclass(frozen=True)
class About:
    """What people are told of a reading, and which way is better.

    Attributes:
        title: what it is called, in small letters.
        unit: as of `Reading`.
        maximise: whether more is better.
        explanation: one sentence, with its source.
    """

    title: str
    unit: str = ""
    maximise: bool = True
    explanation: str = ""

    def minimised(self, value: float) -> float:
        """Return a value so that less is better."""
        return -value if self.maximise else value


class FurtherObjective(Objective, Protocol):
    """An objective beside size, speed and quality, which a study's ``[objectives]`` asks for.

    One of its readings is its value, which can join the front and be limited. It is measured after quality and before
    timing; those of pictures on the outputs that quality was measured on. One that asks something of the data has a method
    ``check`` as well, which is given the samples and the study's key of them, and raises `InputError` where they lack it.

    Attributes:
        readings: what it always reads, by name; the first is its value, where the study names no other.
    """

    @property
    def readings(self) -> Mapping[str, About]:
        """What it always reads."""
        ...
