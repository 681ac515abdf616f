"""python studies/benchmarks/beside_nncf.py --zoo ../shared/zoo [taef2_decoder rlfn_s_x2 ...]

Compares searches for OpenVINO with NNCF's accuracy-controlled quantisation (`pip install nncf`), without training. Both get the
calibration data, with targets, and are told to lose at most 0.1 dB; a search judges its candidates on the same pictures, flipped,
or, where that is nothing to the model (the reference is worse on them by more than 1 dB: latents have no mirror), on every other
one, and calibrates on the rest.
Of its front the fastest is taken that loses no more there than NNCF's model does, and the best that is no slower than that (both
against float OpenVINO, on this machine); a row is missing where none is. Only then the evaluation data is looked at, and all
models are timed in turn, round by round, on one thread, in float32 where they do not run in integers; speeds are medians of the
ratio to float ONNX Runtime in the same round. Sizes are of the files that the runtime reads: one of ONNX, or two of OpenVINO's.
Prints a Markdown table.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from zoo import Model, load, parser

import slimfront as sf
from slimfront.objectives.openvino import OpenVino
from slimfront.objectives.quality import psnr_db
from slimfront.objectives.target import STOCK, Session
from slimfront.spaces.errors import InputError
from slimfront.spaces.session import infer

NAMES = ("taef2_decoder", "rlfn_s_x2", "waifu2x_upconv7_x2", "carn_m_x2", "mobilesr_x4", "dncnn_25")
MAX_DROP = 0.1
MIRRORED = 1.0  # dB that a reference may lose on mirrored data
WEIGHT_BITS = (4, 5, 6, 7, 8, 32)

Judged = tuple[dict[str, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Entry:
    """A model of the comparison: its session, and the bytes of its files."""

    session: Session
    size_bytes: int
    seconds: float = 0.0


def main() -> None:
    """Run the comparison and print the table."""
    flags = parser(__doc__ or "", NAMES)
    flags.add_argument("--trials", type=int, default=120)
    flags.add_argument("--rounds", type=int, default=40)
    flags.add_argument("--runs", type=Path, help="where runs are kept; a search goes on from what is there")
    arguments = flags.parse_args()
    print("| model | by | smaller | faster than ONNX Runtime (low-high) | PSNR | change | seconds |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.models:
            model = load(arguments.zoo, name)
            runs = arguments.runs or Path(folder)
            for row in compare(model, name, runs, arguments.trials, arguments.rounds):
                print("| " + " | ".join(row) + " |", flush=True)


def compare(model: Model, name: str, runs: Path, trials: int, rounds: int) -> list[list[str]]:
    """Return the rows of one model."""
    runs.mkdir(parents=True, exist_ok=True)
    reference = Entry(STOCK.open(model.path), model.path.stat().st_size)
    plain = Entry(OpenVino().open(model.path), reference.size_bytes)
    theirs = controlled(model, runs / f"{name}-nncf.xml")
    feed = {key: array[: model.graph.batch] for key, array in model.inputs.items()}
    pace = float(np.median(in_turn({"plain": plain, "theirs": theirs}, feed, rounds)["theirs"]))
    calibration, judged = parts(model, reference)
    run, seconds = searched(model, name, runs / name, trials, calibration, judged)
    entries = {"float, ONNX Runtime": reference, "float, OpenVINO": plain, "NNCF": theirs}
    kept = {
        "slimfront, the fastest": ("latency", {"max_drop": max(drop(model, reference, theirs, judged), 0.0)}),
        "slimfront, the best": ("psnr", {"min_speedup": pace}),
    }
    for who, (prefer, limits) in kept.items():
        with suppress(InputError):  # no member of the front keeps them
            entries[who] = picked(run, seconds, prefer, limits)
    speeds = in_turn(entries, feed, rounds)
    rows = []
    for who, entry in entries.items():
        ratios = np.sort(speeds[who])
        tail = max(1, int(0.1 * len(ratios)))
        change = -drop(model, reference, entry, (model.inputs, model.target))
        quality = psnr(model, entry, (model.inputs, model.target))
        smaller = f"{reference.size_bytes / entry.size_bytes:.2f}×"
        faster = f"{np.median(ratios):.2f}× ({ratios[tail]:.2f}-{ratios[-1 - tail]:.2f})"
        rows.append([name, who, smaller, faster, f"{quality:.2f}", f"{change:+.3f}", f"{entry.seconds:.0f}"])
    return rows


def controlled(model: Model, path: Path) -> Entry:
    """Return what NNCF's accuracy control makes of a model, on its calibration data and targets."""
    import nncf
    import openvino

    begun = time.perf_counter()
    if not path.exists():
        (inputs,), targets, batch = model.calibration.values(), model.calibration_target, model.graph.batch
        assert targets is not None
        feeds = [(inputs[i : i + batch], targets[i : i + batch]) for i in range(0, len(inputs), batch)]
        data = nncf.Dataset(feeds, lambda feed: feed[0])

        def validated(compiled: Any, some: Any) -> float:
            found = [psnr_of(model, compiled([given])[0], target) for given, target in some]
            return float(np.mean(found))

        read = openvino.Core().read_model(str(model.path))
        made = nncf.quantize_with_accuracy_control(read, data, data, validated, max_drop=MAX_DROP)
        openvino.save_model(made, str(path), compress_to_fp16=False)
    size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
    return Entry(OpenVino().open(path), size, time.perf_counter() - begun)


def searched(
    model: Model, name: str, folder: Path, trials: int, calibration: dict[str, np.ndarray], judged: Judged
) -> tuple[Any, float]:
    """Return the run of a search for OpenVINO, and the seconds that it took."""
    begun = time.perf_counter()
    study = sf.Study(
        model=model.path,
        calibration=calibration,
        evaluation=judged,
        range=(model.low, model.high),
        name=name,
        weight_bits=WEIGHT_BITS,
        pruning_ratios=(0.0,),
        runtime="openvino",
        constraints={"max_drop": MAX_DROP},
    )
    run = sf.search(study, trials=trials, run_dir=folder)
    return run, time.perf_counter() - begun


def picked(run: Any, seconds: float, prefer: str, limits: Mapping[str, float]) -> Entry:
    """Return the member of a run's front that keeps limits. Raises `InputError` where none does."""
    path = run.model_path(run.pick(**limits, prefer=prefer))
    return Entry(OpenVino().open(path), path.stat().st_size, seconds)


def parts(model: Model, reference: Entry) -> tuple[dict[str, np.ndarray], Judged]:
    """Return what a search calibrates with, and the inputs and targets that it judges on."""
    assert model.calibration_target is not None
    mirrored = flipped(model)
    if (
        psnr(model, reference, mirrored)
        > psnr(model, reference, (model.calibration, model.calibration_target)) - MIRRORED
    ):
        return model.calibration, mirrored
    rest, judged = ({key: array[first::2] for key, array in model.calibration.items()} for first in (0, 1))
    return rest, (judged, model.calibration_target[1::2])


def flipped(model: Model) -> Judged:
    """Return calibration inputs and targets as a mirror shows them."""
    assert model.calibration_target is not None
    inputs = {key: np.ascontiguousarray(array[..., ::-1]) for key, array in model.calibration.items()}
    return inputs, np.ascontiguousarray(model.calibration_target[..., ::-1])


def drop(model: Model, reference: Entry, entry: Entry, data: Judged) -> float:
    """Return how many decibels a model is below the reference."""
    return psnr(model, reference, data) - psnr(model, entry, data)


def psnr(model: Model, entry: Entry, data: Judged) -> float:
    """Return a model's mean PSNR in dB."""
    inputs, target = data
    return psnr_of(model, infer(entry.session, inputs, model.graph.batch), target)


def psnr_of(model: Model, output: np.ndarray, target: np.ndarray) -> float:
    """Return the mean PSNR of outputs in dB."""
    return float(psnr_db(np.clip(output, model.low, model.high), target, model.low, model.high).mean())


def in_turn(entries: dict[str, Entry], feed: dict[str, np.ndarray], rounds: int) -> dict[str, np.ndarray]:
    """Return each model's speed against the first one's in every round, the order turned round by round."""
    times: dict[str, list[float]] = {who: [] for who in entries}
    order = list(entries)
    for entry in entries.values():
        for _ in range(3):
            entry.session.run(None, feed)
    for _ in range(rounds):
        order = order[1:] + order[:1]
        for who in order:
            start = time.perf_counter()
            entries[who].session.run(None, feed)
            times[who].append(time.perf_counter() - start)
    first = np.array(next(iter(times.values())))
    return {who: first / np.array(found) for who, found in times.items()}


if __name__ == "__main__":
    main()
