"""python studies/benchmarks/joint_students.py --zoo ../shared/zoo [rlfn_s_x2 ...] [--minutes 30] [--kinds shortened]

Does it pay to search students as well? Searches each model twice for the same wall time, over bits and pruning ratios, and over
students, too, whose training takes its part of the time; prints the hypervolume of both after each part of it as a Markdown
table, and from when on students are ahead for good. What has no speed yet counts for nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from searches import folder_of_runs, search_parser, study_of
from zoo import load

from slimfront.search.loop import search
from slimfront.studies.run import Run

TRIALS = 100_000  # more than there is time for
PARTS = 10


class Watch:
    """Notes when the hypervolume of a search was how large, in minutes."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.known: list[tuple[float, float]] = [(0.0, 0.0)]
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Keep what people should know."""
        self.notes.append(text)

    def prepare(self, text: str, fraction: float) -> None:
        """Nothing has been found yet."""

    def step(self, done: int, total: int, hypervolume: float, *more: Any) -> None:
        """Note the hypervolume."""
        self.known.append(((time.monotonic() - self.began) / 60.0, hypervolume))

    def at(self, minutes: float) -> float:
        """Return the hypervolume after some minutes."""
        return max(volume for when, volume in self.known if when <= minutes)


def main() -> None:
    """Run the searches and print the tables."""
    flags = search_parser(__doc__ or "", ["rlfn_s_x2"], trials=TRIALS)
    flags.add_argument("--minutes", type=float, default=30.0)
    flags.add_argument("--kinds", nargs="+", default=["shortened"])
    flags.add_argument("--count", type=int, default=2, help="students that are searched")
    flags.add_argument("--steps", type=int, default=400, help="of each student's training")
    flags.add_argument("--seed", type=int, default=0)
    arguments = flags.parse_args()
    students = {
        "students": {"kinds": arguments.kinds, "count": arguments.count},
        "training": {"steps": arguments.steps},
    }
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.models:
            model, watches = load(arguments.zoo, name), []
            for title, more in (("without", {}), ("with", students)):
                study = study_of(model, name, arguments.seed, more, targets=True)
                watch = Watch()
                place = folder / f"{name}-{title}"
                run = search(study, arguments.trials, place, timeout=60.0 * arguments.minutes, progress=watch)
                watches.append(watch)
                print(
                    f"{name}, {title} students: {len(run.trials)} trials, {best(run)}",
                    *watch.notes,
                    sep="\n  ",
                    flush=True,
                )
            tell(watches, arguments.minutes)


def tell(watches: Sequence[Watch], minutes: float) -> None:
    """Print the hypervolumes of both searches over time."""
    print("| minutes | bits and ratios | students, bits and ratios |\n|---|---|---|")
    for part in range(1, PARTS + 1):
        now = minutes * part / PARTS
        print(f"| {now:.0f} | {' | '.join(f'{watch.at(now):.3f}' for watch in watches)} |")
    without, joint = watches
    behind = [now for now in np.linspace(0.0, minutes, 1000) if joint.at(now) <= without.at(now)]
    print(
        f"students are ahead for good from minute {behind[-1]:.1f} on"
        if behind[-1] < minutes
        else "students stay behind"
    )


def best(run: Run) -> str:
    """Return what a run's front has within a decibel."""
    close = [trial for trial in run.front_trials() if run.drop_db(trial) <= 1.0]
    smaller = max(run.reference.value("size_bytes") / trial.value("size_bytes") for trial in close)
    return f"within 1 dB {smaller:.1f}× smaller, {max(trial.value('speedup') for trial in close):.2f}× faster"


if __name__ == "__main__":
    main()
