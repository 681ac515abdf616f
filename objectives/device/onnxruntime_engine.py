"""ONNX Runtime on the machine that this runs on: stock sessions, its optimised graph, its own profile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...spaces.errors import BuildError
from ...spaces.session import CPU, open_session
from .engine import FIRST_RUNS, Progress, RawProfile, Rounds, profile_in_turn

if TYPE_CHECKING:
    import onnxruntime as ort

ENDING = "_kernel_time"  # of the events of kernels, after the node's name
UNKNOWN = "ONNX Runtime's profile does not name the kernels of its own graph in their order"


@dataclass(frozen=True)
class OnnxRuntimeEngine:
    """ONNX Runtime; the graphs that it gives are ONNX models whose larger weights are not there.

    Attributes:
        threads: intra-op threads.
        provider: execution provider.
    """

    threads: int = 1
    provider: str = CPU

    def open(self, model: Path | bytes) -> ort.InferenceSession:
        """Return a stock session."""
        return open_session(model, threads=self.threads, provider=self.provider)

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[ort.InferenceSession, bytes]:
        """Return a stock session, and the optimised graph; it is the same for all shapes."""
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            optimized = Path(folder) / "optimized.onnx"
            session = open_session(model, threads=self.threads, provider=self.provider, optimized_path=optimized)
            return session, optimized.read_bytes()

    def profile(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[RawProfile]:
        """Run models in turn with the per-node profile."""
        return profile_in_turn(partial(ProfiledOnnx, feed=feed, engine=self), models, rounds, progress)


class ProfiledOnnx:
    """A model opened with ONNX Runtime's per-node profile.

    Args:
        path: the ONNX file.
        feed: one batch, arrays by input name.
        engine: its settings.

    Raises:
        BuildError: ONNX Runtime refuses the model.
    """

    def __init__(self, path: Path, feed: Mapping[str, np.ndarray], engine: OnnxRuntimeEngine | None = None) -> None:
        engine = engine or OnnxRuntimeEngine()
        self.feed = dict(feed)
        self._folder = tempfile.TemporaryDirectory(prefix="slimfront-")
        folder = Path(self._folder.name)
        self._session = open_session(
            path,
            threads=engine.threads,
            provider=engine.provider,
            optimized_path=folder / "optimized.onnx",
            profile_prefix=folder / "profile",
        )
        self.graph = (folder / "optimized.onnx").read_bytes()

    def run(self) -> None:
        """Run once more.

        Raises:
            BuildError: ONNX Runtime fails.
        """
        try:
            self._session.run(None, self.feed)
        except Exception as error:
            raise BuildError(f"ONNX Runtime fails while running the model: {error}") from error

    def close(self) -> RawProfile:
        """End the profile and return it; the first runs are left out where there are more."""
        try:
            text = Path(self._session.end_profiling()).read_text(encoding="utf-8")
        finally:
            self._folder.cleanup()
        events = json.loads(text)
        whole = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"]
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(ENDING)]
        if not whole or len(nodes) % len(whole):
            raise BuildError(UNKNOWN)
        times = np.array([event["dur"] for event in nodes], float).reshape(len(whole), -1) / 1000.0
        ran = [(event["args"]["op_name"], event["name"].removesuffix(ENDING)) for event in nodes[: times.shape[1]]]
        first = FIRST_RUNS if len(whole) > FIRST_RUNS else 0
        whole_ms = np.array([event["dur"] for event in whole], float)[first:] / 1000.0
        return RawProfile(self.graph, ran, times[first:], whole_ms)
