"""The coordinator of a search: it alone decides what is evaluated and timed, and writes to the run.

Candidates are claimed, handed to a pool of workers, judged, and timed where their predictions do not suffice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..objectives.predictor_file import write_predictor
from ..spaces.candidate import Candidate
from ..spaces.errors import InputError
from ..studies.reading_notes import environment_notes, reading_notes
from ..studies.records import DONE, FAILED, PREDICTED
from ..studies.run import Run
from ..studies.run_folder import PREDICTOR_FILE, keep_environment, writing_to
from ..studies.standing import Standing
from ..studies.trial import QUALITY, REFERENCE_LABEL, Trial, stages_with
from .agenda import TRIES, Agenda
from .evaluate import TIMING, Evaluator, StageResult
from .mirror import Mirror
from .pace import Pace
from .plan import Plan
from .pool import Crew, OwnProcess, Pool
from .preparation import prepare
from .progress import Progress
from .recorded import Proposal, RecordedRun
from .work import Kind, Told, Work

MOST_LOSSES = 10  # of a candidate's workers, whatever ended them: it may be what takes nodes down
SUSPICIOUS_PSNR_DB = 12.0  # a trained reference stands higher against its targets, unless a range is wrong
STANDING_SECONDS = 0.5  # from one look at what workers are at to the next
OTHERS_SECONDS = 1.0  # from one look at what other processes have found to the next
ADOPTION_SECONDS = 10.0  # from one look for processes that have ended to the next
CLEANED = 50  # files are looked through when the run has grown by this part of it, at first after each trial

Next = Callable[[], Work | None]


class Coordinator:
    """One call of `search`, the run's records held.

    Args:
        recorded: the run.
        mirror: a copy of it, for other tools.
        progress: is told what happens.
        pace: how many candidates there are to be, and until when.
        until_converged: end earlier where little is left to gain.
        crew: workers that help; by default all is done in this process.
    """

    def __init__(
        self,
        recorded: RecordedRun,
        mirror: Mirror | None,
        progress: Progress,
        pace: Pace,
        until_converged: bool,
        crew: Crew | None = None,
    ) -> None:
        self.recorded = recorded
        self.study = recorded.study
        self.mirror = mirror
        self.progress = progress
        self.pace = pace
        self.until_converged = until_converged
        self.evaluator = Evaluator(self.study, recorded.folder / "models", predictor=self.study.predictor)
        self.pool: Pool = OwnProcess(self.evaluator, pace)
        self._crew = crew
        self.under_way: dict[Work, float] = {}  # since when
        self._tries: Counter[int] = Counter()
        self._losses: Counter[int] = Counter()
        self._searched = False
        self._cleaned = 0
        self._refreshed = self._adopted = self._told = 0.0

    @property
    def run(self) -> Run:
        """The run as it is now."""
        return self.recorded.run

    def go(self, sampler: str, seed: int) -> None:
        """Evaluate until the run has its trials, the space is exhausted or the time is over."""
        if self.mirror and not self.recorded.others:
            self.mirror.add(self.run, self.run.trials)
        count = self.run.finished
        if count >= self.pace.total:
            self.progress.note(
                f"the run has {count} candidates already, and no more were asked for ({self.pace.total})"
            )
        for note in environment_notes(self.run):
            self.progress.note(note)
        self.recorded.adopt()
        self.recorded.refresh()
        if self._more_to_do():
            self._search(sampler, seed)
        while self._inherited():
            self._search(sampler, seed)
        self._tell_at_the_end()

    def _more_to_do(self) -> bool:
        return self.run.count < self.pace.total or bool(self.recorded.left(self.pace.total))

    def _inherited(self) -> bool:
        """Wait until it is known who of the others lives that began trials; return whether some are this one's by now."""
        adopted_late = self._searched and self.recorded.begun(self.pace.total)  # after the last proposal
        if adopted_late and not self.agenda.time_is_over():
            return True
        asked, told = time.monotonic(), False
        while (left := len(self.recorded.left_to_others())) and self.pace.of_timeout(1.0) > 0.0:
            if self.recorded.adopt():
                self.recorded.refresh()
                if self.recorded.left(self.pace.total):
                    return True
                continue
            waited = time.monotonic() - asked
            if not self.recorded.silent(waited):
                return False
            if waited > ADOPTION_SECONDS and not told:
                self.progress.note(
                    f"other processes began {left} candidates of the run: waiting to see whether they live"
                )
                told = True
            time.sleep(OTHERS_SECONDS)
            self.recorded.refresh()
        return False

    def _search(self, sampler: str, seed: int) -> None:
        prepare(self.recorded, self.pace, self.progress, self._crew.race if self._crew else None)
        self.plan = Plan(self.recorded, self.pace, self.progress, sampler, seed, self.until_converged)
        self._searched = True
        predicts = self.study.predictor.calibrated
        self.agenda = Agenda(self.recorded, self.pace, self.progress, self.plan, predicts, self)
        self._measure_reference()
        self.agenda.begun_before = self.recorded.begun(self.pace.total)
        if self._crew is not None and self._more_to_do():
            self.pool = self._crew.open_pool(self.evaluator, self.run.reference)
        try:
            self._work_off(self.agenda.next_of_search)
            for following in (self.agenda.next_postponed, self.agenda.next_in_doubt, self.agenda.next_postponed):
                self.agenda.queue.reconsider()  # who was timed again may have been what kept others from the front
                self._work_off(following)
        finally:
            self.pool.close()
            self._tell_standing(ended=True)
        self._clean()
        self.plan.write_account()
        self.study.predictor.save()
        with writing_to(self.recorded.folder):
            write_predictor(self.study.predictor, self.recorded.folder / PREDICTOR_FILE)

    def _measure_reference(self) -> None:
        """Measure the uncompressed model first: all others are compared with it."""
        while True:
            known = self.run.known(Candidate())
            if known is not None and known.state != "started":
                return
            first = Proposal(Candidate(), REFERENCE_LABEL)
            claimed = [known] if known else self.recorded.claim([first], self.pace.total)
            if claimed and self.recorded.mine(claimed[0]):
                judged = iter([Work(Kind.JUDGE, (claimed[0],))])
                self._work_off(lambda judged=judged: next(judged, None) or self.agenda.next_due())  # type: ignore[misc]
                continue
            self._check_reference(claimed)
            self.progress.prepare("another process measures the reference", 0.0)
            time.sleep(OTHERS_SECONDS)
            self._meet_others(OTHERS_SECONDS)

    def _check_reference(self, claimed: Sequence[Trial]) -> None:
        """Raise `InputError` where another process has timed the reference in an environment that is not this one's."""
        timed = [trial.stages.get("build", {}).get("environment") for trial in claimed]
        if any(environment not in (None, self.study.environment.digest) for environment in timed):
            raise InputError(
                "another process searches this study on another kind of machine, or with other versions; its timings and "
                "those made here cannot be compared: search there, or keep the records of this machine elsewhere"
            )

    def _work_off(self, following: Next) -> None:
        """Hand out work and take what is told of it until there is none and nothing is under way."""
        while True:
            while self.pool.room > 0 and (work := self.agenda.lost() or following()) is not None:
                kept = tuple(trial for trial in work.trials if self.recorded.mine(trial))
                if kept:  # others may have taken over trials of this process while it was suspended
                    work = replace(work, trials=kept)
                    self.under_way[work] = time.monotonic()
                    self.pool.submit(work)
            if not self.pool.busy:
                return
            told = self.pool.wait()
            self._keep_environments()
            self._take(told)
            self._meet_others()
            self._tell_standing()
            while self.pool.notes:
                self.progress.note(self.pool.notes.pop(0))

    def _tell_standing(self, ended: bool = False) -> None:
        """Tell what workers are at, where there are several and somebody listens; of none when they have ended."""
        now = time.monotonic()
        listener = getattr(self.progress, "standing", None)
        if listener is None or self.pool.workers < 2 or (now - self._told < STANDING_SECONDS and not ended):
            return
        self._told = now
        doing = () if ended else tuple(self.pool.doing)
        timed = sum(len(each.trials) for each in doing if each.stage == TIMING)
        workers = 0 if ended else self.pool.workers
        listener(Standing(workers, doing, self.agenda.waiting - timed, self.pace.per_minute))

    def _keep_environments(self) -> None:
        """Keep what the digests of the nodes' environments stand for."""
        while self.pool.environments:
            with writing_to(self.recorded.folder):
                keep_environment(self.recorded.folder, *self.pool.environments.popitem())

    def _meet_others(self, after: float = ADOPTION_SECONDS) -> None:
        """Take what other processes have found on the same records, and the trials of those that have ended."""
        now = time.monotonic()
        if now - self._refreshed >= OTHERS_SECONDS:
            self._refreshed = now
            self.recorded.refresh()
        if now - self._adopted >= after:
            self._adopted = now
            adopted = self.recorded.adopt()
            if adopted:
                self.recorded.refresh()
                self.agenda.take_over(adopted)

    def _take(self, tolds: Sequence[Told]) -> None:
        """Record what was found, all of it at once, and then act on it."""
        found = [(number, result) for told in tolds for number, result in told.results]
        for number, result in found:
            if result.state == FAILED and self.run.any_trial(number).label == REFERENCE_LABEL:
                raise InputError(f"the study's model itself fails: {result.reason}")
        for where in dict.fromkeys((told.node, told.environment) for told in tolds):
            here = [told for told in tolds if (told.node, told.environment) == where]
            self.recorded.add([pair for told in here for pair in told.results], *where)
        for told in tolds:
            self._learn(told)
            if told.over:
                seconds = time.monotonic() - self.under_way.pop(told.work)
                if told.lost is not None and not self._is_done(told.work):
                    self._take_lost(told)
                elif told.work.kind is Kind.JUDGE:
                    self._judged(told.work, seconds)
                elif told.work.kind is Kind.TIME:
                    self._finished([self.run.any_trial(number) for number in told.work.numbers])

    def _learn(self, told: Told) -> None:
        """Teach the predictor by timings, and note how long they took."""
        timed = [result for _, result in told.results if (result.stage, result.state) == (TIMING, DONE)]
        self.pace.timings += [result.seconds for result in timed]
        lessons = [result.lesson for result in timed if result.lesson is not None]
        for lesson in lessons:
            self.study.predictor.take(lesson)
        if lessons:
            self.pool.teach()

    def _judged(self, work: Work, seconds: float) -> None:
        """Decide whether a trial that was built and judged is timed now."""
        before = work.trials[0]
        trial = self.run.any_trial(before.number)
        if (
            not trial.judged_by(self.study.criteria) and trial.state != FAILED
        ):  # the time was over, or it was others' meanwhile
            return
        if trial.judged and not before.judged:  # what a glance has ended, or was judged before, is no measure
            (self.pace.candidates if trial.candidate.repair == "static" else self.pace.twins).append(seconds)
            self.agenda.glances.take(trial)
        if trial.state in ("started", "predicted") and self.recorded.mine(trial):
            result = self.agenda.queue.judged(trial)
            if result is None:
                return
            trial = self.recorded.add([(trial.number, result)])[0]
        self._finished([trial])

    def _is_done(self, work: Work) -> bool:
        """Whether all that a piece of work was to find is on record: its worker ended when it had told of it."""
        stages = stages_with(self.study.criteria)
        now = [self.run.any_trial(trial.number).stages for trial in work.trials]
        before = [trial.stages for trial in work.trials]
        return all(_is_news(work.kind, stages, *pair) for pair in zip(now, before, strict=True))

    def _take_lost(self, told: Told) -> None:
        """Give work whose worker ended to another; a candidate that does so again and again has failed."""
        work = told.work
        if len(work.trials) > 1:  # which of them it was shows when each is alone
            self.agenda.again += [Work(work.kind, (trial,)) for trial in work.trials]
            return
        number = work.trials[0].number
        trial = self.run.any_trial(number)
        self._losses[number] += 1
        self._tries[number] += not told.blameless
        if self._tries[number] < TRIES and self._losses[number] < MOST_LOSSES:
            self.agenda.again.append(replace(work, trials=(trial,)))
            return
        if work.kind is Kind.TIME_AGAIN:
            return
        stages = stages_with(self.study.criteria)
        stage = next((stage for stage in stages if trial.stages.get(stage, {}).get("state") != DONE), TIMING)
        tries = TRIES if self._tries[number] >= TRIES else self._losses[number]
        result = StageResult(stage, FAILED, trial.sha256, reason=f"{told.lost}, in each of {tries} tries")
        self._finished(self.recorded.add([(number, result)]))

    def _finished(self, trials: Sequence[Trial]) -> None:
        """Tell of finished trials, and throw away the files that nobody needs any more; others' are theirs to tell of."""
        trials = [trial for trial in trials if self.recorded.mine(trial) and trial.state != "started"]
        self.pace.finished(len(trials))
        if self.mirror:
            self.mirror.add(self.run, trials)
        self.agenda.finished()
        done = self.run.finished
        if done - self._cleaned >= max(1, done // CLEANED):
            self._clean()
        for trial in trials:
            self._tell(trial)

    def _clean(self) -> None:
        self.recorded.keep_files(self.agenda.needed())
        self._cleaned = self.run.finished

    def _tell(self, trial: Trial) -> None:
        if trial.label == REFERENCE_LABEL and self.run.has_target and trial.value("psnr_db") < SUSPICIOUS_PSNR_DB:
            self.progress.note(
                f"the model stands at only {trial.value('psnr_db'):.1f} dB against the targets: "
                "are data.range and data.input_range right?"
            )
        done = self.run.finished
        left = self.pace.seconds_left(done, self.pool.workers)
        self.progress.step(done, self.pace.total, self.run.hypervolume(), left, trial, self.plan.gain_ahead)

    def _tell_at_the_end(self) -> None:
        measured = [trial for trial in self.run.trials if trial.measured]
        if self.pace.candidates:
            for note in reading_notes([trial.readings for trial in measured]):
                self.progress.note(note)
        if measured and all(self.run.violation(trial) for trial in measured):
            self.progress.note(f"no candidate keeps the constraints yet: {self.run.limits}")
        if self.mirror:
            self.mirror.add(self.run, [trial for trial in self.run.trials if self.recorded.mine(trial)], ended=True)
        pending = len(self.recorded.left_to_others())
        if pending:
            self.progress.note(f"other processes are still evaluating {pending} candidates of the run")


def _is_news(kind: Kind, stages: Sequence[str], now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether the last stage that a piece of work is to find was found since.

    Args:
        kind: of the work.
        stages: of the study, in their order.
        now, before: what is known of a trial's stages, by stage.
    """
    estimated = now.get(QUALITY, {}).get("state") == PREDICTED
    last = TIMING if kind is not Kind.JUDGE else QUALITY if estimated else stages[-2]
    return now.get(last, {}).get("state") not in (None, FAILED) and now[last] != before.get(last)
