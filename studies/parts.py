"""Where a study's model and samples come from: what its file names, or what was given as objects."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..spaces.cache import content_hash
from ..spaces.capture import InputShape, capture_module, capture_onnx, load_function, load_module
from ..spaces.errors import InputError
from ..spaces.graph import Graph
from . import data
from .definition import Settings
from .objective_table import IN_MEMORY


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

    def function(self, source: str, key: str) -> Callable[..., Any]:
        """Return what a text such as "measures.py:sharpness" stands for; ``key`` is the study's, for errors."""
        ...

    def file_of(self, source: str) -> Path | None:
        """Return the file of such a text; None where it stands for an object in memory."""
        ...

    def holds(self, source: str) -> bool:
        """Whether such a text stands for a file, or for an object that is here."""
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

    def function(self, source: str, key: str) -> Callable[..., Any]:
        """Import it from its file."""
        return _imported(self.file_of(source), source, key)

    def file_of(self, source: str) -> Path | None:
        """Return its path."""
        return None if source.startswith(IN_MEMORY) else self.folder / source.rpartition(":")[0]

    def holds(self, source: str) -> bool:
        """Whether it is no object in memory."""
        return not source.startswith(IN_MEMORY)


class MemoryParts:
    """Parts that were given to `Study` as objects."""

    def __init__(
        self,
        model: Any,
        input_shape: InputShape | None,
        arrays: Mapping[str, Any],
        students: dict[str, NDArray] | None = None,
        family: Callable[[Any], Any] | None = None,
        objects: Mapping[str, Any] | None = None,
    ) -> None:
        self.objects = dict(objects or {})
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

    def function(self, source: str, key: str) -> Callable[..., Any]:
        """Return what was given, or import it from its file."""
        found: Callable[..., Any] | None = self.objects.get(source)
        return _imported(self.file_of(source), source, key) if found is None else found

    def file_of(self, source: str) -> Path | None:
        """Return its path, which is relative to where the process works."""
        return None if source.startswith(IN_MEMORY) else Path(source.rpartition(":")[0])

    def holds(self, source: str) -> bool:
        """Whether it was given, or is a file's."""
        return source in self.objects or not source.startswith(IN_MEMORY)


def objects_of(objectives: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the table of objectives that were given to `Study`, and the objects in it by the texts that stand for them.

    Args:
        objectives: by name true, a table as in the study file, or a function or an object; in a table, functions may be objects
            as well, and one that follows the protocol may stand under "objective".
    """
    tables: dict[str, Any] = {}
    objects: dict[str, Any] = {}
    for name, entry in objectives.items():
        if isinstance(entry, bool | str | int | float):
            tables[name] = entry
            continue
        table = dict(entry) if isinstance(entry, Mapping) else {"function": entry}
        if "objective" in table:
            table["function"] = table.pop("objective")
        for key in ("function", "features"):
            if key in table and (callable(table[key]) or hasattr(table[key], "measure")):
                source = f"{IN_MEMORY}{name}.{key}.{_hash_of(table[key])}"
                objects[source] = table[key]
                table[key] = source
        tables[name] = table
    return tables, objects


def _hash_of(found: Any) -> str:
    """Return a hash of the source of a function, or of an object's class; of its name where there is no source."""
    kind = found if inspect.isroutine(found) or inspect.isclass(found) else type(found)
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        text = f"{kind.__module__}.{kind.__qualname__}"
    return content_hash(text)[:12]


def _imported(file: Path | None, source: str, key: str) -> Callable[..., Any]:
    if file is None:
        raise InputError(
            f"{key} was given in memory as an object, which only the process has that made the study: to measure it anywhere "
            'else, put it into a file and name that, "measures.py:name"'
        )
    found: Callable[..., Any] = load_function(file, source.rpartition(":")[2], key)
    return found


def copied(file: Path, to: Path, key: str) -> None:
    """Copy a file of a study. Raises `InputError` where it cannot be read; ``key`` names it."""
    try:
        shutil.copyfile(file, to)
    except OSError as error:
        raise InputError(f"{key}: {file} cannot be read: {error.strerror}") from error


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
