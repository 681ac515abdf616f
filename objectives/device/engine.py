"""What is asked of a runtime on the machine that it runs on: sessions, times, graphs and profiles, as plain data."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Progress = Callable[[str, float], None]

FIRST_RUNS = 1  # of a profile, discarded: memory is being laid out


class Session(Protocol):
    """A model that can be run, as ONNX Runtime's own `InferenceSession`."""

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> Sequence[Any]:
        """Return all outputs for one batch (arrays by input name) where no output is named."""
        ...


@dataclass(frozen=True)
class Slot:
    """A session's turn in a timing.

    Attributes:
        session: what is run.
        feed: one batch, arrays by input name.
        repeats: how often in a row.
    """

    session: Session
    feed: Mapping[str, np.ndarray]
    repeats: int = 1


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


@dataclass(frozen=True)
class RawProfile:
    """What a runtime tells of the runs of one model.

    Attributes:
        graph: that it made of the file, as `Engine.inspect` gives it.
        ran: (op, node) of what was timed in one run, in its order; nothing where it tells no times but those of whole runs.
        times_ms: of each in each run ``[runs, len(ran)]``, milliseconds; the first runs are left out where there are more.
        whole_ms: of each run ``[runs]``, what passes between the kernels included.
    """

    graph: bytes
    ran: Sequence[tuple[str, str]]
    times_ms: np.ndarray
    whole_ms: np.ndarray


class ProfiledModel(Protocol):
    """An open model that keeps the times of its kernels."""

    def run(self) -> None:
        """Run once more. Raises `BuildError` where the runtime fails."""
        ...

    def close(self) -> RawProfile:
        """End the profile and return it."""
        ...


class WholeRuns:
    """An open model of a runtime that tells no times of kernels: the profile has those of whole runs alone.

    Args:
        session: of the model.
        feed: one batch, arrays by input name.
    """

    def __init__(self, session: Session, feed: Mapping[str, np.ndarray]) -> None:
        self._session, self._feed = session, feed
        self._whole: list[float] = []

    def run(self) -> None:
        """Run once more. Raises what the session raises."""
        start = time.perf_counter()
        self._session.run(None, self._feed)
        self._whole.append(1000.0 * (time.perf_counter() - start))

    def close(self) -> RawProfile:
        """Return the profile; the first runs are left out where there are more."""
        whole = np.array(self._whole[FIRST_RUNS:] or self._whole)
        return RawProfile(b"", [], np.zeros((len(whole), 0)), whole)


class WholeRunEngine:
    """What engines have in common whose runtime tells no graph of its own, and no times of kernels."""

    def open(self, model: Path | bytes) -> Session:
        """Return a session of a file in the runtime's own format, or of its bytes."""
        raise NotImplementedError

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Session, bytes]:
        """Return a session, and nothing of its graph."""
        return self.open(model), b""

    def profile(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[RawProfile]:
        """Run models in turn; whole runs alone are timed."""
        return profile_in_turn(lambda model: WholeRuns(self.open(model), feed), models, rounds, progress)


class Engine(Protocol):
    """A runtime with its settings; it raises `BuildError` where it refuses a model or fails while running it."""

    def open(self, model: Path | bytes) -> Session:
        """Open a model: a file in the runtime's own format, or its bytes."""
        ...

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[Session, bytes]:
        """Open a model; return the graph that the runtime made of it as well, in a form of the runtime's own.

        That is empty where the runtime tells none.

        Args:
            model: the file.
            shapes: to measure at, by input name.
        """
        ...

    def profile(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[RawProfile]:
        """Run models in turn and return what the runtime tells of each (`profile_in_turn`)."""
        ...


def timed(slots: Sequence[Slot]) -> list[float]:
    """Run sessions one after another, each as often in a row as it says; return the mean seconds of a run of each."""
    clock = time.perf_counter
    found = []
    for slot in slots:
        run, feed, repeats = slot.session.run, slot.feed, slot.repeats
        start = clock()
        for _ in range(repeats):
            run(None, feed)
        found.append((clock() - start) / repeats)
    return found


def profile_in_turn(
    opened: Callable[[Path], ProfiledModel], models: Sequence[Path], rounds: Rounds, progress: Progress | None = None
) -> list[RawProfile]:
    """Run models in turn, so that drift hits all.

    Args:
        opened: opens a model, ready to be run on a batch.
        models: files in the runtime's own format.
        rounds: how often each is run.
        progress: told the part of the most rounds that is done.

    Raises:
        BuildError: the runtime refuses a model or fails while running it.
    """
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
