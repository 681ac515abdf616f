"""Where models run: what timings, readings of quality and the latency predictor ask of a runtime on a machine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..spaces.build import file_size
from ..spaces.errors import BuildError
from ..spaces.kernels import Kernel, integer_reads, read_kernels
from ..spaces.rules import ONNX_RUNTIME, Rules
from ..spaces.session import CPU
from ..spaces.statistics import Progress
from .device.engine import Engine, Rounds, Session, Slot
from .device.onnxruntime_engine import OnnxRuntimeEngine
from .kernel_profile import KernelProfile, onnx_profile
from .place import Placed
from .predicted_memory import PredictedMemory, predict_memory

__all__ = ["INSPECTED_BYTES", "STOCK", "OnnxRuntime", "Session", "Slot", "Target"]

INSPECTED_BYTES = 500_000_000  # a larger file's optimised graph is not written out to be looked at


class Target(Protocol):
    """A runtime on a machine.

    Attributes:
        runtime: its name, for people.
        fingerprint: what times belong to: equal where they may be compared.
        rules: how candidates are made for it.
        together_seconds: of rounds of a timing that are asked for at once; 0 asks for one after the other.
    """

    @property
    def runtime(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def rules(self) -> Rules: ...  # noqa: D102

    @property
    def together_seconds(self) -> float: ...  # noqa: D102

    def open(self, model: Path | bytes) -> Session:
        """Open a model: a file in the form that the rules name, or its bytes.

        Raises:
            BuildError: the runtime refuses it.
        """
        ...

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Open a model; return how many integer kernels are known by each of its tensors as well (None where that is not seen).

        Args:
            model: a file in the form that the rules name.
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses it.
        """
        ...

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels that a model would run, without running it.

        Args:
            model: the ONNX graph that it was lowered to (`Built.save_graph`).
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return the memory that opening and running a model will take; None where that cannot be told.

        Args:
            model: the ONNX graph that it was lowered to (`Built.save_graph`).
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn and return the times of their kernels (`engine.profile_in_turn`); other timings wait meanwhile.

        Args:
            models: the ONNX graphs that they were lowered to (`Built.save_graph`), with the same inputs.
            feed: one batch, arrays by input name.
            rounds: how often each is run.
            progress: told the part of the most rounds that is done.

        Raises:
            BuildError: the runtime refuses a model or fails while running it.
        """
        ...

    def timed(self, slots: Sequence[Slot]) -> list[float]:
        """Run sessions one after another where they are; return the mean seconds of a run of each."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which nothing else is timed where models run; it waits until that is so."""
        ...


@dataclass(frozen=True)
class OnnxRuntime(Placed):
    """ONNX Runtime.

    Attributes:
        fingerprint: of the machine.
        threads: intra-op threads.
        provider: execution provider.
    """

    fingerprint: str = ""
    threads: int = 1
    provider: str = CPU
    runtime: str = "ONNX Runtime"
    rules: Rules = ONNX_RUNTIME

    @property
    def engine(self) -> Engine:
        """ONNX Runtime itself, where it runs."""
        return self.device or OnnxRuntimeEngine(self.threads, self.provider)

    @property
    def is_stock(self) -> bool:
        """Whether it is the runtime that others are held against: ONNX Runtime on this machine."""
        return self.device is None

    def open(self, model: Path | bytes) -> Session:
        """Return a stock session."""
        return self.engine.open(model)

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Return a stock session, and what reads its tensors by its own graph; not that of a very large file."""
        if file_size(model) > INSPECTED_BYTES:
            return self.open(model), None
        try:
            session, graph = self.engine.inspect(model, inputs)
        except BuildError:  # with its weights unpacked the optimised graph may be too large to be written
            return self.open(model), None
        return session, integer_reads(graph)

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels of the graph that ONNX Runtime makes of the file."""
        return read_kernels(self.engine.inspect(model, inputs)[1], inputs)

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return what a rehearsal of its arena takes, and opening the file; known of the processor alone."""
        return predict_memory(model, self.kernels(model, inputs)) if self.provider == CPU else None

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn with ONNX Runtime's per-node profile."""
        shapes = {name: array.shape for name, array in feed.items()}
        with self.alone():
            raw = self.engine.profile(models, feed, rounds, progress)
        return [onnx_profile(each, read_kernels(each.graph, shapes)) for each in raw]


STOCK = OnnxRuntime()
