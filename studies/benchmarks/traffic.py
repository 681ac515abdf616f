"""python studies/benchmarks/traffic.py [STUDY]

How much goes over the network where workers share nothing with the coordinator? Searches a few candidates of a study, and
prints as a Markdown table the bytes of what is sent: the study, what the predictor has learned, an order, stages and models.
"""

from __future__ import annotations

import argparse
import json
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

from slimfront.objectives.predictor_file import take_predictor
from slimfront.search import parcel, remote
from slimfront.search.glance import Glances, Look
from slimfront.search.loop import search
from slimfront.search.work import Kind, Work
from slimfront.spaces.cache import stores_used
from slimfront.studies.records import plain_record, read_records
from slimfront.studies.run import Run
from slimfront.studies.run_folder import PREDICTOR_FILE, RECORDS_FILE
from slimfront.studies.study import load_study

TRIALS = 30  # so many that workers are told what the first images tell


def main() -> None:
    """Search, and print the table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("study", nargs="?", default="painting")
    study = load_study(flags.parse_args().study)
    print("| what | bytes |\n|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        run = search(study, trials=TRIALS, run_dir=Path(folder) / "run", sampler="random")
        for what, sizes in found(run):
            low, high = min(sizes), max(sizes)
            print(f"| {what} | {low:,}" + (f" to {high:,} |" if high > low else " |"))


def found(run: Run) -> Iterator[tuple[str, list[int]]]:
    """Yield what is sent, with its sizes."""
    study = run.load()
    take_predictor(study.predictor, run.folder / PREDICTOR_FILE)
    with stores_used() as used:
        study.prepare_spaces()
    yield "study and statistics", [len(parcel.pack(study, used))]
    yield "study alone", [len(parcel.pack(study, []))]
    yield "what the predictor has learned", [len(remote.knowledge_of(study.predictor))]
    yield "order", [order(run, number, Glances(run).look) for number in range(1, TRIALS)]
    stages: dict[str, list[int]] = {}
    for record in read_records(run.folder / RECORDS_FILE):
        stages.setdefault(record.stage, []).append(len(json.dumps(plain_record(record))))
    for stage, sizes in stages.items():
        yield f"record of a {stage}", sizes
    yield "model", [path.stat().st_size for path in (run.folder / "models").glob(f"*{run.format.suffix}")]


def order(run: Run, number: int, look: Look | None) -> int:
    """Return the size of an order to judge a trial of which everything is known."""
    work = Work(Kind.JUDGE, (run.trial(number),), look)
    return len(pickle.dumps(remote.Order("0" * 32, "0" * 32, work, None)))


if __name__ == "__main__":
    main()
