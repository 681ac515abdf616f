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
from .shared import NoStore, Source, Store

WEIGHTS_FOLDER = "weights"
TRAINED_SUFFIX = ".safetensors"
BASES_FOLDER = "bases"
BASE_SUFFIX = ".onnx"
STUDENTS_FILE = "students.json"
STUDENTS = "students"  # what searches of a study agree on
VERSION = 1


class RunHoldings:
    """Bases, trained weights and students of a run.

    Args:
        folders: run folders, or what lies in their place, in the order in which they are looked through; what other searches
            of the study have made is put into the first.
        source: where that is found.
    """

    def __init__(self, *folders: Path, source: Source | None = None) -> None:
        self.folders = folders
        self._source: Source = source or NoStore()

    @property
    def students(self) -> dict[str, dict[str, Any]] | None:
        """Which students are searched: by base, the parameters of the architecture; None where it was not decided.

        Raises:
            InputError: the file is damaged, or the disk cannot be written to.
        """
        path = self.folders[0] / STUDENTS_FILE
        if path.exists():
            return {each["base"]: each["student"] for each in read_document(path, "students", VERSION, "")["students"]}
        found = self._source.agreed({}).get(STUDENTS)
        return None if found is None else self._decided(found)

    def _decided(self, students: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        found = {base: dict(student) for base, student in students.items()}
        listed = [{"base": base, "student": student} for base, student in found.items()]
        write_derived(self.folders[0] / STUDENTS_FILE, {"version": VERSION, "students": listed})
        return found

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

    def has_trained(self, weights: str) -> bool:
        """Whether trained weights are at hand; they lie in the run's folder then."""
        return self._path(weights, WEIGHTS_FOLDER, TRAINED_SUFFIX) is not None

    def _found(self, kind: str, content: str, part: str, suffix: str) -> tuple[Path, bytes]:
        path = self._path(content, part, suffix) or self.folders[0] / part / file_name(content, suffix)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BuildError(f"the {kind} {path} cannot be read: {error.strerror}") from error
        if content_id(data) != content:
            raise BuildError(f"the {kind} {path} are damaged: their content is not what their name says")
        return path, data

    def _path(self, content: str, part: str, suffix: str) -> Path | None:
        """Return where something lies in a folder, to which it is brought from elsewhere; None where it is nowhere."""
        paths = [folder / part / file_name(content, suffix) for folder in self.folders]
        path = next((path for path in paths if path.exists()), None)
        if path is None and (data := self._source.kept(content)) is not None:
            _write(paths[0], data)
            return paths[0]
        return path


class OpenHoldings(RunHoldings):
    """Holdings that are added to. Methods raise `InputError` where the disk, or the store, cannot be written to.

    Args:
        folder: of the run.
        store: for other searches of the study.
    """

    def __init__(self, folder: Path, store: Store | None = None) -> None:
        self._store: Store = store or NoStore()
        super().__init__(folder, source=self._store)

    def keep_base(self, graph: Graph) -> str:
        """Keep a graph; return its content id."""
        return self._keep(graph.to_bytes(), BASES_FOLDER, BASE_SUFFIX)

    def keep_trained(self, trained: Trained) -> str:
        """Keep trained weights; return their content id."""
        return self._keep(trained.to_bytes(), WEIGHTS_FOLDER, TRAINED_SUFFIX)

    def decide(self, students: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Decide which students are searched, by base, where no other search of the study was faster; return those."""
        return self._decided(self._store.agreed({STUDENTS: students})[STUDENTS])

    def share(self) -> None:
        """Give what lies in the folder to a store that it was made without."""
        for part, suffix in ((BASES_FOLDER, BASE_SUFFIX), (WEIGHTS_FOLDER, TRAINED_SUFFIX)):
            for path in sorted((self.folders[0] / part).glob(f"*{suffix}")):
                self._store.keep(content_id(data := path.read_bytes()), data)
        if (self.folders[0] / STUDENTS_FILE).exists():
            self.decide(self.students or {})

    def _keep(self, data: bytes, part: str, suffix: str) -> str:
        content = content_id(data)
        _write(self.folders[0] / part / file_name(content, suffix), data)
        self._store.keep(content, data)
        return content


def trained_path(folder: Path, weights: str) -> Path:
    """Return where a run's folder keeps trained weights of a content id."""
    return folder / WEIGHTS_FOLDER / file_name(weights, TRAINED_SUFFIX)


def file_name(content: str, suffix: str) -> str:
    """Return the name of the file of a content id."""
    return content.removeprefix("sha256:") + suffix


def _write(path: Path, data: bytes) -> None:
    with writing_to(path.parents[1]):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
