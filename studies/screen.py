"""Where a verb's words go: its result on standard output, progress and warnings on standard error."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .searched import AHEAD
from .texts import number_text, seconds_text, size_text

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from .search_bar import SearchBar
    from .standing import Standing
    from .trial import Trial

WIDTH = 140  # of what is written to a file or a pipe
LINES_SECONDS = 10.0  # from one line on what workers are at to the next


class Screen:
    """The words of one verb.

    Args:
        as_json: the result is one JSON document.
        quiet: no progress, no warnings, no hints.
    """

    def __init__(self, as_json: bool, quiet: bool) -> None:
        self.as_json = as_json
        self.quiet = quiet

    def result(self, data: Any, view: Callable[[Any], RenderableType]) -> None:
        """Write the result: as JSON, or as ``view`` draws it."""
        if self.as_json:
            sys.stdout.write(json.dumps(plain(data), indent=2, allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            _console().print(view(data))

    def note(self, *texts: str) -> None:
        """Write warnings or remarks, one line each."""
        for text in () if self.quiet else texts:
            _console(stderr=True).print(text, style="yellow", soft_wrap=True)

    def hint(self, text: str) -> None:
        """Write what to do next, unless a program reads the result."""
        if not (self.quiet or self.as_json):
            _console(stderr=True).print(text, style="dim", soft_wrap=True)

    @contextmanager
    def steps(self) -> Iterator[Callable[[str, float], None]]:
        """Give a function that shows how far a piece of work is: a text, and the fraction done, 0 to 1."""
        with self.search() as shown:
            yield shown.prepare

    @contextmanager
    def search(self) -> Iterator[SearchProgress]:
        """Give the progress of a search; a live bar on a terminal, plain lines elsewhere."""
        shown = SearchProgress(self.quiet)
        try:
            yield shown
        finally:
            shown.close()


class SearchProgress:
    """Draws a search (see `search.progress.Progress`) on standard error."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self._bar: SearchBar | None = None
        self._preparing = ""
        self._stood = 0.0

    def note(self, text: str) -> None:
        """Show a warning or remark."""
        if not self.quiet:
            self._print(text, "yellow")

    def prepare(self, text: str, fraction: float) -> None:
        """Show how far the preparation is."""
        if self.quiet:
            return
        if self._live():
            self._update(text, fraction, 1.0, "")
        elif text != self._preparing:
            self._print(text)
        self._preparing = text

    def step(
        self,
        done: int,
        total: int,
        hypervolume: float,
        seconds_left: float | None,
        trial: Trial,
        gain_ahead: float | None = None,
    ) -> None:
        """Show a finished trial, and how the search stands."""
        if self.quiet:
            return
        left = "" if seconds_left is None else f"{seconds_text(seconds_left)} left"
        standing = f"hypervolume {hypervolume:.3f}"
        if gain_ahead is not None:
            standing += f" (next {AHEAD}: about +{gain_ahead:.4f})"
        if self._live():
            self._print(trial_line(trial))
            self._update(f"trial {done} of {total}", done, total, f"{standing}  {left}")
        else:
            told = [f"{done}/{total}", trial_line(trial), standing, left]
            self._print("  ".join(part for part in told if part))

    def standing(self, standing: Standing) -> None:
        """Show what the workers are at: a table on a terminal; elsewhere a line now and then."""
        if self.quiet:
            return
        from .search_bar import standing_line, standing_view

        if self._bar is not None:
            self._bar.below = standing_view(standing) if standing.workers else None
            self._bar.refresh()
        elif standing.workers and time.monotonic() - self._stood >= LINES_SECONDS:
            self._stood = time.monotonic()
            self._print(standing_line(standing), "dim")

    def close(self) -> None:
        """Leave the screen in order."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _live(self) -> bool:
        return _console(stderr=True).is_terminal

    def _print(self, text: str, style: str | None = None) -> None:
        console = self._bar.console if self._bar else _console(stderr=True)
        console.print(text, style=style, soft_wrap=True)

    def _update(self, text: str, done: float, total: float, more: str) -> None:
        if self._bar is None:
            from .search_bar import search_bar

            self._bar = search_bar(_console(stderr=True))
            self._bar.add_task("", more="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], description=text, completed=done, total=total, more=more)


def trial_line(trial: Trial) -> str:
    """A finished trial in a line."""
    name = f"trial {trial.number}" + (f" ({trial.label})" if trial.label else "")
    if not (trial.measured or trial.predicted):
        return f"{name}: {trial.state}: {trial.reason or 'no reason kept'}"
    row = trial.row()
    size, psnr = size_text(row["size_bytes"]), f"{number_text(row['psnr_db'])} dB"
    if trial.predicted:
        return f"{name}: {size}, {number_text(row['predicted_speedup'])}× predicted, {psnr}"
    return f"{name}: {size}, {number_text(row['speedup'])}×, {psnr}"


def plain(value: Any) -> Any:
    """Return plain JSON data: NaN and infinities become None, NumPy's numbers Python's."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "item"):
        return plain(value.item())
    return str(value)


def _console(stderr: bool = False) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = WIDTH
    return console
