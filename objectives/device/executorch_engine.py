"""ExecuTorch on the machine that this runs on: its runtime, with the backends of its package, in float32 where no integers run.

Its threads are the whole process's, and what is open holds on to them: a number other than before means to open all anew.
"""

from __future__ import annotations

import importlib
import re
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...spaces.errors import BuildError, not_installed
from .engine import WholeRunEngine
from .fixed_ports import Port, in_order
from .heard import hearing

PACKAGE = "executorch"
PRECISION = "float32"
METHOD = "forward"
MISSING = "Missing operator"  # begins what names an op that no kernel runs
NOTE = re.compile(r"\[\w+\.(?:cpp|h):\d+\] ")  # begins what ExecuTorch says
# What `executorch.runtime` stands on. That loads the exporter as well, for the class of a warning: 4 s instead of 0.01 s.
PYBINDINGS = "executorch.extension.pybindings"
BINDINGS = ("_C", "portable_lib")
FILE, HEAD = re.compile(rb".{4}ET\d\d", re.DOTALL), 8  # what a .pte file begins with, and the bytes of that
TYPES = {
    0: np.uint8,
    1: np.int8,
    2: np.int16,
    3: np.int32,
    4: np.int64,
    5: np.float16,
    6: np.float32,
    7: np.float64,
    11: np.bool_,
}  # by their numbers in executorch/runtime/core/portable_type/scalar_type.h

_open: weakref.WeakSet[ExecuTorchModel] = weakref.WeakSet()


@dataclass(frozen=True)
class ExecuTorchEngine(WholeRunEngine):
    """ExecuTorch's runtime; it tells no graph of its own, and no times of kernels.

    Attributes:
        threads: of an inference.
    """

    threads: int = 1

    def open(self, model: Path | bytes) -> ExecuTorchModel:
        """Return a session of a .pte file, or of its bytes."""
        return ExecuTorchModel(model, self.threads)


class ExecuTorchModel:
    """A model in ExecuTorch, run as ONNX Runtime's sessions are.

    Args:
        model: a .pte file, or its bytes.
        threads: of an inference.

    Raises:
        InputError: ExecuTorch is not installed.
        BuildError: it refuses the model.
    """

    def __init__(self, model: Path | bytes, threads: int = 1) -> None:
        self._bindings = bindings()
        self._model = model
        self._threads = threads
        self._method: Any = self._load()
        meta = self._method.method_meta()
        inputs = [meta.input_tensor_meta(number) for number in range(meta.num_inputs())]
        self._ports = [Port(tuple(each.sizes()), np.dtype(TYPES[each.dtype()])) for each in inputs]

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Return all outputs for one batch, arrays by input name.

        Raises:
            BuildError: the file takes other inputs, or ExecuTorch fails.
        """
        import torch

        arrays = in_order(self._ports, feed)
        if self._method is None:
            self._method = self._load()
        try:
            given = [torch.from_numpy(array if array.flags.writeable else array.copy()) for array in arrays]
            return [output.numpy() for output in self._method(given)]  # copies
        except Exception as error:
            raise BuildError(f"ExecuTorch fails while running the model: {error}") from error

    def let_go(self) -> None:
        """Close the model until it is run again: the threads that it holds on to are about to end."""
        self._method = None

    def _load(self) -> Any:
        _take_threads(self._bindings, self._threads)
        heard: list[str] = []
        try:
            with hearing(NOTE) as heard:
                method = self._program().load_method(METHOD)
        except Exception as error:
            raise BuildError(f"ExecuTorch cannot load the model: {_reason(heard) or error}") from error
        _open.add(self)
        return method

    def _program(self) -> Any:
        """Return the program, checked as a whole: a damaged one would be run as it is.

        What does not begin as such a file does is not shown to ExecuTorch: it would end the process on names that are no text.
        """
        if not FILE.fullmatch(self._head()):
            raise ValueError("it does not begin as a .pte file does")
        check = {"program_verification": self._bindings.Verification.InternalConsistency}
        if isinstance(self._model, bytes):
            return self._bindings._load_program_from_buffer(self._model, **check)
        return self._bindings._load_program(str(self._model), **check)

    def _head(self) -> bytes:
        if isinstance(self._model, bytes):
            return self._model[:HEAD]
        with self._model.open("rb") as file:
            return file.read(HEAD)


def _take_threads(runtime: Any, threads: int) -> None:
    """Let the process have so many threads; other models that are open are closed before they have others."""
    with hearing(NOTE):
        if runtime._threadpool_get_thread_count() == threads:
            return
        for model in list(_open):
            model.let_go()
        _open.clear()
        runtime._unsafe_reset_threadpool(threads)


def _reason(heard: Sequence[str]) -> str:
    """Return why a model is refused, which its error does not tell; "" where ExecuTorch says nothing."""
    missing = [line for line in heard if line.startswith(MISSING)]
    return ", ".join(missing) or next(iter(heard[-1:]), "")


@lru_cache(maxsize=1)
def bindings() -> Any:
    """Return ExecuTorch's own functions. Raises `InputError` where it, or PyTorch, is not installed."""
    with hearing(NOTE):
        try:
            importlib.import_module("torch")  # whose libraries it needs
        except ImportError:
            raise not_installed("executorch", "ExecuTorch") from None
        for name in BINDINGS:
            try:
                return importlib.import_module(f"{PYBINDINGS}.{name}")
            except ImportError:
                continue
    raise not_installed("executorch", "ExecuTorch")


def version() -> str:
    """Return the version of ExecuTorch, and the precision that it runs in. Raises `InputError` where it is not installed."""
    bindings()
    return f"ExecuTorch {metadata.version(PACKAGE)}, {PRECISION}"
