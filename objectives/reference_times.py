"""What a reference needs on this machine, from the latest timings made here: a fresh process knows when it is slowed.

On a machine that became slower for good, as many timings as are kept have wider intervals than they need.
"""

from __future__ import annotations

import math
from contextlib import suppress

import numpy as np

from ..spaces.cache import Store, content_hash
from ..spaces.errors import InputError
from .ratio import QUIET

KEPT = 16  # timings, the latest
ENTRY = "reference"


class ReferenceTimes:
    """The reference's time in the latest timings of one model on one machine, kept in the user's cache.

    Args:
        fingerprint: of the machine and how models run on it.
        model: what tells the reference and its inputs' shapes from others.
    """

    def __init__(self, fingerprint: str, model: object) -> None:
        self._store = Store(content_hash("reference-times", 1, fingerprint, model))
        stored = self._store.arrays(ENTRY)
        self._seconds: list[float] = [] if stored is None else stored["seconds"].tolist()

    @property
    def needed(self) -> float | None:
        """Seconds of a batch when nothing disturbs it: the quantile `QUIET` of the timings; None where there are none."""
        return float(np.quantile(self._seconds, QUIET)) if self._seconds else None

    def add(self, seconds: float) -> None:
        """Take a timing's median into account, unless a clock that jumped made nothing of it.

        A cache that cannot be written to only forgets it with the process.
        """
        if not (math.isfinite(seconds) and seconds > 0):
            return
        self._seconds = [*self._seconds, seconds][-KEPT:]
        with suppress(InputError):
            self._store.put_arrays(ENTRY, {"seconds": np.array(self._seconds)})
