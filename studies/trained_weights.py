"""Trained weights of a run's candidates: files that are named by what they hold."""

from __future__ import annotations

from pathlib import Path

from ..spaces.errors import BuildError, InputError
from ..spaces.trained import Trained, content_id
from .run_folder import write_whole, writing_to

FOLDER = "weights"
TRAINED_SUFFIX = ".safetensors"


def write_trained(folder: Path, trained: Trained) -> str:
    """Keep weights in a run's folder; return their content id.

    Raises:
        InputError: the disk cannot be written to.
    """
    data = trained.to_bytes()
    weights = content_id(data)
    with writing_to(folder):
        path = trained_path(folder, weights)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    return weights


def read_trained(folder: Path, weights: str) -> Trained:
    """Return the weights of a content id.

    Raises:
        BuildError: the run has them not, or they are not what their name says.
    """
    path = trained_path(folder, weights)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BuildError(f"the trained weights {path} cannot be read: {error.strerror}") from error
    if content_id(data) != weights:
        raise BuildError(f"the trained weights {path} are damaged: their content is not what their name says")
    try:
        return Trained.from_bytes(data)
    except InputError as error:
        raise BuildError(f"{path}: {error}") from error


def trained_path(folder: Path, weights: str) -> Path:
    """Return where a run's folder keeps weights, given their content id or the name of their file."""
    return folder / FOLDER / f"{weights.removeprefix('sha256:').removesuffix(TRAINED_SUFFIX)}{TRAINED_SUFFIX}"
