"""Which kernels a runtime runs for a model file, and how long each takes; ONNX Runtime's own profile of them."""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from ..spaces.errors import BuildError
from ..spaces.kernels import Kernel, read_kernels
from ..spaces.session import CPU, open_session
from ..spaces.statistics import Progress
from .machine import machine_to_itself

ENDING = "_kernel_time"  # of the events of kernels, after the node's name
FIRST_RUNS = 1  # discarded: memory is being laid out


@dataclass(frozen=True)
class KernelProfile:
    """Measured kernels of one model.

    Attributes:
        kernels: in the order in which they run.
        times_ms: of each in each run ``[runs, kernels]``, milliseconds.
        whole_ms: of each run ``[runs]``, what passes between the kernels included.
    """

    kernels: list[Kernel]
    times_ms: np.ndarray
    whole_ms: np.ndarray

    @property
    def kernel_ms(self) -> np.ndarray:
        """The median time of each kernel ``[kernels]``."""
        return np.asarray(np.median(self.times_ms, axis=0))


@dataclass(frozen=True)
class Rounds:
    """How often models are run in turn.

    Attributes:
        least: runs of each that count, after the first ones; always made.
        most: never exceeded.
        seconds: or they end when they have taken this long.
    """

    least: int
    most: int
    seconds: float = math.inf


class ProfiledModel(Protocol):
    """An open model that keeps the times of its kernels (`profile_in_turn`)."""

    def run(self) -> None:
        """Run once more. Raises `BuildError` where the runtime fails."""
        ...

    def close(self) -> KernelProfile:
        """End the profile and return it; the first runs are left out where there are more."""
        ...


class Profiled:
    """A model opened with ONNX Runtime's per-node profile.

    Args:
        path: the ONNX file.
        feed: one batch, arrays by input name.
        threads: intra-op threads.
        provider: execution provider.

    Raises:
        BuildError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: Path, feed: Mapping[str, np.ndarray], threads: int = 1, provider: str = CPU) -> None:
        self.feed = dict(feed)
        self._folder = tempfile.TemporaryDirectory(prefix="slimfront-")
        folder = Path(self._folder.name)
        self._session = open_session(
            path,
            threads=threads,
            provider=provider,
            optimized_path=folder / "optimized.onnx",
            profile_prefix=folder / "profile",
        )
        self.kernels = read_kernels(folder / "optimized.onnx", {name: array.shape for name, array in self.feed.items()})

    def run(self) -> None:
        """Run once more.

        Raises:
            BuildError: ONNX Runtime fails.
        """
        try:
            self._session.run(None, self.feed)
        except Exception as error:
            raise BuildError(f"ONNX Runtime fails while running the model: {error}") from error

    def close(self) -> KernelProfile:
        """End the profile and return it; the first runs are left out where there are more."""
        try:
            text = Path(self._session.end_profiling()).read_text(encoding="utf-8")
        finally:
            self._folder.cleanup()
        events = json.loads(text)
        whole = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"]
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(ENDING)]
        ran = [(event["args"]["op_name"], event["name"].removesuffix(ENDING)) for event in nodes[: len(self.kernels)]]
        expected = [
            (kernel.short_op, kernel.node or name) for kernel, (_, name) in zip(self.kernels, ran, strict=False)
        ]
        if len(nodes) != len(whole) * len(self.kernels) or ran != expected:
            raise BuildError("ONNX Runtime's profile does not name the kernels of its own graph in their order")
        times = np.array([event["dur"] for event in nodes], float).reshape(len(whole), -1) / 1000.0
        first = FIRST_RUNS if len(whole) > FIRST_RUNS else 0
        return KernelProfile(self.kernels, times[first:], np.array([e["dur"] for e in whole], float)[first:] / 1000.0)


def profile_in_turn(
    opened: Callable[[Path], ProfiledModel],
    models: Sequence[Path],
    rounds: Rounds,
    progress: Progress | None = None,
) -> list[KernelProfile]:
    """Run models in turn, so that drift hits all, and return the times of their kernels; other timings wait meanwhile.

    Args:
        opened: opens a model, ready to be run on a batch.
        models: ONNX files.
        rounds: how often each is run.
        progress: told the part of the most rounds that is done.

    Raises:
        BuildError: the runtime refuses a model or fails while running it.
    """
    with machine_to_itself():
        profiled = [opened(model) for model in models]
        begun = time.perf_counter()
        for done in range(FIRST_RUNS + rounds.most):
            if done >= FIRST_RUNS + rounds.least and time.perf_counter() - begun >= rounds.seconds:
                break
            for each in profiled:
                each.run()
            if progress is not None:
                progress("profile", (done + 1) / (FIRST_RUNS + rounds.most))
        return [each.close() for each in profiled]
