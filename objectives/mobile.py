"""LiteRT and ExecuTorch as targets: files that are packed of a lowered ONNX graph, runtimes that tell no kernels.

Which kernels they run is read from the graph that the file is packed of, with what both make of it: integer kernels of what
QuantizeLinear and DequantizeLinear enclose (`fused_kernels`). Only whole runs are timed (`shared_time`).
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..spaces.kernels import Kernel
from ..spaces.rules import EXECUTORCH, LITERT, Rules
from ..spaces.statistics import Progress
from .device.engine import Engine, Rounds, Session
from .device.executorch_engine import ExecuTorchEngine
from .device.litert_engine import LiteRtEngine
from .fused_kernels import fused_kernels
from .kernel_profile import KernelProfile
from .litert_graph import integer_products
from .place import Placed
from .predicted_memory import PredictedMemory
from .shared_time import shared_profile


@dataclass(frozen=True)
class Mobile(Placed):
    """What LiteRT and ExecuTorch have in common.

    Attributes:
        fingerprint: of the machine.
        threads: of an inference.
    """

    fingerprint: str = ""
    threads: int = 1
    runtime: str = ""
    rules: Rules = LITERT
    made: ClassVar[Callable[[int], Engine]]  # the runtime here, with so many threads

    @property
    def engine(self) -> Engine:
        """The runtime itself, where it runs."""
        return self.device or type(self).made(self.threads)

    def open(self, model: Path | bytes) -> Session:
        """Return a session."""
        return self.engine.open(model)

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Return a session; which of its products run in integers is not seen."""
        return self.open(model), None

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        """Return the kernels that the file of a lowered graph would run."""
        return fused_kernels(model, inputs)

    def predicted_memory(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> PredictedMemory | None:
        """Return nothing: how these runtimes lay out tensors and weights is not known here."""
        return None

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[KernelProfile]:
        """Pack lowered graphs, run the files in turn, and share the time of whole runs among their kernels."""
        shapes = {name: array.shape for name, array in feed.items()}
        kernels = [self.kernels(model, shapes) for model in models]
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            files = [Path(folder) / f"{number}{self.rules.format.suffix}" for number in range(len(models))]
            for model, file in zip(models, files, strict=True):
                file.write_bytes(self.rules.format.packed(model, shapes))
            with self.alone():
                raw = self.engine.profile(files, feed, rounds, progress)
        return [shared_profile(each, own) for each, own in zip(raw, kernels, strict=True)]


@dataclass(frozen=True)
class LiteRt(Mobile):
    """LiteRT, which was TensorFlow Lite."""

    runtime: str = "LiteRT"
    rules: Rules = LITERT
    made = LiteRtEngine

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Session, Counter[str] | None]:
        """Return a session, and the integer products of the file."""
        return self.open(model), integer_products(model)


@dataclass(frozen=True)
class ExecuTorch(Mobile):
    """ExecuTorch, with XNNPACK."""

    runtime: str = "ExecuTorch"
    rules: Rules = EXECUTORCH
    made = ExecuTorchEngine
