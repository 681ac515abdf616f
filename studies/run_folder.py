"""A run's folder: made, checked and written to, so that a file is there whole or not at all.

run.json         the study's name, source, definition and digest, and where else records and models are kept; written whole
                 before anything else
records.jsonl    one line for each finished stage of each candidate: the truth of the run
models/          the files of the reference and of the front's candidates; a working copy where `artifacts` keeps them too
students.json    the students that are searched beside the reference
bases/           their graphs, by their content
weights/         trained weights of candidates, by their content
unpolished.json  which members of the front did not become better by training
training/        checkpoints of trainings that were broken off
environments/    where timings were made
predictor.npz    what the latency predictor learned
searched.json    what the sampler's model says of the search
sensitivity.json what the options of layers and channel groups cost, as far as the sampler has asked
study/           a copy of the study where it was made in memory
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.errors import InputError, SlimfrontError
from ..spaces.rules import ONNX_RUNTIME, RULES
from .document import read_document
from .environment import Environment
from .records import cannot_write

if TYPE_CHECKING:
    from ..spaces.build import Built
    from ..spaces.candidate import Candidate
    from ..spaces.formats import Format
    from .study import Study

RUN_FILE = "run.json"
RECORDS_FILE = "records.jsonl"
PREDICTOR_FILE = "predictor.npz"
PART = ".part"  # how the names of folders begin in which model files are written
VERSION = 1
CONTENTS = {  # what the definition holds the hash of, and the study's key of its file
    "model.graph": ("the model, its weights or its input shape", "model.file"),
    "data.calibration": ("the calibration data", "data.calibration"),
    "data.evaluation": ("the inputs of the evaluation data", "data.evaluation"),
    "data.group": ("the groups of the evaluation data", "data.evaluation"),
    "data.target": ("the targets of the evaluation data", "data.evaluation"),
}


def about_run(study: Study, storage: str | None = None) -> dict[str, Any]:
    """Return what run.json holds of a run that is begun now.

    Args:
        study: what is searched.
        storage: the database that keeps its records, without its password; by default they lie in the folder.
    """
    about: dict[str, Any] = {
        "name": study.name,
        "source": study.source,
        "digest": study.digest,
        "definition": study.definition,
    }
    if study.criteria:
        about["objectives"] = [criterion.to_json() for criterion in study.criteria]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    kept = {} if storage is None else {"storage": storage}
    return {"version": VERSION, "study": about, **study.machine_facts, **kept, "created": created}


def start_run(folder: Path, study: Study, environment: Environment, storage: str | None = None) -> None:
    """Make a folder the run of a study, or check that it is; the caller holds the run's records.

    Args:
        folder: the run folder.
        study: what is searched, its space as the run offers it.
        environment: of this process.
        storage: the database that keeps the records, without its password.

    Raises:
        InputError: the folder is the run of another study, or cannot be written to.
    """
    if (folder / RUN_FILE).exists():
        check_same_study(folder, read_run_file(folder), study)
    with writing_to(folder):
        if not (folder / RUN_FILE).exists():
            write_whole(folder / RUN_FILE, json.dumps(about_run(study, storage), indent=1))
        if study.source is None and not (folder / "study").exists():
            part = folder / ".study.part"
            shutil.rmtree(part, ignore_errors=True)
            study.save(part)
            part.rename(folder / "study")
        for part in (folder / "models").glob(f"{PART}*") if storage is None else ():  # of a killed process
            shutil.rmtree(part, ignore_errors=True)
        keep_environment(folder, environment.digest, environment.to_json())


def keep_environment(folder: Path, digest: str, environment: Mapping[str, Any]) -> None:
    """Keep in a run's folder what an environment's digest stands for."""
    path = folder / "environments" / f"{digest}.json"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(environment, indent=1))


def use_machine_facts(folder: Path, study: Study) -> None:
    """Give a study the space that the run in this folder was begun with, or this machine's where there is no run yet."""
    study.use_machine_facts(read_run_file(folder) if (folder / RUN_FILE).exists() else None)


def make_folder(folder: Path) -> None:
    """Create a run folder, or check that it may become one. Raises `InputError` where it holds other things."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise InputError(f"cannot make the run folder {folder}: {error.strerror}") from error
    if RUN_FILE not in others and set(others) - {RECORDS_FILE}:
        raise InputError(f"{folder} is neither empty nor a run folder (it holds {min(others)!r}); choose another")


def check_same_study(folder: Path, about: Mapping[str, Any], study: Study) -> None:
    """Raise `InputError` with the differences, key by key, where a run was made of another study."""
    if about["study"]["digest"] == study.digest:
        return
    then, now = (dict(_flat(definition)) for definition in (about["study"]["definition"], study.definition))
    changed = [
        f"{_subject(key, study)}: {_shown(then.get(key))} there, {_shown(now.get(key))} now"
        for key in sorted(then | now)
        if then.get(key) != now.get(key)
    ]
    raise InputError(
        f"{folder} is the run of another study ({about['study']['name']!r}); {'; '.join(changed)}. "
        "Choose another run folder, or change the study and its files back"
    )


def _subject(key: str, study: Study) -> str:
    """Return what a key of the definition stands for: in words, with the file, where its value is a hash."""
    if key not in CONTENTS:
        return key
    words, entry = CONTENTS[key]
    table, name = entry.split(".")
    file = "" if study.source is None else f" ({entry} {getattr(getattr(study.settings, table), name)!r})"
    return f"{words}{file} changed"


def format_of(definition: Mapping[str, Any]) -> Format:
    """Return the form of a run's model files, by the definition of its study; older ones name no runtime."""
    return RULES[str(definition["target"].get("runtime", ONNX_RUNTIME.runtime))].format


def model_file(models: Path, candidate: Candidate, format: Format) -> Path:
    """Return where a candidate's file lies in a folder of model files."""
    return models / f"{candidate.key}{format.suffix}"


def save_model_file(built: Built, path: Path) -> None:
    """Write a built model so that the file is there whole or not at all; external data goes beside it."""
    with writing_to(path.parent.parent), placing(path) as part:
        built.save(part)


@contextmanager
def placing(path: Path) -> Iterator[Path]:
    """Give the path to write a model file to, external data beside it; it is moved to ``path`` when all of it is written."""
    with writing_to(path.parent.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=PART, dir=path.parent))  # workers write beside one another
    try:
        yield part / path.name
        for file in sorted(part.iterdir(), key=lambda file: file.name == path.name):  # the model last
            file.replace(path.parent / file.name)
    finally:  # on a full disk too: half a model helps nobody and takes the room
        shutil.rmtree(part, ignore_errors=True)


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn a full disk and a folder that cannot be written to into one clear line."""
    try:
        yield
    except (OSError, SlimfrontError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        if not isinstance(cause, OSError):
            raise
        raise cannot_write(folder, cause) from error


def read_run_file(folder: Path) -> dict[str, Any]:
    """Return what run.json holds. Raises `InputError` where the folder is no run."""
    missing = f"there is no run in {folder}; `slimfront search STUDY --run {folder}` makes one"
    return read_document(folder / RUN_FILE, "run", VERSION, missing)


def write_derived(path: Path, content: Mapping[str, Any]) -> None:
    """Write a document of a run's folder that its records tell, whole or not at all.

    Raises:
        InputError: the disk cannot be written to.
    """
    with writing_to(path.parent):
        write_whole(path, json.dumps(content))


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file so that it is there whole or not at all, and on disk."""
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat += _flat(inner, f"{prefix}{key}.")
        else:
            flat.append((prefix + key, inner))
    return flat


def _shown(value: Any) -> str:
    return "nothing" if value is None else str(value)
