"""Where a study's model and samples come from: what its file names, or what was given as objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..spaces.capture import InputShape, capture_module, capture_onnx, load_function, load_module
from ..spaces.errors import InputError
from ..spaces.graph import Graph
from . import data
from .definition import Settings


class Parts(Protocol):
    """Where a study's model and samples come from; `notes` grows as they are read."""

    notes: list[str]

    def graph(self) -> Graph:
        """Capture the model."""
        ...

    def student_weights(self) -> dict[str, NDArray] | None:
        """Return the weights of the students' shared network; None where there are none."""
        ...

    def student_family(self) -> Callable[[Any], Any] | None:
        """Return the function of the study's own family of students; None where it has none."""
        ...

    def arrays(self, key: str, graph: Graph) -> Mapping[str, Any] | None:
        """Return the raw arrays of "calibration", "evaluation" or "test"; None where there are none."""
        ...


class FileParts:
    """Parts that a study file names; paths are relative to its folder."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.notes: list[str] = []

    def graph(self) -> Graph:
        """Capture the ONNX file or the module."""
        table = self.settings.model
        if table.function is None:
            return capture_onnx(self.folder / table.file, table.input_shape)
        file = self.folder / table.file.removesuffix(f":{table.function}")
        weights = None if table.weights is None else self.folder / table.weights
        return capture_module(load_module(file, table.function, weights), table.input_shape or ())

    def student_weights(self) -> dict[str, NDArray] | None:
        """Read the file that ``[space.students]`` names."""
        table = self.settings.students
        if table is None or table.weights is None:
            return None
        return read_weights(self.folder / table.weights, "space.students.weights")

    def student_family(self) -> Callable[[Any], Any] | None:
        """Import the function that ``[space.students]`` names."""
        table = self.settings.students
        if table is None or table.family is None:
            return None
        file, _, function = table.family.rpartition(":")
        found: Callable[[Any], Any] = load_function(self.folder / file, function, "space.students.family")
        return found

    def arrays(self, key: str, graph: Graph) -> Mapping[str, Any] | None:
        """Read one entry of ``[data]``."""
        table = self.settings.data
        source = getattr(table, key)
        if source is None:
            return None
        return data.read_arrays(source, self.folder, f"data.{key}", graph, table.input_range, self.notes.append)


class MemoryParts:
    """Parts that were given to `Study` as objects."""

    def __init__(
        self,
        model: Any,
        input_shape: InputShape | None,
        arrays: Mapping[str, Any],
        students: dict[str, NDArray] | None = None,
        family: Callable[[Any], Any] | None = None,
    ) -> None:
        self.students = students
        self.family = family
        self.model = model
        self.input_shape = input_shape
        self.given = arrays
        self.notes: list[str] = []

    def graph(self) -> Graph:
        """Capture the module or the ONNX file."""
        if isinstance(self.model, str | Path):
            return capture_onnx(Path(self.model), self.input_shape)
        if isinstance(self.model, Graph):
            return self.model
        import torch

        if not isinstance(self.model, torch.nn.Module):
            kind = type(self.model).__name__
            raise InputError(f"model must be a torch.nn.Module or the path of an ONNX file, but got {kind}")
        if self.input_shape is None:
            raise InputError("input_shape is missing: a PyTorch model needs one, such as (1, 3, 256, 256)")
        return capture_module(self.model, self.input_shape)

    def student_weights(self) -> dict[str, NDArray] | None:
        """Return what was given."""
        return self.students

    def student_family(self) -> Callable[[Any], Any] | None:
        """Return what was given."""
        return self.family

    def arrays(self, key: str, graph: Graph) -> Mapping[str, Any] | None:
        """Return what was given, under the inputs' names."""
        given = self.given[key]
        if given is None:
            return None
        inputs, target = given if _is_pair(given, graph) else (given, None)
        named = dict(inputs) if isinstance(inputs, Mapping) else {graph.inputs[0].name: inputs}
        return named if target is None else {**named, "target": target}


def read_weights(path: Path, key: str) -> dict[str, NDArray]:
    """Return the arrays of a safetensors file. Raises `InputError` where it cannot be read; ``key`` names it."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except OSError as error:
        raise InputError(f"{key}: {path} cannot be read: {error.strerror}") from error
    except (SafetensorError, ValueError) as error:
        raise InputError(f"{key}: {path} is no safetensors file: {error}") from error


def _is_pair(given: Any, graph: Graph) -> bool:
    """Whether inputs and target were given; a list of two may also be two samples, which have an axis less."""
    if not isinstance(given, tuple | list) or len(given) != 2:
        return False
    whole = isinstance(given[0], Mapping) or getattr(given[0], "ndim", None) == len(graph.inputs[0].shape)
    return whole or isinstance(given, tuple)
