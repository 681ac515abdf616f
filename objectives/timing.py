"""Speed: a model timed in turn with the reference, in randomised order, as a ratio with its interval."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import BuildError, SlimfrontError
from ..spaces.session import batches
from .protocol import OpenModel, Reading, Subject
from .ratio import LEAST_TOLD, Estimate, drift, joint_half_width, median_interval, ratio_estimate
from .target import Slot


@dataclass(frozen=True)
class Timing:
    """Reads `speedup`, `reference_ms`, `reference_drift` and `disturbed`.

    One timing at a time on a machine: others wait. The clock that counts is that of the machine that runs the models. A device
    is asked for several rounds at once, so that it does not rest between them.

    Attributes:
        warmups: untimed runs of each model; a single one where that takes a good part of ``seconds``.
        least_rounds: timed unless they take longer than ``longest``, or fewer confirm what was predicted.
        most_rounds: never exceeded.
        half_width: rounds end when the interval's half-width is below this share of the speedup.
        confirming_rounds: from so many on, rounds end where they agree with the predicted speedup,
        confirmed: and the interval that both give together has a half-width below this share, their own one half as wide
            again at most.
        seconds: or when the rounds have taken this long, there are ``least_rounds``, and few of them were disturbed.
        longest: or when they have taken this long, however few and disturbed they are.
        slot_seconds: a model faster than this is run several times in a row and the mean is taken.
        seed: of the order in which a round times the two.
    """

    warmups: int = 2
    least_rounds: int = 9
    most_rounds: int = 120
    half_width: float = 0.02
    confirming_rounds: int = LEAST_TOLD
    confirmed: float = 0.03
    seconds: float = 4.0
    longest: float = 12.0
    slot_seconds: float = 0.01
    seed: int = 0
    name: str = "timing"

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the speedup against the reference, the reference's median time of one batch, its drift, what was disturbed.

        The drift is the time of the last third of the rounds over that of the first third, minus 1; disturbed is the part
        of the rounds that was dropped. The reference itself has a speedup of exactly 1.

        Raises:
            BuildError: a model does not load or run.
        """
        return self.measure_together([subject])[0]

    def measure_together(self, subjects: Sequence[Subject]) -> list[dict[str, Reading]]:
        """Return the readings of several models, timed in turn with one another and with the reference that they share.

        The reference runs once a round for all of them. A model that is settled leaves the rounds. The limits of time are
        for each model with the reference: they grow with the number of models.

        Raises:
            BuildError: a model does not load or run.
        """
        with subjects[0].reference.target.alone(), _no_collection():
            reference = self._slot(subjects[0].reference)
            candidates = [None if subject.is_reference else self._slot(subject.model) for subject in subjects]
            times = self._rounds(reference, candidates, subjects)
        return [_readings(seconds, subject) for seconds, subject in zip(times, subjects, strict=True)]

    def _slot(self, model: OpenModel) -> Slot:
        """Return a model's turn in a round, after its warm-ups."""
        feed = next(batches(model.samples.inputs, model.batch))
        slot = Slot(model.session, feed)
        took = math.inf
        try:
            for number in range(max(1, self.warmups)):
                if number and took > self.seconds / 4:
                    break
                took = model.target.timed([slot])[0]
        except Exception as error:
            if isinstance(error, SlimfrontError):
                raise
            raise BuildError(f"{model.target.runtime} fails while running the model: {error}") from error
        return Slot(slot.session, feed, max(1, math.ceil(self.slot_seconds / took)) if took > 0 else 1)

    def _rounds(
        self, reference: Slot, candidates: Sequence[Slot | None], subjects: Sequence[Subject]
    ) -> list[NDArray[np.float64]]:
        """Return for each model the seconds ``[rounds, 2]`` of the reference and of itself."""
        target = subjects[0].reference.target
        order = np.random.default_rng(self.seed)
        times: list[list[list[float]]] = [[] for _ in subjects]
        active = list(range(len(subjects)))
        took = 0.0
        count = 1
        while active:
            begun = time.perf_counter()
            slots = [reference, *(candidates[number] for number in active)]
            rounds = [_turns(slots, order) for _ in range(count)]
            seconds = iter(target.timed([slot for turns in rounds for _, slot in turns]))
            for turns in rounds:
                found = {which: next(seconds) for which, _ in turns}
                for place, number in enumerate(active, start=1):
                    times[number].append([found[0], found[place if place in found else 0]])
            passed = time.perf_counter() - begun
            took += passed / (len(slots) / 2)
            active = [number for number in active if not self._done(times[number], took, subjects[number])]
            if active:
                left = self.most_rounds - len(times[active[0]])
                count = max(1, min(self.least_rounds, left, int(target.together_seconds * count / max(passed, 1e-9))))
        return [np.array(each) for each in times]

    def _done(self, times: list[list[float]], took: float, subject: Subject) -> bool:
        """Whether the interval is narrow enough, with what is predicted or alone, or the time is over: later where busy.

        Args:
            times: of the reference and of the model in each round.
            took: seconds that these rounds would have taken for this model and the reference alone.
            subject: the model.
        """
        if len(times) >= self.most_rounds or took > self.longest:
            return True
        if len(times) < (self.confirming_rounds if subject.predicted is not None else self.least_rounds):
            return False
        seconds = np.array(times)
        found = ratio_estimate(seconds, subject.reference_seconds)
        if subject.predicted is not None and self._confirms(found, subject.predicted):
            return True
        if len(times) < self.least_rounds:
            return False
        if took > self.seconds and not found.disturbed:
            return True
        if not subject.is_reference:
            return found.half_width < self.half_width
        low, high = median_interval(seconds[found.quiet, 0])
        return high - low < 2 * self.half_width * float(np.median(seconds[found.quiet, 0]))

    def _confirms(self, found: Estimate, predicted: Reading) -> bool:
        """Whether the rounds say enough to be a timing, and with the prediction as much as is asked for."""
        joint = joint_half_width(predicted, found)
        return joint is not None and joint < self.confirmed and found.half_width < 1.5 * self.confirmed


def _turns(slots: Sequence[Slot | None], order: np.random.Generator) -> list[tuple[int, Slot]]:
    """Return the slots of a round with their places, in random order."""
    turns = ((which, slots[which]) for which in order.permutation(len(slots)).tolist())
    return [(which, slot) for which, slot in turns if slot is not None]


def _readings(seconds: NDArray[np.float64], subject: Subject) -> dict[str, Reading]:
    found = ratio_estimate(seconds, subject.reference_seconds)
    readings = _reference_readings(seconds[:, 0], found)
    if subject.is_reference:
        readings["speedup"] = Reading(1.0, "x", 1.0, 1.0, how="the reference itself")
    else:
        readings["speedup"] = Reading(found.value, "x", found.low, found.high, how=_how(found))
    return readings


def _how(found: Estimate) -> str:
    dropped = f", {found.dropped} disturbed ones dropped" if found.dropped else ""
    return f"median of {found.rounds} rounds in turn with the reference{dropped}"


def _reference_readings(seconds: NDArray[np.float64], found: Estimate) -> dict[str, Reading]:
    quiet = seconds[found.quiet] if found.quiet.any() else seconds
    low, high = median_interval(quiet)
    rounds = len(seconds)
    return {
        "reference_ms": Reading(
            1e3 * float(np.median(quiet)), "ms", 1e3 * low, 1e3 * high, how=f"median of {len(quiet)} rounds"
        ),
        "reference_drift": Reading(drift(seconds), "", how="last third of the rounds over the first, minus 1"),
        "disturbed": Reading(found.dropped / rounds, "", how=f"{found.dropped} of {rounds} rounds dropped"),
    }


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector out of the timing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
