"""python studies/benchmarks/timing_noise.py --zoo ../shared/zoo [rlfn_s_x2] [--processes 10]

Does a speedup hold in another process, and does its interval? Times the same candidate (all layers in 8-bit integers) in so
many fresh processes, without and with a busy neighbour, and prints, as a Markdown table: the spread of the speedups, and how
many of the 95 % intervals hold the long-run value, the median of all quiet processes that timed 60 rounds.
"""

from __future__ import annotations

import multiprocessing as mp
import tempfile
from pathlib import Path

import numpy as np
from zoo import load, parser

from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.reference_times import ReferenceTimes
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.session import open_session
from slimfront.spaces.space import uniform

LONG = Timing(least_rounds=60, most_rounds=60, longest=600.0)
LONG_RUNS = 4


def main() -> None:
    """Measure and print the table."""
    flags = parser(__doc__ or "", ["rlfn_s_x2"])
    flags.add_argument("--processes", type=int, default=10)
    arguments = flags.parse_args()
    print("| model | neighbour | long-run speedup | least | largest | spread | intervals that hold it | half of them |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.models:
        with tempfile.TemporaryDirectory() as folder:
            write(arguments.zoo, name, Path(folder))
            job = (arguments.zoo, name, folder)
            truth = float(np.median([process(*job, LONG).value for _ in range(LONG_RUNS)]))
            quiet = [process(*job, Timing()) for _ in range(arguments.processes)]
            print(f"| {name} | none | {cells(quiet, truth)} |", flush=True)
            busy = [beside_another(*job) for _ in range(arguments.processes)]
            print(f"| {name} | busy | {cells(busy, truth)} |", flush=True)


def write(zoo: Path, name: str, folder: Path) -> None:
    """Write the reference and the candidate."""
    model = load(zoo, name)
    builder = Builder(model.graph, model.calibration)
    candidate, _ = uniform(model.graph, {"weight_bits": 8, "activation_bits": 8})
    builder.build(candidate).save(folder / "candidate.onnx")
    builder.build(Candidate()).save(folder / "reference.onnx")


def process(zoo: Path, name: str, folder: str, timing: Timing) -> Reading:
    """Time the candidate in a process of its own."""
    with mp.get_context("spawn").Pool(1) as pool:
        return Reading.from_json(pool.apply(timed, (zoo, name, folder, timing)))


def timed(zoo: Path, name: str, folder: str, timing: Timing) -> dict[str, object]:
    """Time the candidate in this process."""
    inputs = dict(np.load(zoo / "data" / f"{name}_evaluation.npz"))["input"]
    reference = Path(folder) / "reference.onnx"
    port = open_session(reference).get_inputs()[0]
    samples = Samples({port.name: inputs})
    batch = port.shape[0] if isinstance(port.shape[0], int) else 1
    models = (OpenModel(Path(folder) / "candidate.onnx", samples, batch), OpenModel(reference, samples, batch))
    known = ReferenceTimes(f"benchmark {folder}", name)  # as a search does, shared by the processes
    found = timing.measure(Subject(*models, known.needed))
    known.add(found["reference_ms"].value / 1000.0)
    return found["speedup"].to_json()


def beside_another(zoo: Path, name: str, folder: str) -> Reading:
    """Time the candidate while another process keeps a core and the memory busy."""
    neighbour = mp.get_context("spawn").Process(target=busy, daemon=True)
    neighbour.start()
    try:
        return process(zoo, name, folder, Timing())
    finally:
        neighbour.kill()


def busy() -> None:
    """Walk through memory until killed."""
    array = np.ones(4_000_000)
    while True:
        array *= 1.0


def cells(found: list[Reading], truth: float) -> str:
    """Return a row's cells."""
    values = np.array([reading.value for reading in found])
    holding = sum((r.low or r.value) <= truth <= (r.high or r.value) for r in found)
    half = float(np.mean([((r.high or 0.0) - (r.low or 0.0)) / (2 * r.value) for r in found]))
    spread = values.max() / values.min() - 1.0
    return (
        f"{truth:.3f} | {values.min():.3f} | {values.max():.3f} | {spread:.1%} | {holding} of {len(found)} | {half:.1%}"
    )


if __name__ == "__main__":
    main()
