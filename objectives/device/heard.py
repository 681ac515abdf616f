"""What a runtime's own code writes to standard error, past Python: notes that nobody asked for, reasons that no error tells."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from re import Pattern

from ...spaces.screen import STDERR, turned_away


@contextmanager
def hearing(own: Pattern[bytes]) -> Iterator[list[str]]:
    """Keep a runtime's lines off the screen meanwhile; what others write there follows at the end.

    Args:
        own: what begins a line of the runtime's.

    Yields:
        a list that has the runtime's lines at the end, without what ``own`` matches.
    """
    heard: list[str] = []
    with tempfile.TemporaryFile() as file:
        try:
            with turned_away(file.fileno()):
                yield heard
        finally:
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
