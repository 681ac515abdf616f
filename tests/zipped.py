"""A runtime whose files are no ONNX graphs but are made of them, for tests of what does not ask which runtime it is.

Its files are zipped graphs, which ONNX Runtime runs. Given a graph where a file belongs, or a file where a graph does, it fails.
"""

from __future__ import annotations

import importlib.metadata
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from slimfront.objectives import runtimes
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.errors import BuildError
from slimfront.spaces.formats import Format
from slimfront.spaces.graph import serialized
from slimfront.spaces.rules import ONNX_RUNTIME, RULES, Rules
from slimfront.studies import card

NAME = "zipped"


def pack(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    """Return a zipped graph behind the shapes that it was made for."""
    return repr(dict(shapes)).encode() + b"\n" + zlib.compress(serialized(model), level=1)


ZIPPED = replace(ONNX_RUNTIME, runtime=NAME, format=Format(".zipped", pack))


@dataclass(frozen=True)
class Zipped(OnnxRuntime):
    """Runs zipped graphs."""

    runtime: str = "Zipped"
    rules: Rules = ZIPPED

    @property
    def is_stock(self) -> bool:
        """It is not."""
        return False

    def open(self, model: Path | bytes) -> Any:
        """Open a file, or its bytes."""
        data = model if isinstance(model, bytes) else model.read_bytes()
        try:
            return super().open(zlib.decompress(data.partition(b"\n")[2]))
        except zlib.error as error:
            raise BuildError(f"this is no zipped graph: {error}") from error

    def inspected(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> tuple[Any, None]:
        """Open a file; its kernels are not seen."""
        return self.open(model), None


def _target(machine: str, threads: int, provider: str) -> Zipped:
    return Zipped(machine, threads, provider)


RUNTIME = runtimes.Runtime(
    "onnxruntime", _target, lambda: f"Zipped {importlib.metadata.version('onnxruntime')}, float32"
)
SPEAKS = card._Runtime(lambda facts, feed: f'open("{facts["model"]}", "rb"), {feed}', lambda facts: "the module zlib")


def enter(patch: pytest.MonkeyPatch) -> None:
    """Make it a runtime that studies may name."""
    patch.setitem(RULES, NAME, ZIPPED)
    patch.setitem(runtimes.RUNTIMES, NAME, RUNTIME)  # type: ignore[arg-type]
    patch.setitem(card.RUNTIMES, NAME, SPEAKS)


def enter_others(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make it one in processes that are started from here as well; an empty folder is needed for that."""
    (folder / "sitecustomize.py").write_text(
        "import runpy, sys\n"
        f"zipped = runpy.run_path({__file__!r}, run_name='zipped')\n"
        "import pytest\n"
        "zipped['enter'](pytest.MonkeyPatch())\n"
    )
    patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
