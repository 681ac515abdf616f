"""The records of a run: append-only JSON lines, synced to disk before anything else is told.

A line that a killed process left half-written is skipped when read and closed off before the next append, so that it
never spoils a whole one. Finished means: the record is on disk.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import msgspec

from ..spaces.errors import InputError
from .shared import NoStore, Store

DONE = "done"
FAILED = "failed"
PREDICTED = "predicted"  # not measured: dominated anyway by what was predicted, or to be timed later


@dataclass(frozen=True, slots=True)
class Record:
    """One finished stage of one candidate.

    Attributes:
        study: digest of the study.
        key: the candidate's key.
        stage: "claim", "proposal", "prediction", "build", "glance", "quality", "memory", "timing".
        environment: digest of the environment it was measured in.
        state: "done", "failed" or "predicted".
        trial: the candidate's number in the run.
        sha256: of the model file that was measured; empty where building failed.
        readings: by name, each as `objectives.protocol.Reading` writes it.
        reason: why it failed, or was not measured.
        candidate: its JSON, on the candidate's first record.
        label: "reference", "uniform 4/8" or empty.
        seconds: what the stage took.
        time: when it was finished, ISO 8601, UTC.
        node: the worker's node; empty where it was the search's own process.
    """

    study: str
    key: str
    stage: str
    environment: str
    state: str
    trial: int
    sha256: str = ""
    readings: dict[str, dict[str, Any]] = field(default_factory=dict)
    reason: str | None = None
    candidate: dict[str, Any] | None = None
    label: str = ""
    seconds: float = 0.0
    time: str = ""
    node: str = ""


_decoder = msgspec.json.Decoder(Record)


@contextmanager
def many_objects() -> Iterator[None]:
    """Make many objects that all stay: the collector of garbage would look at all of them again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # both together: they count as old, which are looked at rarely
        if collects:
            gc.enable()


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; lines that are not whole records are skipped."""
    yield from (record for line in read_lines(path) if (record := record_of(line)) is not None)


def read_lines(path: Path) -> list[bytes]:
    """Return the lines of a file; none where there is no file. Raises `InputError` where it cannot be read."""
    try:
        return path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def append_lines(file: int, lines: bytes) -> None:
    """Write lines at the end of an open file, safe when it returns; one that was left half-written there is closed off.

    Args:
        file: its descriptor, open for reading and appending.
        lines: whole ones.

    Raises:
        OSError: the disk is full or cannot be written to.
    """
    size = os.fstat(file).st_size
    if size and os.pread(file, 1, size - 1) != b"\n":
        lines = b"\n" + lines
    written = 0
    while written < len(lines):
        written += os.write(file, lines[written:])
    os.fsync(file)


class RecordTail:
    """The records of a file that another process writes, as they come.

    Args:
        path: the file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read = 0
        self._file: int | None = None  # the inode of what was read

    def news(self) -> list[Record]:
        """Return what was written since the last call, at first all there is; a line that is not whole yet is left for later.

        Raises:
            InputError: the file cannot be read, is gone, or is another one than before.
        """
        try:
            with self.path.open("rb") as file:
                now = os.fstat(file.fileno())
                if self._read and (now.st_ino != self._file or now.st_size < self._read):
                    raise InputError(f"{self.path} is not the file that it was: the run was begun anew; open it again")
                file.seek(self._read)
                text = file.read()
                self._file = now.st_ino
        except FileNotFoundError:
            if self._read:
                raise InputError(f"{self.path} is gone") from None
            return []
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error
        whole = text[: text.rfind(b"\n") + 1]
        self._read += len(whole)
        return [record for line in whole.split(b"\n") if (record := record_of(line)) is not None]


def record_of(text: str | bytes) -> Record | None:
    """Return the record that a text holds; None where it is no whole one."""
    try:
        return _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError):
        return None


def plain_record(record: Record) -> dict[str, Any]:
    """Return a record as plain data."""
    return {name: getattr(record, name) for name in Record.__slots__}


def numbered(record: Record, trial: int) -> Record:
    """Return a record as one of a trial."""
    return replace(record, trial=trial)


class Records(Store, Protocol):
    """Where the records of a run are kept, and what else its searches share."""

    def append(self, *records: Record) -> list[Record]:
        """Write records, safe when it returns; return those: not the ones of trials that others have taken over."""
        ...

    def claim(self, trials: Sequence[Sequence[Record]], first: int, total: int | None = None) -> list[list[Record]]:
        """Write the first records of new trials, numbered; return those whose candidates are this process's to evaluate.

        Args:
            trials: the records of each.
            first: the next number, as far as this process knows.
            total: how many trials there may be of all processes; by default any number.
        """
        ...

    def news(self) -> list[Record]:
        """Return what others have written since the last call; at first all there is."""
        ...

    def mine(self, number: int) -> bool:
        """Whether a trial is this process's to work on."""
        ...

    def adopt(self) -> set[int]:
        """Take over the trials of processes that have ended; return their numbers."""
        ...

    @property
    def others(self) -> bool:
        """Whether another process may be at work on the same records."""
        ...

    def silent(self, seconds: float) -> bool:
        """Whether another process, which may be at work, has shown no sign of life for so many seconds."""
        ...


class RecordFile(NoStore):
    """The records of a run, held open for appending by one process at a time.

    Args:
        path: the file; created where it is not there.

    Raises:
        InputError: another process holds it, or the folder cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._unread = True
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
        except OSError as error:
            raise cannot_write(path.parent, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise InputError(
                f"another search is writing to {path.parent}; wait for it, or choose another run folder"
            ) from error

    def append(self, *records: Record) -> list[Record]:
        """Write records and wait until they are on disk; return all of them.

        Raises:
            InputError: the disk is full or cannot be written to; what was there stays whole.
        """
        lines = b"".join(json.dumps(plain_record(record), allow_nan=False).encode() + b"\n" for record in records)
        try:
            append_lines(self._file, lines)
        except OSError as error:
            raise cannot_write(self.path.parent, error) from error
        return list(records)

    def claim(self, trials: Sequence[Sequence[Record]], first: int, total: int | None = None) -> list[list[Record]]:
        """Write the first records of new trials, numbered from ``first`` and below ``total``: nobody else may."""
        kept = trials[: None if total is None else max(total - first, 0)]
        found = [[numbered(record, number) for record in own] for number, own in enumerate(kept, start=first)]
        self.append(*(record for own in found for record in own))
        return found

    def news(self) -> list[Record]:
        """Return nothing at any but the first call: nobody else may write."""
        unread, self._unread = self._unread, False
        return list(read_records(self.path)) if unread else []

    def mine(self, number: int) -> bool:
        """All trials are this process's."""
        return True

    def adopt(self) -> set[int]:
        """Nobody else has any."""
        return set()

    @property
    def others(self) -> bool:
        """Nobody else may be at work."""
        return False

    def silent(self, seconds: float) -> bool:
        """Nobody else is there."""
        return False

    def close(self) -> None:
        """Give the file free for other processes."""
        os.close(self._file)

    def __enter__(self) -> RecordFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def cannot_write(folder: Path, error: OSError) -> InputError:
    """Return what to tell where a run folder cannot be written to."""
    return InputError(
        f"cannot write to the run folder {folder}: {error.strerror or error}; "
        "make room or choose another run folder, then run the same command again: all that was finished is kept"
    )
