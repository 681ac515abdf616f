"""Standard error as the operating system has it: what code beneath Python writes there can be sent elsewhere for a while."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

STDERR = 2  # the file descriptor
SCREEN = threading.RLock()  # who holds it may exchange what standard error is, Python's own as well


@contextmanager
def turned_away(descriptor: int) -> Iterator[bool]:
    """Send standard error to a file descriptor meanwhile; yield whether there is anything to send: False where it is closed."""
    with SCREEN:
        try:
            screen = os.dup(STDERR)
        except OSError:
            yield False
            return
        os.dup2(descriptor, STDERR)
        try:
            yield True
        finally:
            os.dup2(screen, STDERR)
            os.close(screen)
