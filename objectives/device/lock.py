"""One timing at a time on a machine, by the lock that slimfront's own processes take there (`objectives.machine`)."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

LOCK_FILE = "slimfront-timing.lock"
LOOK_SECONDS = 0.05


class MachineLock:
    """The machine's lock, held by this process at most once; it ends with it."""

    def __init__(self) -> None:
        self._held: int | None = None

    @property
    def held(self) -> bool:
        """Whether this process has it."""
        return self._held is not None

    def acquire(self, waits: Callable[[], None] | None = None) -> None:
        """Wait for the lock, and take it.

        Args:
            waits: called again and again meanwhile.
        """
        while self._held is None:
            self._held = _taken()
            if self._held is None:
                if waits is not None:
                    waits()
                time.sleep(LOOK_SECONDS)

    def release(self) -> None:
        """Give it back, where it is held."""
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _taken() -> int | None:
    """Return the descriptor of the locked file; None where another process has it."""
    import fcntl

    folder = Path(tempfile.gettempdir())
    try:
        path = folder / LOCK_FILE
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's: this user's processes share one of their own
        path = folder / f"{os.getuid()}-{LOCK_FILE}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.stat().st_ino == os.fstat(descriptor).st_ino:  # else it was deleted meanwhile
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return None
