"""One timing at a time on a machine: a lock that all processes share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_FILE = "slimfront-timing.lock"


@contextmanager
def machine_to_itself() -> Iterator[None]:
    """Wait until no other process times anything on this machine, and keep others waiting meanwhile.

    The lock lies in the system's temporary folder and ends with its process. Where another user's file there cannot be
    opened, this user's processes share one of their own. A thread that holds it may take it again.
    """
    from filelock import FileLock

    folder = Path(tempfile.gettempdir())
    try:
        lock = FileLock(folder / LOCK_FILE, mode=0o666, is_singleton=True)
        lock.acquire()
    except (PermissionError, NotImplementedError):
        own = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
        lock = FileLock(folder / f"{own}-{LOCK_FILE}", is_singleton=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
