"""Where a search's work is done: one small protocol, and the search's own process behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..studies.standing import Doing
from ..studies.trial import Trial
from .evaluate import Evaluator
from .pace import Pace
from .work import Results, Told, Work, perform

if TYPE_CHECKING:
    from .race import Race


class Pool(Protocol):
    """Does work and tells of it. Work that was submitted is told of until it is over, whatever happens to its worker.

    Attributes:
        gathered: how many trials are to wait for a timing before one is worth it.
    """

    gathered: int

    @property
    def notes(self) -> list[str]:
        """What is to be told of the workers; taken by who tells it."""
        ...

    @property
    def environments(self) -> dict[str, Mapping[str, Any]]:
        """Where they work, by digest, besides this process's environment; taken by who keeps it."""
        ...

    @property
    def workers(self) -> int:
        """How many candidates are worked on at once."""
        ...

    @property
    def timers(self) -> int:
        """How many timings can be under way at once."""
        ...

    @property
    def room(self) -> int:
        """How many pieces of work it could begin at once."""
        ...

    @property
    def busy(self) -> int:
        """How many pieces of work are not over."""
        ...

    @property
    def doing(self) -> list[Doing]:
        """What workers are at, where there are several."""
        ...

    def submit(self, work: Work) -> None:
        """Take work. Timings have a machine to themselves, and may wait for it."""
        ...

    def wait(self) -> list[Told]:
        """Return what was found since the last call; where there is nothing yet, not even a note, wait for it a while.

        Raises:
            InputError: the disk cannot be written to, or all workers are gone for good.
        """
        ...

    def teach(self) -> None:
        """Let workers know what the study's predictor has learned."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


@dataclass(frozen=True)
class Crew:
    """Workers that help a search.

    Attributes:
        open_pool: opens them for candidates, given what evaluates and the measured reference.
        race: trains on them; None where they do not train.
    """

    open_pool: Callable[[Evaluator, Trial], Pool]
    race: Race | None = None


class OwnProcess:
    """Does one piece of work after another in the search's own process."""

    gathered = 1
    workers = 1
    timers = 1

    def __init__(self, evaluator: Evaluator, pace: Pace | None = None) -> None:
        self.notes: list[str] = []
        self.environments: dict[str, Mapping[str, Any]] = {}
        self._evaluator = evaluator
        self._pace = pace
        self._under_way: tuple[Work, Iterator[Results]] | None = None

    @property
    def room(self) -> int:
        """1 where nothing is under way."""
        return 1 - self.busy

    @property
    def busy(self) -> int:
        """1 where something is under way."""
        return int(self._under_way is not None)

    @property
    def doing(self) -> list[Doing]:
        """Nothing that is not seen by what is told."""
        return []

    def submit(self, work: Work) -> None:
        """Take work; it is begun when it is waited for."""
        if self._under_way is not None:
            raise RuntimeError("one piece of work at a time")
        self._under_way = work, perform(self._evaluator, work)

    def wait(self) -> list[Told]:
        """Return the next finished stage, or that the work is over."""
        if self._under_way is None:
            return []
        work, results = self._under_way
        if work.apart and not self._evaluator.study.further.in_memory:  # else only this process can measure it
            return self._apart(work)
        found = next(results, None)
        if found is None:
            self._under_way = None
            return [Told(work, over=True)]
        return [Told(work, found)]

    def _apart(self, work: Work) -> list[Told]:
        from .apart import perform_apart

        self._under_way = None
        left = self._pace.of_timeout(1.0) if self._pace is not None else float("inf")
        return [perform_apart(self._evaluator.study, self._evaluator.models, work, left)]

    def teach(self) -> None:
        """The predictor is the study's own."""

    def close(self) -> None:
        """Nothing is left behind."""
