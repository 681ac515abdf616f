"""The search: propose, evaluate, record; killed anywhere and called again, it goes on where it was."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from ..objectives.calibration import calibrate
from ..objectives.predictor_file import take_predictor, write_predictor
from ..objectives.protocol import Reading
from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError, InputError
from ..studies.definition import check_sampler
from ..studies.front import WORST, nondominated
from ..studies.limits import parse_time
from ..studies.reading_notes import environment_notes, reading_notes
from ..studies.records import RecordFile
from ..studies.run import Run
from ..studies.run_folder import PREDICTOR_FILE, RECORDS_FILE, make_folder, start_run, use_machine_facts, writing_to
from ..studies.study import Study, load_study
from ..studies.trial import REFERENCE_LABEL, Trial
from .account import Watch
from .doubt import POSTPONED, doubtful, hopeless, sure_enough
from .evaluate import Evaluator
from .frontier import Frontier
from .mirror import Mirror
from .progress import Progress, Silent
from .proposers import Observation, make_proposer
from .recorded import RecordedRun
from .start import start_points
from .task import history_of, limits_of, task_of
from .twins import EVERY, sequential_twin

CALIBRATION = 0.25  # seconds for each trial that is to be timed; and the part of what is left of a timeout
MOST_CALIBRATION = 60.0
LEAST_CALIBRATED = 15  # trials: fewer are timed before a calibration had paid
AT_ONCE = 6  # candidates that are timed in turn with one another
CHECKPOINTS = 4  # times that what was postponed is timed in a search
TIMED_AGAIN = 0.125  # timings of members of the front in doubt, in parts of the trials
TWIN_SECONDS = 60.0  # what sequential repair is taken to last before one was measured
SUSPICIOUS_PSNR_DB = 12.0  # a trained reference stands higher against its targets, unless a range is wrong


def search(
    study: Study | str | Path,
    trials: int | None = None,
    run_dir: str | Path | None = None,
    timeout: str | float | None = None,
    sampler: str | None = None,
    seed: int | None = None,
    storage: str | None = None,
    progress: Progress | None = None,
    until_converged: bool = False,
) -> Run:
    """Search a study's space and return the run; called again with the same folder, it continues.

    Args:
        study: a study, or what `load_study` takes.
        trials: the run's distinct candidates in all, reference, uniform ones and failures included.
        run_dir: the run folder; by default ``runs/<study name>``.
        timeout: seconds, or a text such as "10m"; the search ends in time, counting from this call.
        sampler: frontier, tpe, nsga2, gp or random; by default the study's.
        seed: of the sampler; by default the study's.
        storage: an Optuna storage that mirrors the run: a database URL or the path of a journal file.
        progress: is told what happens.
        until_converged: end before the trials are used up where little is left to gain, as far as the frontier sampler's
            model can tell.

    Raises:
        InputError: the study is wrong, nothing varies, ``until_converged`` is asked of another sampler, the folder is the
            run of another study or cannot be written to.
        KeyboardInterrupt: passed through; everything finished is on disk.
    """
    start = time.monotonic()
    study = study if isinstance(study, Study) else load_study(study)
    deadline = None if timeout is None else start + parse_time(timeout, "timeout")
    settings = study.settings.search
    total = settings.trials if trials is None else trials
    if isinstance(total, bool) or not isinstance(total, int) or total < 1:
        raise InputError(f"trials must be a whole number, at least 1, but got {total!r}")
    try:
        sampler = check_sampler(sampler or settings.sampler)
    except ValueError as error:
        raise InputError(f"sampler {error}") from None
    if until_converged and sampler != "frontier":
        raise InputError(
            f"only the sampler 'frontier' can tell when little is left to gain, but the sampler is {sampler!r}"
        )
    folder = Path(run_dir) if run_dir is not None else Path("runs") / study.name
    use_machine_facts(folder, study)
    study.check()
    if not study.space.varies:
        raise InputError(
            "nothing varies in the study's space: give [space] weight_bits, activation_bits, pruning_ratios or sparsities "
            "more values"
        )
    mirror = Mirror(storage, study) if storage else None
    make_folder(folder)
    environment = study.environment
    with RecordFile(folder / RECORDS_FILE) as records:
        start_run(folder, study, environment)
        recorded = RecordedRun(study, folder, records)
        running = _Search(recorded, mirror, progress or Silent(), total, deadline, until_converged)
        running.go(sampler, settings.seed if seed is None else seed)
    return Run(folder)


class _Search:
    """One call of `search`, the run's records held."""

    def __init__(
        self,
        recorded: RecordedRun,
        mirror: Mirror | None,
        progress: Progress,
        total: int,
        deadline: float | None,
        until_converged: bool,
    ) -> None:
        self.recorded = recorded
        self.study = recorded.study
        self.folder = recorded.folder
        self.mirror = mirror
        self.progress = progress
        self.total = total
        self.deadline = deadline
        self.durations: list[float] = []
        self.twin_durations: list[float] = []
        self.watch: Watch | None = None
        self.until_converged = until_converged

    @property
    def run(self) -> Run:
        """The run as it is now."""
        return self.recorded.run

    @property
    def evaluator(self) -> Evaluator:
        """What builds and measures."""
        return self.recorded.evaluator

    def go(self, sampler: str, seed: int) -> None:
        """Evaluate until the run has its trials, the space is exhausted or the time is over."""
        prepared = False
        count = len(self.run.trials)
        if count >= self.total:
            self.progress.note(f"the run has {count} candidates already, and no more were asked for ({self.total})")
        for note in environment_notes(Run(self.folder), self.study.environment.digest):
            self.progress.note(note)
        for label, candidate, expected in self._wanted(sampler, seed):
            if not prepared:
                told = list(self.study.warnings)
                for warning in told:
                    self.progress.note(warning)
                space = self.study.space
                self.study.prepare(space.rounded, space.pruned, self.progress.prepare)
                for warning in self.study.warnings[len(told) :]:
                    self.progress.note(warning)
                self._calibrate(self.total - count)
                prepared = True
            if self._time_is_over():
                self.progress.note("the time is over")
                break
            self._evaluate(label, candidate, expected)
            if len(self.run.trials) % self._rhythm == 0:
                self._time_postponed()
        if prepared:
            self._time_postponed()
            self._settle_doubts()
            if self.watch is not None:
                self.watch.write_account(self.run)
            self.study.predictor.save()
            with writing_to(self.folder):
                write_predictor(self.study.predictor, self.folder / PREDICTOR_FILE)
        measured = [trial for trial in self.run.trials if trial.measured]
        if self.durations:
            for note in reading_notes([trial.readings for trial in measured]):
                self.progress.note(note)
        if measured and all(self.run.violation(trial) for trial in measured):
            self.progress.note(f"no candidate keeps the constraints yet: {self.run.limits}")
        if self.mirror:
            self.mirror.follow(self.run, ended=True)

    def _calibrate(self, trials: int) -> None:
        """Teach the latency predictor this machine, in a part of the time that timing so many trials takes."""
        ignored = take_predictor(self.study.predictor, self.folder / PREDICTOR_FILE)
        if ignored is not None:
            self.progress.note(ignored)
        seconds = min(MOST_CALIBRATION, CALIBRATION * trials)
        if trials < LEAST_CALIBRATED or not self.study.space.varies:
            return
        if self.deadline is not None:
            seconds = min(seconds, CALIBRATION * max(self.deadline - time.monotonic(), 0.0))
        try:
            calibrate(self.study.predictor, self.study.space, self.study.feed, seconds, self.progress.prepare)
        except BuildError as error:
            self.progress.note(f"no speedup is predicted: {error}")

    @property
    def _rhythm(self) -> int:
        """After so many trials what was postponed is timed, so that the front is known meanwhile."""
        return max(self.total // CHECKPOINTS, LEAST_CALIBRATED)

    def _postponed(self) -> list[Trial]:
        """Return the trials that were not timed and may be on the front, the most promising first."""
        found = [t for t in self.run.trials if t.predicted and hopeless(self.run, t.readings) is None]
        if not found:
            return []
        known = [t for t in self.run.trials if t.measured]
        promising = nondominated([self.run.point(t) for t in (*found, *known)])[: len(found)]
        return [t for _, t in sorted(zip(~promising, found, strict=True), key=lambda pair: (pair[0], pair[1].number))]

    def _time_postponed(self) -> None:
        """Time what was not timed and may be on the front, several at once: they share the reference's time."""
        done, left = 0, self._postponed()
        while left and not self._time_is_over(spare=0):
            self.progress.prepare("timing what may be on the front", done / (done + len(left)))
            batch = left[: self._at_once]
            self.recorded.add(self.evaluator.time_together(batch))
            for trial in batch:
                self._tell(self.run.trial(trial.number))
            done, left = done + len(batch), self._postponed()
        self.recorded.keep_files(self._postponed())

    @property
    def _at_once(self) -> int:
        """How many trials are timed in turn with one another: as many as the time that is left allows, at least one."""
        if self.deadline is None or not self.evaluator.timing_seconds:
            return AT_ONCE
        left = self.deadline - time.monotonic()
        return max(1, min(AT_ONCE, int(left / max(self.evaluator.timing_seconds))))

    def _untimed(self, label: str, found: Mapping[str, Reading]) -> str | None:
        """Return why a candidate is not timed now: it is hopeless, or so well predicted that its timing can wait."""
        reason = hopeless(self.run, found)
        if reason is None and not label and self.study.predictor.calibrated and sure_enough(found):
            return POSTPONED
        return reason

    def _settle_doubts(self) -> None:
        """Time members of the front in doubt once more."""
        left = most = max(round(TIMED_AGAIN * self.total), 1)
        left -= sum(max(trial.timings - 1, 0) for trial in self.run.trials)
        while left > 0 and not self._time_is_over() and (found := doubtful(self.run)):
            self.progress.prepare("timing again who is in doubt", 1.0 - left / most)
            timed = self.evaluator.time_again(found[: min(left, self._at_once)])
            if not timed:
                break
            left -= len(timed)
            self.recorded.add(timed)

    def _wanted(self, sampler: str, seed: int) -> Iterator[tuple[str, Candidate, dict[str, Reading] | None]]:
        """Yield what is to be evaluated, and what is expected of it: what was begun, the starting points, then proposals."""
        for trial in [t for t in self.run.all_trials if t.state == "started" and t.number < self.total]:
            yield trial.label, trial.candidate, None
        for label, candidate in start_points(self.study.space):
            if self._room() and self.recorded.known(candidate) is None:
                yield label, candidate, None
        if not self._room() or self._time_is_over():
            return
        proposer = make_proposer(sampler, task_of(self.study, self.run, sampler, seed, self.progress.prepare))
        self.watch = Watch(proposer) if isinstance(proposer, Frontier) else None
        while self._room():
            history = history_of(self.run)
            if self.watch is not None and self.watch.little_is_left(self.run, history) and self.until_converged:
                self.progress.note(f"little is left to gain: {self.watch}")
                return
            proposal = self._twin(history) if len(history) % EVERY == 0 else None
            proposal = proposal or next(iter(proposer.propose(history, 1)), None) or self._twin(history)
            if proposal is None:
                self.progress.note("every candidate of the space is measured")
                return
            yield "", proposal, self.watch.expect(self.run, history, proposal) if self.watch is not None else None

    def _twin(self, history: Sequence[Observation]) -> Candidate | None:
        """Return the sequential twin to try next, or None where there is none or no time for one."""
        longest = max(self.twin_durations, default=TWIN_SECONDS)
        if self.deadline is not None and time.monotonic() + longest > self.deadline:
            return None
        return sequential_twin(history, [min(pair) for pair in zip(WORST, limits_of(self.run), strict=True)])

    def _room(self) -> bool:
        return len(self.run.all_trials) < self.total

    def _evaluate(self, label: str, candidate: Candidate, expected: Mapping[str, Reading] | None) -> None:
        """Evaluate one candidate and tell of it."""
        trial, seconds = self.recorded.evaluate(candidate, label, lambda found: self._untimed(label, found), expected)
        (self.durations if candidate.repair == "static" else self.twin_durations).append(seconds)
        self.recorded.keep_files(self._postponed())
        if self.mirror:
            self.mirror.follow(self.run)
        self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        if trial.label == REFERENCE_LABEL and self.run.has_target and trial.value("psnr_db") < SUSPICIOUS_PSNR_DB:
            self.progress.note(
                f"the model stands at only {trial.value('psnr_db'):.1f} dB against the targets: "
                "are data.range and data.input_range right?"
            )
        done = len(self.run.trials)
        left = (self.total - done) * statistics.fmean([*self.durations, *self.twin_durations])
        if self.deadline is not None:
            left = min(left, max(0.0, self.deadline - time.monotonic()))
        gain = self.watch.gain_ahead if self.watch is not None else None
        self.progress.step(done, self.total, self.run.hypervolume(), left, trial, gain)

    def _time_is_over(self, spare: int | None = None) -> bool:
        """Whether another trial, as long as they usually are, would end too late; the first one is always begun.

        Args:
            spare: timings that time has to be left for; by default of all that was postponed.
        """
        if self.deadline is None or not self.durations:
            return False
        spare = len(self._postponed()) if spare is None else spare
        later = spare * statistics.median(self.evaluator.timing_seconds or [0.0])
        return time.monotonic() + statistics.median(self.durations) + later > self.deadline
