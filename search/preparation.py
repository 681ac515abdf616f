"""What a search does before anything is evaluated: it gathers what candidates are built from, and learns the machine's speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..objectives.calibration import calibrate
from ..objectives.predictor_file import take_predictor
from ..spaces.errors import BuildError
from ..studies.run_folder import PREDICTOR_FILE
from .pace import Pace, TimeIsOverError
from .progress import Progress
from .recorded import RecordedRun
from .students import use_students

if TYPE_CHECKING:
    from .race import Race

CALIBRATION = 0.25  # seconds for each trial that is to be timed; and the part of what is left of a timeout
MOST_CALIBRATION = 60.0
LEAST_CALIBRATED = 15  # trials: fewer are timed before a calibration had paid


def prepare(recorded: RecordedRun, pace: Pace, progress: Progress, race: Race | None = None) -> None:
    """Train students, gather statistics and roundings, and calibrate the latency predictor where enough is to be timed.

    Args:
        recorded: the run.
        pace: of the search.
        progress: is told what happens.
        race: trains side by side; by default one training after another, in this process.
    """
    study = recorded.study
    told = list(study.warnings)
    for warning in told:
        progress.note(warning)
    try:
        for note in use_students(study, recorded.holdings, pace.limited(progress.prepare), race):
            progress.note(note)
    except TimeIsOverError:
        progress.note("the time is over before the students are trained: the same command goes on with them")
    study.prepare_spaces(progress.prepare)
    for warning in study.warnings[len(told) :]:
        progress.note(warning)
    ignored = take_predictor(study.predictor, recorded.folder / PREDICTOR_FILE)
    if ignored is not None:
        progress.note(ignored)
    _calibrate(recorded, pace, progress)


def _calibrate(recorded: RecordedRun, pace: Pace, progress: Progress) -> None:
    """Teach the latency predictor this machine, in a part of the time that timing the trials takes that are missing."""
    trials = pace.total - recorded.run.finished
    if trials < LEAST_CALIBRATED:
        return
    study = recorded.study
    seconds = min(MOST_CALIBRATION, CALIBRATION * trials, pace.of_timeout(CALIBRATION))
    try:
        calibrate(study.predictor, study.space, study.feed, seconds, progress.prepare)
    except BuildError as error:
        progress.note(f"no speedup is predicted: {error}")
