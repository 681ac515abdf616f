"""Where models run: what the latency predictor asks of a runtime and a machine. Here: this machine's ONNX Runtime."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..spaces.kernels import Kernel, read_kernels
from ..spaces.session import CPU, open_session
from .kernel_profile import FIRST_RUNS, KernelProfile, profile_in_turn


class Target(Protocol):
    """A runtime on a machine."""

    @property
    def fingerprint(self) -> str:
        """What times belong to: equal where they may be compared."""
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

    def profiles(self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: int) -> list[KernelProfile]:
        """Run models in turn and return the times of their kernels.

        Args:
            models: ONNX files with the same inputs.
            feed: one batch, arrays by input name.
            rounds: how often each is run; the first does not count.

        Raises:
            BuildError: the runtime refuses a model or fails while running it.
        """
        ...


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime on this machine."""

    fingerprint: str
    threads: int = 1
    provider: str = CPU

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels of the graph that ONNX Runtime makes of the file."""
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            open_session(model, threads=self.threads, provider=self.provider, optimized_path=optimized)
            return read_kernels(optimized, inputs)

    def profiles(self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: int) -> list[KernelProfile]:
        """Run the models in turn, one round after another."""
        return profile_in_turn(
            models, feed, self.threads, self.provider, least=rounds - FIRST_RUNS, most=rounds - FIRST_RUNS
        )
