"""How long things take in a search, and whether its time is over."""

from __future__ import annotations

import statistics
import time
from collections import deque

from ..spaces.statistics import Progress

MINUTE = 60.0
AT_ONCE = 6  # candidates that are timed in turn with one another
LATEST = 500  # candidates, and timings, that tell how long the next ones take
TWIN_SECONDS = 60.0  # what sequential repair is taken to last before one was measured


class TimeIsOverError(Exception):
    """What was under way is broken off; what there is of it is kept."""


class Pace:
    """The time of one call of a search.

    Args:
        total: candidates that the run is to have.
        deadline: of the monotonic clock, or None.

    Attributes:
        candidates: seconds that each of the latest candidates took, those of sequential repair apart.
        twins: seconds of those.
        timings: seconds that each of the latest timings took.
    """

    def __init__(self, total: int, deadline: float | None) -> None:
        self.total = total
        self.deadline = deadline
        self.candidates: deque[float] = deque(maxlen=LATEST)
        self.twins: deque[float] = deque(maxlen=LATEST)
        self.timings: deque[float] = deque(maxlen=LATEST)
        self._begun = time.monotonic()
        self._finished: deque[float] = deque()  # when

    @property
    def at_once(self) -> int:
        """How many trials are timed in turn with one another: as many as the time that is left allows, at least one."""
        if self.deadline is None or not self.timings:
            return AT_ONCE
        return max(1, min(AT_ONCE, int(self._left / max(self.timings))))

    def is_over(self, waiting: int) -> bool:
        """Whether another candidate, as long as they usually are, would end too late; the first one is always begun.

        Args:
            waiting: timings that time has to be left for.
        """
        if self.deadline is None or not self.candidates:
            return False
        later = waiting * (statistics.median(self.timings) if self.timings else 0.0)
        return self._left < statistics.median(self.candidates) + later

    @property
    def allows_twin(self) -> bool:
        """Whether a candidate of sequential repair would end in time."""
        return self.deadline is None or self._left >= max(self.twins, default=TWIN_SECONDS)

    def limited(self, progress: Progress) -> Progress:
        """Return what tells the same, and raises `TimeIsOverError` when the deadline has passed."""

        def told(text: str, part: float) -> None:
            self.check()
            progress(text, part)

        return told

    def check(self) -> None:
        """Raise `TimeIsOverError` where the deadline has passed."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeIsOverError

    def of_timeout(self, part: float) -> float:
        """Return a part of the seconds that are left; infinite where there is no deadline."""
        return part * max(self._left, 0.0)

    def finished(self, count: int) -> None:
        """Note that so many trials were finished just now."""
        self._finished.extend([time.monotonic()] * count)

    @property
    def per_minute(self) -> float:
        """How many trials were finished in the last minute, or, before a minute is over, would be at this rate."""
        now = time.monotonic()
        while self._finished and now - self._finished[0] > MINUTE:
            self._finished.popleft()
        return len(self._finished) * MINUTE / min(max(now - self._begun, 1.0), MINUTE)

    def seconds_left(self, done: int, workers: int) -> float | None:
        """Return the seconds until the search ends, by the candidates so far; None where it cannot be told yet."""
        took = [*self.candidates, *self.twins]
        if not took:
            return None
        left = (self.total - done) * statistics.fmean(took) / max(workers, 1)
        return min(left, max(0.0, self._left))

    @property
    def _left(self) -> float:
        return float("inf") if self.deadline is None else self.deadline - time.monotonic()
