"""Notes on readings that a person should not take as they are: unsteady timings, layers in other kernels than meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..objectives.protocol import Reading
from .run import Run
from .texts import runtime_text, time_text

DISTURBED = 0.25  # part of the rounds of a timing that was dropped
MOST_BUSY = 0.2  # part of the timings that may be like that
STEADY = 0.1  # of the reference's time; on an idle machine it stays within 9 % over a search


def reading_notes(readings: Sequence[Mapping[str, Reading]]) -> list[str]:
    """Return all notes on the readings of several candidates, the reference's among them."""
    return [*timing_notes(readings), *disturbance_notes(readings), *kernel_notes(readings)]


def kernel_notes(readings: Sequence[Mapping[str, Reading]]) -> list[str]:
    """Return a note where layers that should run in integers run in float, by the runtime's own graph."""
    found = [each["float_fallbacks"] for each in readings if "float_fallbacks" in each]
    worst = max(found, key=lambda reading: reading.value, default=None)
    if worst is None or not worst.value:
        return []
    affected = sum(reading.value > 0 for reading in found)
    return [
        f"in {affected} of {len(found)} candidates with integer layers the runtime runs some of those in float "
        f"(at most {worst.value:.0f} of them; {worst.how}): they could be faster than they are"
    ]


def disturbance_notes(readings: Sequence[Mapping[str, Reading]]) -> list[str]:
    """Return a note where other work on the machine disturbed timings."""
    parts = [each["disturbed"].value for each in readings if "disturbed" in each]
    busy = sum(part > DISTURBED for part in parts)
    if busy <= MOST_BUSY * len(parts):
        return []
    return [
        f"other work disturbed {busy} of {len(parts)} timings: up to {max(parts):.0%} of their rounds were dropped, and their "
        "intervals are wider; a quieter machine gives narrower ones, faster"
    ]


def timing_notes(timings: Sequence[Mapping[str, Reading]]) -> list[str]:
    """Return a note where the reference's time moved by more than `STEADY`, between timings or within one.

    Args:
        timings: the readings of each timing, ``reference_ms`` and ``reference_drift`` among them.
    """
    times = [readings["reference_ms"].value for readings in timings if "reference_ms" in readings]
    drifts = [abs(readings["reference_drift"].value) for readings in timings if "reference_drift" in readings]
    moved = max([max(times, default=1.0) / min(times, default=1.0) - 1.0, *drifts])
    if moved <= STEADY:
        return []
    return [
        f"the reference's own time moved by up to {moved:.0%} (medians from {time_text(min(times))} to "
        f"{time_text(max(times))}): the machine was busy, or the model is too small to time well; speedups are timed in "
        "turn with the reference and suffer less from it than latencies"
    ]


def environment_notes(run: Run) -> list[str]:
    """Return a note for each environment whose timings do not count in a run: candidates are timed again for it."""
    about = run.environments()
    notes = []
    for digest in sorted(run.timed_elsewhere()):
        there = about.get(digest, {})
        notes.append(
            f"the run was timed in another environment ({there.get('cpu', 'unknown')}, "
            f"{runtime_text(there)}, {there.get('threads', '?')} threads): its candidates are timed "
            "again here, since times of two environments are not compared"
        )
    return notes
