"""The files that a search has sent: models and arrays by their sha256, in a folder that does not grow beyond its bound."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

NAME = re.compile(r"[0-9a-f]{64}")
NUMERIC = "biuf"  # kinds of arrays that are taken
BLOCK = 1 << 20
PART = "part-"  # begins the name of a file that is not whole yet
LEFT_SECONDS = 3600.0  # after which nobody writes to one any more


class WrongError(Exception):
    """What a search asks for or sends is not what a runner takes; its text says why."""


class Store:
    """Files by their sha256.

    Args:
        folder: it is made; other users may not look into it.
        most: bytes that all files may have; the longest unused go first.
    """

    def __init__(self, folder: Path, most: int) -> None:
        self.folder = folder
        self.most = most
        self._checked: set[str] = set()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise WrongError(f"the folder {folder} is another user's")

    def path(self, name: str) -> Path:
        """Return where a file lies, used just now. Raises `WrongError` for what is no sha256."""
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise WrongError(f"a file is known by its sha256, not by {name!r}")
        return self.folder / name

    def has(self, name: str) -> bool:
        """Whether a file is there, whole: it is read once to see that."""
        path = self.path(name)
        try:
            if name not in self._checked and _sha256(path) != name:
                path.unlink()
                return False
            os.utime(path)
        except FileNotFoundError:
            self._checked.discard(name)
            return False
        self._checked.add(name)
        return True

    def array(self, name: str) -> np.ndarray:
        """Return a file as an array. Raises `WrongError` where it is none of numbers in NumPy's own format."""
        path = self.path(name)
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[
                    version
                ]
                shape, _, dtype = read(file)
                size = int(np.prod(shape, dtype=object)) * dtype.itemsize
                if dtype.kind not in NUMERIC or dtype.hasobject or path.stat().st_size != file.tell() + size:
                    raise ValueError("other data")
                file.seek(0)
                return np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, KeyError, EOFError, SyntaxError, TypeError) as error:
            raise WrongError("what was sent as an array is no array of numbers in NumPy's format") from error

    def taking(self, name: str, size: int, packed: bool) -> Taking:
        """Return what takes a file.

        Args:
            name: its sha256.
            size: its bytes.
            packed: whether what is sent is compressed (zlib).

        Raises:
            WrongError: it is larger than the folder may be.
        """
        self.path(name)
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= self.most:
            raise WrongError(
                f"a file of {size!r} bytes is too large for this runner, which keeps {self.most:,} (--space)"
            )
        self._make_room(size)
        return Taking(self, name, size, packed)

    def _make_room(self, size: int) -> None:
        """Delete what was not used for longest, until there is room."""
        files = []
        for path in self.folder.iterdir():
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            if NAME.fullmatch(path.name):
                files.append((facts.st_mtime_ns, facts.st_size, path))
            elif path.name.startswith(PART) and time.time() - facts.st_mtime > LEFT_SECONDS:
                path.unlink(missing_ok=True)
        total = sum(file[1] for file in files)
        for _, own, path in sorted(files):
            if total + size <= self.most:
                return
            path.unlink(missing_ok=True)
            total -= own


class Taking:
    """A file that is being sent; it is kept when it is whole, and what its name says."""

    def __init__(self, store: Store, name: str, size: int, packed: bool) -> None:
        self.store, self.name, self.left = store, name, size
        self._unpack = zlib.decompressobj() if packed else None
        self._hash = hashlib.sha256()
        descriptor, path = tempfile.mkstemp(dir=store.folder, prefix=PART)
        self._path, self._file = Path(path), os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        """Take the next part. Raises `WrongError` where it unpacks to more than was said."""
        for part in [data] if self._unpack is None else self._unpacked(data):
            self.left -= len(part)
            if self.left < 0:
                raise WrongError("more was sent than was said")
            self._hash.update(part)
            self._file.write(part)

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        """Yield what a part unpacks to, a block at a time, however much that is."""
        assert self._unpack is not None
        try:
            while data:
                yield self._unpack.decompress(data, BLOCK)
                data = self._unpack.unconsumed_tail
        except zlib.error as error:
            raise WrongError("what was sent cannot be unpacked") from error

    def keep(self) -> bool:
        """Keep the file; return whether it is what its name says, else nothing is kept."""
        self._file.close()
        whole = self.left == 0 and self._hash.hexdigest() == self.name
        if whole:
            self._path.replace(self.store.folder / self.name)
            self.store._checked.add(self.name)
        else:
            self._path.unlink(missing_ok=True)
        return whole

    def drop(self) -> None:
        """Keep nothing."""
        self._file.close()
        self._path.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            found.update(block)
    return found.hexdigest()
