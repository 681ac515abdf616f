"""Where a result is written: checked before the work begins, and then written whole or not at all."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..spaces.errors import InputError


def check_output(path: Path) -> None:
    """Check that a file can be written, or replaced.

    Raises:
        InputError: there is no such folder, it cannot be written to, or the path is a folder or a device.
    """
    if path.is_dir():
        raise InputError(f"cannot write {path}: it is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"cannot write {path}: it is no ordinary file; give another name")
    if not path.parent.exists():
        raise InputError(f"cannot write {path}: there is no folder {path.parent}; make it first, or choose another")
    try:
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise cannot_write(path, error) from error


def write_output(path: Path, content: bytes) -> None:
    """Write a file whole or not at all. Raises `InputError` where that cannot be done."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise cannot_write(path, error) from error


@contextmanager
def new_folder(folder: Path, what: str) -> Iterator[Path]:
    """Give an empty folder to fill; when all is in it, it becomes ``folder``, so that nothing is there half-written.

    Args:
        folder: absent or empty.
        what: it will be, for people.

    Raises:
        InputError: the folder holds something, or cannot be written.
    """
    folder = folder.absolute()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is there already and no empty folder: {what} needs a folder of its own")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as making:
            part = Path(making) / folder.name
            part.mkdir()
            yield part
            part.replace(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(path: Path, error: OSError) -> InputError:
    """Return what to tell where a file or folder cannot be written."""
    return InputError(f"cannot write {path}: {error.strerror or error}; make room or choose another place")
