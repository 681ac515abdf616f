"""Converters write notes of their own, past Python too: nobody asked for them."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator

from .screen import SCREEN, turned_away


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keep what is printed and logged meanwhile off the screen, by this process's other threads too; errors are raised still."""
    with SCREEN, contextlib.ExitStack() as after:
        nothing = os.open(os.devnull, os.O_WRONLY)
        after.callback(os.close, nothing)
        after.enter_context(turned_away(nothing))
        before = logging.root.manager.disable
        logging.disable(logging.ERROR)
        after.callback(logging.disable, before)
        after.enter_context(contextlib.redirect_stdout(io.StringIO()))
        after.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield
