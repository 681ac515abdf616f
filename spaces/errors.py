"""The errors that slimfront raises: one root, and one class for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence


class SlimfrontError(Exception):
    """Anything that slimfront itself raises; the command line ends with status 1."""


class InputError(SlimfrontError):
    """What the user gave is wrong: the message names the value and the remedy; exit status 2."""


class BuildError(SlimfrontError):
    """A candidate cannot be built or does not run; a search records it and goes on."""


def nearest(wrong: str, allowed: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the allowed spelling closest to ``wrong``, or an empty text."""
    matches = difflib.get_close_matches(wrong, list(allowed), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""


def some_of(names: Sequence[str], what: str = "", most: int = 4) -> str:
    """Return the first names as "a, b, c, d", followed by " and 3 more" of what they are where there are more."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more{what and ' '}{what}" if left > 0 else "")


def not_installed(runtime: str, package: str) -> InputError:
    """Return the error of a study whose runtime lacks a package here; it names the extra to install.

    Args:
        runtime: its name in a study file, which is the extra's.
        package: for people.
    """
    return InputError(f'target.runtime "{runtime}" needs {package} installed: pip install "slimfront[{runtime}]"')


def last_line(text: str) -> str:
    """Return the last line of a text that is not empty, where a program usually says what it failed of; empty if none is."""
    return _cut((text.strip().splitlines() or [""])[-1].strip())


def one_line(error: BaseException) -> str:
    """Return an error's text as one line, cut where it is long; its type where it has no text."""
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str, most: int = 300) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."
