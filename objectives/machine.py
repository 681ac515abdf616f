"""One timing at a time on a machine: a lock that all processes share."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .device.lock import LOCK_FILE, LOOK_SECONDS

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def machine_to_itself() -> Iterator[None]:
    """Wait until no other process times anything on this machine, and keep others waiting meanwhile.

    The lock lies in the system's temporary folder and ends with its process. Where another user's file there cannot be
    opened, this user's processes share one of their own. A thread that holds it may take it again.
    """
    lock = _acquired()
    try:
        yield
    finally:
        lock.release()


def wait_for_quiet(seconds: float) -> None:
    """Wait until nothing is timed on this machine, at most so long: for work that would disturb a timing, and can wait."""
    from filelock import Timeout

    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            _acquired(singleton=False, timeout=0).release()
        except Timeout:
            time.sleep(LOOK_SECONDS)
        else:
            return


def _acquired(singleton: bool = True, timeout: float = -1) -> BaseFileLock:
    from filelock import FileLock

    folder = Path(tempfile.gettempdir())
    try:
        lock = FileLock(folder / LOCK_FILE, mode=0o666, is_singleton=singleton)
        lock.acquire(timeout)
    except (PermissionError, NotImplementedError):
        own = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        lock = FileLock(folder / f"{own}-{LOCK_FILE}", is_singleton=singleton)
        lock.acquire(timeout)
    return lock
