"""The user's cache folder: statistics and rounded weights by content hash, shared by all verbs and runs."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError


def cache_folder() -> Path:
    """Return the cache folder: ``$SLIMFRONT_CACHE``, or the platform's user cache folder for slimfront."""
    named = os.environ.get("SLIMFRONT_CACHE")
    if named:
        return Path(named)
    import platformdirs

    return Path(platformdirs.user_cache_dir("slimfront"))


def content_hash(*parts: Any) -> str:
    """Hash arrays, bytes, texts and JSON-like values; equal content gives an equal 32-digit hex text."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).data)
        elif isinstance(part, bytes):
            digest.update(part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Return the arrays of an .npz file, or None where there is none (or it cannot be read); nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


_used: ContextVar[set[Path] | None] = ContextVar("used", default=None)


@contextmanager
def stores_used() -> Iterator[set[Path]]:
    """Give a set that takes the folder of each store that is opened meanwhile."""
    folders: set[Path] = set()
    token = _used.set(folders)
    try:
        yield folders
    finally:
        _used.reset(token)


class Store:
    """A folder of cached arrays; each entry is written whole or not at all, so that a killed process leaves no half."""

    def __init__(self, key: str) -> None:
        self.folder = cache_folder() / key[:2] / key
        used = _used.get()
        if used is not None:
            used.add(self.folder)

    def path(self, name: str) -> Path:
        """Return where an entry of this name lies."""
        return self.folder / name

    def arrays(self, name: str) -> dict[str, np.ndarray] | None:
        """Return the arrays stored under ``name``, or None where there are none (or they cannot be read)."""
        return read_arrays(self.path(f"{name}.npz"))

    def put_arrays(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store arrays under ``name``."""
        self._write(f"{name}.npz", lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    def array(self, name: str) -> np.ndarray | None:
        """Return one stored array, mapped from disk rather than read, or None."""
        try:
            return np.load(self.path(f"{name}.npy"), mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
        except (OSError, ValueError, EOFError):
            return None

    def put_array(self, name: str, array: np.ndarray) -> None:
        """Store one array that can be mapped from disk later."""
        self._write(f"{name}.npy", lambda file: np.save(file, array))

    def _write(self, name: str, write: Any) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, delete=False, suffix=".part") as file:
                write(file)
            Path(file.name).replace(self.path(name))
        except OSError as error:
            raise InputError(
                f"cannot write to the cache folder {self.folder}: {error.strerror}; "
                "free space there or set SLIMFRONT_CACHE to another folder"
            ) from error
