"""What a run holds besides its study: graphs of other bases and trained weights, in files that are named by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..spaces.capture import capture_onnx
from ..spaces.errors import BuildError, InputError
from ..spaces.graph import Graph
from ..spaces.trained import Trained, content_id
from .document import read_document
from .run_folder import write_derived, write_whole, writing_to

WEIGHTS_FOLDER = "weights"
TRAINED_SUFFIX = ".safetensors"
BASES_FOLDER = "bases"
BASE_SUFFIX = ".onnx"
STUDENTS_FILE = "students.json"
VERSION = 1


class RunHoldings:
    """Bases and trained weights of runs.

    Args:
        folders: run folders, or what lies in their place, in the order in which they are looked through.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders

    def graph(self, base: str, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
        """Return the graph of a base.

        Args:
            base: its content id.
            shapes: to measure at, by input name.

        Raises:
            BuildError: no folder has it, or it is not what its name says.
        """
        path, _ = self._found("base", base, BASES_FOLDER, BASE_SUFFIX)
        return capture_onnx(path, shapes)

    def trained(self, weights: str) -> Trained:
        """Return trained weights.

        Raises:
            BuildError: no folder has them, or they are not what their name says.
        """
        path, data = self._found("trained weights", weights, WEIGHTS_FOLDER, TRAINED_SUFFIX)
        try:
            return Trained.from_bytes(data)
        except InputError as error:
            raise BuildError(f"{path}: {error}") from error

    def _found(self, kind: str, content: str, part: str, suffix: str) -> tuple[Path, bytes]:
        paths = [folder / part / file_name(content, suffix) for folder in self.folders]
        path = next((path for path in paths if path.exists()), paths[0])
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BuildError(f"the {kind} {path} cannot be read: {error.strerror}") from error
        if content_id(data) != content:
            raise BuildError(f"the {kind} {path} are damaged: their content is not what their name says")
        return path, data


def write_trained(folder: Path, trained: Trained) -> str:
    """Keep weights in a run's folder; return their content id. Raises `InputError` where the disk cannot be written to."""
    return _write(folder / WEIGHTS_FOLDER, trained.to_bytes(), TRAINED_SUFFIX)


def write_base(folder: Path, graph: Graph) -> str:
    """Keep a graph in a run's folder; return its content id. Raises `InputError` where the disk cannot be written to."""
    return _write(folder / BASES_FOLDER, graph.to_bytes(), BASE_SUFFIX)


def write_students(folder: Path, students: Mapping[str, Mapping[str, Any]]) -> None:
    """Keep which students are searched: by base, the parameters of the architecture."""
    listed = [{"base": base, "student": dict(student)} for base, student in students.items()]
    write_derived(folder / STUDENTS_FILE, {"version": VERSION, "students": listed})


def decided(folder: Path) -> bool:
    """Whether it was decided which students a run searches."""
    return (folder / STUDENTS_FILE).exists()


def read_students(folder: Path) -> dict[str, dict[str, Any]]:
    """Return which students are searched, by base; none where it was not decided. Raises `InputError` for a damaged file."""
    path = folder / STUDENTS_FILE
    if not path.exists():
        return {}
    found = read_document(path, "students", VERSION, "")["students"]
    return {each["base"]: each["student"] for each in found}


def trained_path(folder: Path, weights: str) -> Path:
    """Return where a run's folder keeps trained weights of a content id."""
    return folder / WEIGHTS_FOLDER / file_name(weights, TRAINED_SUFFIX)


def file_name(content: str, suffix: str) -> str:
    """Return the name of the file of a content id."""
    return content.removeprefix("sha256:") + suffix


def _write(folder: Path, data: bytes, suffix: str) -> str:
    content = content_id(data)
    with writing_to(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / file_name(content, suffix), data)
    return content
