"""What a runtime's own code writes to standard error, past Python: notes that nobody asked for, reasons that no error tells."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from re import Pattern

STDERR = 2  # the file descriptor
_one = threading.RLock()


@contextmanager
def hearing(own: Pattern[bytes]) -> Iterator[list[str]]:
    """Keep a runtime's lines off the screen meanwhile; what others write there follows at the end.

    Args:
        own: what begins a line of the runtime's.

    Yields:
        a list that has the runtime's lines at the end, without what ``own`` matches.
    """
    heard: list[str] = []
    with _one, tempfile.TemporaryFile() as file:
        try:
            screen = os.dup(STDERR)
        except OSError:  # it is closed
            yield heard
            return
        os.dup2(file.fileno(), STDERR)
        try:
            yield heard
        finally:
            os.dup2(screen, STDERR)
            os.close(screen)
            file.seek(0)
            for line in file:
                begins = own.match(line)
                if begins is None:
                    _pass_on(line)
                else:
                    heard.append(line[begins.end() :].decode(errors="replace").strip())


def _pass_on(line: bytes) -> None:
    while line:
        line = line[os.write(STDERR, line) :]
