"""Candidates as people give them (JSON files, one value for all layers), and their models as bytes or files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.candidate import Candidate
from ..spaces.errors import InputError
from ..spaces.rules import RULES, Rules
from .output import cannot_write, check_output
from .trial import Trial

if TYPE_CHECKING:
    from .study import Study


def read_candidate(path: Path) -> Candidate:
    """Read a candidate from a JSON file: the candidate itself, or a document that holds one under "candidate".

    So what `slimfront pick --json` prints and a bundle's candidate.json can be given as they are.

    Raises:
        InputError: the file is missing, no JSON, or no candidate.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_distinct)
    except FileNotFoundError:
        raise InputError(f"there is no candidate file {path}") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON that can be read: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("candidate"), dict):
        data = data["candidate"]
    try:
        return Candidate.from_json(data)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the key {twice!r} is there twice")
    return dict(pairs)


def given_candidates(study: Study, files: Sequence[Path], uniform: str | None) -> tuple[list[Candidate], list[str]]:
    """Return the candidates that a command names, and notes on what was not possible.

    Args:
        study: names the layers.
        files: candidate files.
        uniform: one value for all layers, such as "weight_bits=4,activation_bits=8,repair=static".

    Raises:
        InputError: neither or both are given, one of them is wrong, or names a layer that the model has not.
    """
    if bool(files) == (uniform is not None):
        raise InputError("give candidate files, or --uniform with values such as weight_bits=4,activation_bits=8")
    if uniform is None:
        return [_fitting(file, study) for file in files], []
    from ..spaces.space import parse_uniform
    from ..spaces.space import uniform as uniform_candidate

    candidate, notes = uniform_candidate(study.graph, parse_uniform(uniform), study.rules)
    return [candidate], list(notes)


def _fitting(file: Path, study: Study) -> Candidate:
    candidate = read_candidate(file)
    try:
        return study.builder.fitting(candidate)
    except InputError as error:
        raise InputError(f"{file}: {error}; `slimfront space` lists layers and groups") from None


def build(study: Study, candidate: Candidate | Trial | Mapping[str, Any]) -> bytes:
    """Return the bytes of a candidate's file: an ONNX model, or what the study's runtime reads.

    Args:
        study: a study.
        candidate: any valid candidate, offered by the study's space or not; its JSON form; or a trial of a run.

    Raises:
        InputError: the study is wrong, the candidate is none or names an unknown layer, or the model is above 2 GB.
        BuildError: the candidate cannot be built.
    """
    if isinstance(candidate, Trial):
        candidate = candidate.candidate
    elif not isinstance(candidate, Candidate):
        candidate = Candidate.from_json(candidate)
    return study.builder.build(candidate).to_bytes()


def _check_suffix(path: Path, rules: Rules) -> None:
    """Raise `InputError` where a name says that a file is of another form than those that a runtime reads."""
    own = rules.format.suffix
    if path.suffix.lower() in {each.format.suffix for each in RULES.values()} - {own}:
        raise InputError(
            f"{path} would be no {path.suffix} file: the study's runtime {rules.runtime!r} reads {own} files; name it "
            f"{path.with_suffix(own).name}"
        )


def build_file(
    study: Study, candidate: Candidate, path: Path, progress: Callable[[str, float], None] | None = None
) -> dict[str, Any]:
    """Write a candidate's file, whole or not at all (of ONNX above 2 GB with ``<path>.data`` beside it).

    Returns:
        ``file``, ``sha256``, ``size_bytes`` and the ``candidate``.

    Raises:
        InputError: as `build`, or the file cannot be written, or its name is that of another runtime's files.
        BuildError: the candidate cannot be built.
    """
    _check_suffix(path, study.rules)
    check_output(path)
    candidate = study.builder.fitting(candidate)
    study.check()
    study.prepare([candidate], progress)
    built = study.builder.build(candidate)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".slimfront-") as folder:
            built.save(Path(folder) / path.name)
            for file in sorted(Path(folder).iterdir(), reverse=True):  # the weights first, then what names them
                file.replace(path.parent / file.name)
    except OSError as error:
        raise cannot_write(path, error) from error
    return {
        "file": str(path),
        "sha256": built.sha256,
        "size_bytes": built.size_bytes,
        "candidate": candidate.to_json(),
    }
