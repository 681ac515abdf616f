"""Where models run: what timings, readings of quality and the latency predictor ask of a runtime on a machine."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..spaces.build import file_size
from ..spaces.errors import BuildError
from ..spaces.kernels import Kernel, integer_reads, read_kernels
from ..spaces.rules import ONNX_RUNTIME, Rules
from ..spaces.session import CPU, open_session
from ..spaces.statistics import Progress
from .kernel_profile import KernelProfile, Profiled, Rounds, profile_in_turn
from .predicted_memory import PredictedMemory, predict_memory

INSPECTED_BYTES = 500_000_000  # a larger file's optimised graph is not written out to be looked at


class Session(Protocol):
    """A model that can be run, as ONNX Runtime's own `InferenceSession`."""

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> Sequence[Any]:
        """Return all outputs for one batch (arrays by input name) where no output is named."""
        ...


class Target(Protocol):
    """A runtime on a machine.

    Attributes:
        runtime: its name, for people.
        fingerprint: what times belong to: equal where they may be compared.
        rules: how candidates are made for it.
    """

    @property
    def runtime(self) -> str: ...  # noqa: D102

    @property
    def fingerprint(self) -> str: ...  # noqa: D102

    @property
    def rules(self) -> Rules: ...  # noqa: D102

    def open(self, model: Path | bytes) -> Session:
        """Open a model: an ONNX file, or its bytes.

        Raises:
            BuildError: the runtime refuses it.
        """
        ...

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Open a model; return how many integer kernels are known by each of its tensors as well (None where that is not seen).

        Args:
            model: the ONNX file.
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses it.
        """
        ...

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels that a model would run, without running it.

        Args:
            model: the ONNX file.
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return the memory that opening and running a model will take; None where that cannot be told.

        Args:
            model: the ONNX file.
            inputs: the shapes to measure at, by input name.

        Raises:
            BuildError: the runtime refuses the model.
        """
        ...

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn and return the times of their kernels (`kernel_profile.profile_in_turn`).

        Args:
            models: ONNX files with the same inputs.
            feed: one batch, arrays by input name.
            rounds: how often each is run.
            progress: told the part of the most rounds that is done.

        Raises:
            BuildError: the runtime refuses a model or fails while running it.
        """
        ...


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime on this machine.

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

    def open(self, model: Path | bytes) -> Session:
        """Return a stock session."""
        return open_session(model, threads=self.threads, provider=self.provider)

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Return a stock session, and what reads its tensors by its own graph; not that of a very large file."""
        if file_size(model) > INSPECTED_BYTES:
            return self.open(model), None
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            try:
                session = open_session(model, threads=self.threads, provider=self.provider, optimized_path=optimized)
            except BuildError:  # with its weights unpacked the optimised graph may be too large to be written
                return self.open(model), None
            return session, integer_reads(optimized)

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels of the graph that ONNX Runtime makes of the file."""
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            open_session(model, threads=self.threads, provider=self.provider, optimized_path=optimized)
            return read_kernels(optimized, inputs)

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return what a rehearsal of its arena takes, and opening the file; known of the processor alone."""
        return predict_memory(model, self.kernels(model, inputs)) if self.provider == CPU else None

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Run models in turn with ONNX Runtime's per-node profile."""
        opened = partial(Profiled, feed=feed, threads=self.threads, provider=self.provider)
        return profile_in_turn(opened, models, rounds, progress)


STOCK = OnnxRuntime()
