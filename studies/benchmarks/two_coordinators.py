"""python studies/benchmarks/two_coordinators.py [--storage URL] [--study STUDY] [--trials 400] [--sampler random]

Do two searches on one database share the work, and do they agree? Two `slimfront search` processes, each with a run folder of
its own, work on one study until it has so many candidates. Prints how many each evaluated, whether any was evaluated twice,
and whether `slimfront front` tells the same of both folders. Ends with status 1 where it does not hold.

Without --storage a PostgreSQL server of its own is started, as for the tests; without --study, a small generated one is
searched.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import sqlalchemy as sa
from onnx import TensorProto, helper, numpy_helper
from server import postgres

from slimfront.studies.record_table import read_table
from slimfront.studies.records import Record
from slimfront.studies.study import load_study
from slimfront.studies.transactions import Transactions
from slimfront.studies.trial import CLAIM

CHANNELS = (3, 16, 32, 32, 16, 3)
SIDE = 32
CLI = [sys.executable, "-c", "from slimfront.cli import main; main()"]
NAMES = ("a", "b")


def main() -> None:
    """Search twice at once, then compare."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--storage")
    flags.add_argument("--study")
    flags.add_argument("--trials", type=int, default=400)
    flags.add_argument("--sampler", default="random")
    arguments = flags.parse_args()
    with tempfile.TemporaryDirectory() as name, database(arguments.storage) as storage:
        folder = Path(name)
        study = arguments.study or str(small_study(folder / "study"))
        wanted = ["--trials", str(arguments.trials), "--sampler", arguments.sampler, "--storage", storage]
        begun = time.perf_counter()
        both = [searching(study, folder / name, wanted) for name in NAMES]
        try:
            owners = watched(storage, load_study(study).digest, both)
        finally:
            for process in both:
                process.terminate()
        seconds = time.perf_counter() - begun
        records = read_table(storage, load_study(study).digest)
        fronts = [front(folder / name, storage) for name in NAMES]
    shares = Counter(owners.values())
    print(f"{arguments.sampler} sampler, {seconds:.0f} s\n")
    print("\n".join(table(shares, records, fronts[0] == fronts[1])))
    distinct = shares.total() == len({record.key for record in records}) == arguments.trials
    holds = distinct and len(shares) == 2 and not twice(records) and fronts[0] == fronts[1]
    sys.exit(int(not holds or any(process.returncode for process in both)))


@contextlib.contextmanager
def database(storage: str | None) -> Iterator[str]:
    """Give the URL of a database: the one that is given, or that of a server of our own."""
    if storage is not None:
        yield storage
        return
    with postgres() as server:
        yield server.database()


def small_study(folder: Path) -> Path:
    """Write a study of a few small convolutions; return its folder."""
    random = np.random.default_rng(0)
    nodes, weights = [], []
    for number, (inputs, outputs) in enumerate(itertools.pairwise(CHANNELS)):
        weight = random.standard_normal((outputs, inputs, 3, 3)).astype(np.float32) / (9 * inputs) ** 0.5
        weights.append(numpy_helper.from_array(weight, f"w{number}"))
        source = f"relu{number - 1}" if number else "x"
        nodes.append(helper.make_node("Conv", [source, f"w{number}"], [f"conv{number}"], f"conv{number}", pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"conv{number}"], [f"relu{number}"], f"act{number}"))
    shape = [1, CHANNELS[0], SIDE, SIDE]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", nodes[-2].output[0])]
    graph = helper.make_graph(nodes[:-1], "small", ends[:1], ends[1:], weights)
    folder.mkdir()
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), folder / "small.onnx"
    )
    for name in ("calibration", "evaluation"):
        np.savez(folder / f"{name}.npz", input=random.random((4, *shape[1:]), dtype=np.float32))
    (folder / "study.toml").write_text(
        'name = "small"\n[model]\nfile = "small.onnx"\n'
        '[data]\ncalibration = "calibration.npz"\nevaluation = "evaluation.npz"\n'
    )
    return folder


def searching(study: str, run: Path, wanted: list[str]) -> subprocess.Popen[bytes]:
    """Start a search."""
    command = [*CLI, "search", study, "--run", str(run), *wanted, "--quiet", "--json"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def watched(storage: str, study: str, processes: list[subprocess.Popen[bytes]]) -> dict[int, str]:
    """Wait for the searches; return by trial who began it: who ends first leaves its trials to the other."""
    opened = Transactions(storage, print)
    trials = opened.tables.trials
    ask = sa.select(trials.c.number, trials.c.owner).where(trials.c.study == study)
    owners: dict[int, str] = {}
    while True:
        over = all(process.poll() is not None for process in processes)
        for row in opened.do(lambda connection: connection.execute(ask).all()):
            owners.setdefault(row.number, row.owner)
        if over:
            return owners
        time.sleep(0.2)


def front(run: Path, storage: str) -> dict[str, object]:
    """Return what `slimfront front` tells of a run."""
    environment = os.environ | {"SLIMFRONT_STORAGE": storage}
    told = subprocess.run([*CLI, "front", str(run), "--json"], env=environment, stdout=subprocess.PIPE, check=True)
    document = json.loads(told.stdout)
    return {key: document[key] for key in ("reference", "hypervolume", "front")}


def table(shares: Counter[str], records: list[Record], same: bool) -> list[str]:
    """Return a Markdown table of what was found."""
    first, second = [count for _, count in shares.most_common(2)] if len(shares) > 1 else (shares.total(), 0)
    return [
        "| candidates | of the one search | of the other | keys | stages recorded twice | one and the same front |",
        "|---|---|---|---|---|---|",
        f"| {shares.total()} | {first} | {second} | {len({r.key for r in records})} | {twice(records)} | {same} |",
    ]


def twice(records: list[Record]) -> int:
    """Return how many stages were recorded more than once; timings in doubt are repeated, and begun with another claim."""
    once = [record for record in records if record.stage not in (CLAIM, "timing")]
    stages = Counter((record.key, record.stage, record.environment) for record in once)
    return sum(count > 1 for count in stages.values())


if __name__ == "__main__":
    main()
