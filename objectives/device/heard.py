"""What a runtime's own code writes to standard error: notes that nobody asked for, and reasons that no error tells."""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from re import Pattern

from ...spaces.screen import SCREEN, STDERR, turned_away


@contextmanager
def hearing(own: Pattern[str]) -> Iterator[list[str]]:
    """Keep a runtime's lines off the screen meanwhile; what others write there follows at the end.

    Args:
        own: what begins a line of the runtime's.

    Yields:
        a list that has the runtime's lines at the end, without what ``own`` matches.
    """
    heard: list[str] = []
    stream, said = sys.stderr, io.StringIO()  # as Python writes, which a runtime may do too
    with SCREEN, tempfile.TemporaryFile() as file:
        try:
            with redirect_stderr(said), turned_away(file.fileno()):
                yield heard
        finally:
            heard += _told(said.getvalue().splitlines(True), own, stream.write if stream else lambda _: None)
            file.seek(0)
            lines = (line.decode(errors="surrogateescape") for line in file)
            heard += _told(lines, own, lambda line: os.write(STDERR, line.encode(errors="surrogateescape")))


def _told(lines: Iterable[str], own: Pattern[str], pass_on: Callable[[str], object]) -> list[str]:
    """Return the runtime's lines; pass on the others."""
    found = []
    for line in lines:
        begins = own.match(line)
        if begins is None:
            pass_on(line)
        else:
            found.append(line[begins.end() :].strip())
    return found
