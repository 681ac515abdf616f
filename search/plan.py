"""What is to be evaluated next: the starting points, then what a proposer proposes, now and then a sequential twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..spaces.candidate import Candidate
from ..studies.front import WORST
from ..studies.trial import Trial
from .account import Watch
from .frontier import Frontier
from .memory_gate import MOST, MemoryGate
from .pace import Pace
from .progress import Progress
from .proposers import Observation, Proposer, make_proposer
from .recorded import Proposal, RecordedRun
from .start import first_points_of
from .task import limits_of, tasks_of
from .twins import EVERY, sequential_twin


class Plan:
    """Claims candidates one after another, until the run has enough of them, the space or the time is at its end.

    Args:
        recorded: the run.
        pace: how many there are to be, and until when.
        progress: is told why there are no more.
        sampler: proposes, after the starting points.
        seed: of the sampler.
        until_converged: end where little is left to gain.
    """

    def __init__(
        self,
        recorded: RecordedRun,
        pace: Pace,
        progress: Progress,
        sampler: str,
        seed: int,
        until_converged: bool,
    ) -> None:
        self.recorded = recorded
        self.pace = pace
        self.progress = progress
        self.sampler = sampler
        self.seed = seed
        self.until_converged = until_converged
        self._proposer: Proposer | None = None
        self._watch: Watch | None = None
        self._starting = [
            Proposal(candidate, label) for label, candidate in first_points_of(recorded.study.spaces, sampler)
        ]
        self._gate = MemoryGate(recorded.study)
        self._claimed: list[Trial] = []
        self._ended = False

    def next(self, wanted: int, time_is_over: Callable[[], bool]) -> Trial | None:
        """Return a trial that is to be judged; None where there are no more.

        Args:
            wanted: how many can be begun at once; so many are proposed together.
            time_is_over: whether another one would end too late.
        """
        while not self._claimed and not self._ended:
            left = self.pace.total - self.recorded.run.count
            proposals = self._proposals(min(wanted, left), time_is_over)
            if not proposals:
                break
            self._claimed = self.recorded.claim(proposals, self.pace.total)
            if not self._claimed:  # others were faster
                self.recorded.refresh()
        return self._claimed.pop(0) if self._claimed else None

    def _proposals(self, wanted: int, time_is_over: Callable[[], bool]) -> list[Proposal]:
        if wanted <= 0:
            return []
        if time_is_over():
            return self._end("the time is over")
        self._starting = [p for p in self._starting if self.recorded.run.known(p.candidate) is None]
        if self._starting:
            return self._starting[:wanted]
        proposer = self._proposer or self._make_proposer()
        history = self.recorded.history
        watch = self._watch
        if watch is not None and watch.little_is_left(self.recorded.run, history) and self.until_converged:
            return self._end(f"little is left to gain: {watch}")
        under_way = self.recorded.run.started
        known = [*history, *(Observation(trial.candidate, None, pending=True) for trial in under_way)]
        known += self._gate.refused
        most = len(self._gate.refused) + MOST
        found: list[Candidate] = []
        while len(found) < wanted:
            twin = self._twin(known) if len(known) % EVERY == 0 else None
            new = (
                [twin]
                if twin is not None
                else proposer.propose(known, self._until_twin(len(known), wanted - len(found)))
            )
            new = new or [twin for twin in [self._twin(known)] if twin is not None]
            if not new:
                break
            if len(self._gate.refused) < most:
                before = len(self._gate.refused)
                new = self._gate.passed(new)
                known += self._gate.refused[before:]
            found += new
            known += [Observation(candidate, None, pending=True) for candidate in new]
        if not found:
            rest = ", or surely takes more memory than it may" if self._gate.refused else ""
            return self._end(f"every candidate of the space is measured{rest}")
        expect = watch.expect if watch is not None else lambda *_: None
        return [Proposal(candidate, "", expect(self.recorded.run, history, candidate)) for candidate in found]

    def _end(self, why: str) -> list[Proposal]:
        self.progress.note(why)
        self._ended = True
        return []

    def _until_twin(self, known: int, wanted: int) -> int:
        """Return how many to propose before it is a twin's turn."""
        return min(wanted, EVERY - known % EVERY)

    def _make_proposer(self) -> Proposer:
        recorded = self.recorded
        tasks = tasks_of(recorded.study, recorded.run, self.sampler, self.seed, self.progress.prepare)
        self._proposer = make_proposer(self.sampler, *tasks)
        self._watch = Watch(self._proposer) if isinstance(self._proposer, Frontier) else None
        return self._proposer

    def _twin(self, history: Sequence[Observation]) -> Candidate | None:
        """Return the sequential twin to try next, or None where there is none or no time for one.

        Random search has none: its candidates follow from the seed alone.
        """
        if self.sampler == "random" or not self.pace.allows_twin:
            return None
        return sequential_twin(history, [min(pair) for pair in zip(WORST, limits_of(self.recorded.run), strict=True)])

    @property
    def gain_ahead(self) -> float | None:
        """What the next evaluations will probably add to the hypervolume; None where nobody can tell."""
        return self._watch.gain_ahead if self._watch is not None else None

    def write_account(self) -> None:
        """Keep what the proposer's model says of the search, where it has one."""
        if self._watch is not None:
            self._watch.write_account(self.recorded.run)
