"""Converters write notes of their own, past Python too: nobody asked for them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import threading
from collections.abc import Iterator

STDERR = 2  # the file descriptor
SCREEN = threading.RLock()  # who holds it may exchange what standard error is


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what is printed and logged meanwhile off the screen, by this process's other threads too; errors are raised still."""
    with SCREEN, contextlib.ExitStack() as after:
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        after.callback(logging.disable, before)
        after.enter_context(contextlib.redirect_stdout(io.StringIO()))
        after.enter_context(contextlib.redirect_stderr(io.StringIO()))
        with contextlib.suppress(OSError):  # it is closed
            screen = os.dup(STDERR)
            after.callback(os.close, screen)
            after.callback(os.dup2, screen, STDERR)
            nothing = os.open(os.devnull, os.O_WRONLY)
            after.callback(os.close, nothing)
            os.dup2(nothing, STDERR)
        yield
