"""What a search tells while it runs; the command line draws it, by default nobody listens."""

from __future__ import annotations

from typing import Protocol

from ..studies.trial import Trial


class Progress(Protocol):
    """Is told what a search does, after what it tells is on disk.

    One that has a method `standing` is told as well what the workers are at, where there are several: it is called with a
    `studies.standing.Standing` every second or so, and with one of no workers when they are gone.
    """

    def note(self, text: str) -> None:
        """Take a warning or a remark, one line."""
        ...

    def prepare(self, text: str, fraction: float) -> None:
        """Take how far the gathering of statistics and roundings is, 0 to 1."""
        ...

    def step(
        self,
        done: int,
        total: int,
        hypervolume: float,
        seconds_left: float | None,
        trial: Trial,
        gain_ahead: float | None = None,
    ) -> None:
        """Take that a trial is finished.

        Args:
            done: finished trials of the run.
            total: trials it is to have.
            hypervolume: of the front now, 0 to 1.
            seconds_left: until the search ends, by the trials so far; None where it cannot be told yet.
            trial: the one just finished.
            gain_ahead: what the next evaluations will probably add to the hypervolume (`account.AHEAD` of them); None where
                nobody can tell.
        """
        ...


class Silent:
    """A `Progress` that drops everything."""

    def note(self, text: str) -> None:
        """Drop it."""

    def prepare(self, text: str, fraction: float) -> None:
        """Drop it."""

    def step(
        self,
        done: int,
        total: int,
        hypervolume: float,
        seconds_left: float | None,
        trial: Trial,
        gain_ahead: float | None = None,
    ) -> None:
        """Drop it."""
