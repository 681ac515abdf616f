"""LiteRT on the machine that this runs on: its interpreter, with XNNPACK, in float32 where no integers run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...spaces.errors import BuildError, last_line, not_installed
from .engine import WholeRunEngine
from .fixed_ports import Port, in_order
from .heard import hearing

PRECISION = "float32"
NOTE = re.compile(r"INFO: ")  # begins what LiteRT says of itself


@dataclass(frozen=True)
class LiteRtEngine(WholeRunEngine):
    """LiteRT's interpreter; it tells no graph of its own, and no times of kernels.

    Attributes:
        threads: of an inference.
    """

    threads: int = 1

    def open(self, model: Path | bytes) -> LiteRtModel:
        """Return a session of a .tflite file, or of its bytes."""
        return LiteRtModel(model, self.threads)


class LiteRtModel:
    """A model in LiteRT, run as ONNX Runtime's sessions are.

    Args:
        model: a .tflite file, or its bytes.
        threads: of an inference.

    Raises:
        InputError: LiteRT is not installed.
        BuildError: it refuses the model.
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        opened = interpreter()
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        with hearing(NOTE):
            try:
                self._interpreter = opened(**source, num_threads=threads)
                self._interpreter.allocate_tensors()
            except Exception as error:
                raise BuildError(f"LiteRT cannot load the model: {last_line(str(error)) or error}") from error
        inputs = self._interpreter.get_input_details()
        self._ports = [Port(tuple(map(int, each["shape"])), np.dtype(each["dtype"])) for each in inputs]
        self._inputs = [each["index"] for each in inputs]
        self._outputs = [each["index"] for each in self._interpreter.get_output_details()]

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Return all outputs for one batch, arrays by input name.

        Raises:
            BuildError: the file takes other inputs, or LiteRT fails.
        """
        arrays = in_order(self._ports, feed)
        try:
            for index, array in zip(self._inputs, arrays, strict=True):
                self._interpreter.set_tensor(index, array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]  # copies
        except Exception as error:
            raise BuildError(f"LiteRT fails while running the model: {last_line(str(error)) or error}") from error


@lru_cache(maxsize=1)
def interpreter() -> Any:
    """Return LiteRT's interpreter. Raises `InputError` where it is not installed."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise not_installed("litert", "LiteRT") from None
    return Interpreter


def version() -> str:
    """Return the version of LiteRT, and the precision that it runs in. Raises `InputError` where it is not installed."""
    interpreter()
    import ai_edge_litert

    return f"LiteRT {ai_edge_litert.__version__}, {PRECISION}"
