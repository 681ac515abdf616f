"""Verify: measure a bundle again and compare it with what was promised.

The stored samples are checked anywhere. Where the study is found, unchanged, quality is measured on all of its
evaluation and test data, and speed in turn with the reference.

    python -m slimfront.studies.verify BUNDLE DATA     # what ship runs in a fresh process, on what `save_data` wrote
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..objectives.device.command import TOKEN
from ..objectives.protocol import FurtherObjective, Objective, OpenModel, Subject
from ..objectives.quality import Quality, psnr_db
from ..objectives.remote_engine import RemoteEngine
from ..objectives.runtimes import DEFAULT_RUNTIME, make_target
from ..objectives.target import Target
from ..objectives.timing import Timing
from ..spaces.build import file_hash
from ..spaces.candidate import Candidate
from ..spaces.capture import load_function
from ..spaces.errors import BuildError, InputError, SlimfrontError
from ..spaces.formats import Format
from ..spaces.rules import RULES
from .bundle import (
    CANDIDATE_FILE,
    CHECK_FILE,
    LOADER_FILE,
    is_shipment,
    load_samples,
    model_file,
    read_bundle,
    read_shipment,
    save_samples,
)
from .criteria import kept_criteria, readings_of
from .device import connect
from .environment import Environment, current_environment, device_environment
from .objective_table import ObjectiveTable, make_objective

if TYPE_CHECKING:
    from .study import Study

REFERENCE = "reference"  # what the name of its file begins with
SETS = ("evaluation", "test")

# How far a repetition may be off. Integer kernels of another runtime may round a value the other way, which costs less
# than this; kernels that saturate (8-bit weights without VNNI) cost far more.
OUTPUTS_DB = 45.0
PSNR_DB = 0.05
SSIM = 0.002
FURTHER = 0.021  # of a further objective that is not in decibels, and of its value: one sample of 50 may change sides
MEMORY = 0.15  # of bytes of memory: three processes more or less agree
SPEED = 0.85  # of the promised interval's lower end, on the same processor


@dataclass(frozen=True)
class Check:
    """One thing that was compared: whether it holds, and what was found."""

    name: str
    holds: bool
    found: str


def verify(folder: Path | str) -> dict[str, Any]:
    """Measure a bundle again.

    Of a shipment of several members each is measured; its name stands before those of the checks, and by it are readings told.

    Returns:
        ``bundle``, ``holds``, ``failed`` (names), ``checks`` (name, holds, found), ``measured`` (readings by set of
        data) and ``notes``.

    Raises:
        InputError: the folder is no bundle.
    """
    folder = Path(folder)
    if is_shipment(folder):
        return _verify_members(folder)
    facts = read_bundle(folder)
    checks = [*check_candidate(folder, facts), *check_file(folder, facts)]
    measured: dict[str, Any] = {}
    notes: list[str] = []
    if facts.get("device") and not os.environ.get(TOKEN):
        notes.append(
            f"made for the device {facts['device']}, but checked on this machine: with {TOKEN} it is measured there"
        )
    if all(check.holds for check in checks):
        try:
            study = _find_study(facts)
        except SlimfrontError as error:
            notes.append(f"checked with the bundle's own samples only, as its study is not there: {error}")
        else:
            with tempfile.TemporaryDirectory(prefix="slimfront-") as data:
                save_data(study, Path(data))
                measured = measure(folder, Path(data), facts)
            found, more = compare(facts, measured)
            checks += found
            notes += more
    return _verified(folder, checks, measured, notes)


def _verified(folder: Path, checks: list[Check], measured: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    return {
        "bundle": str(folder),
        "holds": all(check.holds for check in checks),
        "failed": [check.name for check in checks if not check.holds],
        "checks": [asdict(check) for check in checks],
        "measured": measured,
        "notes": notes,
    }


def _verify_members(folder: Path) -> dict[str, Any]:
    document = read_shipment(folder)
    checks, measured, notes = [_check_loader(folder, document["loader"])], {}, []
    for name in (facts["name"] for facts in document["members"]):
        try:
            found = verify(folder / name)
        except InputError as error:
            checks.append(Check(name, False, str(error)))
            continue
        checks += [Check(f"{name}: {check['name']}", check["holds"], check["found"]) for check in found["checks"]]
        measured[name] = found["measured"]
        notes += [f"{name}: {note}" for note in found["notes"]]
    return _verified(folder, checks, measured, notes)


def _check_loader(folder: Path, sha256: str) -> Check:
    path = folder / LOADER_FILE
    if not path.exists():
        return Check("loader", False, f"{LOADER_FILE} is missing")
    now = file_hash(path)
    return Check("loader", now == sha256, "as shipped" if now == sha256 else f"sha256 {now}, at ship {sha256}")


def check_candidate(folder: Path, facts: Mapping[str, Any]) -> list[Check]:
    """Check that candidate.json is there and names the candidate that was shipped."""
    path = folder / CANDIDATE_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["candidate"]
    except (OSError, ValueError, KeyError, TypeError):
        return [Check("candidate", False, f"{CANDIDATE_FILE} is missing or cannot be read")]
    same = found == facts["candidate"]
    return [Check("candidate", same, "as shipped" if same else f"{CANDIDATE_FILE} names another than was shipped")]


def check_file(folder: Path, facts: Mapping[str, Any]) -> list[Check]:
    """Check the file itself: its hash, that it runs, its outputs on the stored samples; end with what fails."""
    path = folder / model_file(facts)
    if not path.exists():
        return [Check("file", False, f"{path.name} is missing")]
    now, then = file_hash(path), facts["sha256"]
    checks = [Check("sha256", now == then, now if now == then else f"{now}, at ship {then}")]
    if not checks[0].holds:
        return checks
    samples, outputs = load_samples(folder / CHECK_FILE)
    model = OpenModel(path, samples, facts["batch"], _target(facts))
    try:
        found = model.outputs
    except BuildError as error:
        return [*checks, Check("runs", False, str(error))]
    checks.append(Check("runs", True, f"on {samples.count} stored samples"))
    if outputs is not None:
        if found.shape != outputs.shape:
            return [*checks, Check("outputs", False, f"shape {found.shape}, not {outputs.shape}")]
        agreement = float(psnr_db(found, outputs, samples.low, samples.high).min())
        found_text = f"{agreement:.1f} dB from those at ship, at least {OUTPUTS_DB:g}"
        checks.append(Check("outputs", agreement >= OUTPUTS_DB, found_text))
    return checks


def measure(folder: Path, data: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Measure the bundle's model and the reference on all samples.

    Returns:
        For "evaluation" and, where there is some, "test": the readings of the model and of the "reference"; "timing",
        in turn with the reference; and the "environment".
    """
    settings = (facts["batch"], _target(facts))
    objectives = (Quality(), *further_of(facts))
    measured: dict[str, Any] = {}
    for name in SETS:
        if not (data / f"{name}.npz").exists():
            continue
        samples, _ = load_samples(data / f"{name}.npz")
        reference = OpenModel(_reference(data, RULES[_runtime(facts)].format), samples, *settings)
        model = OpenModel(folder / model_file(facts), samples, *settings)
        measured[name] = _readings(objectives, Subject(model, reference))
        measured[name]["reference"] = _readings(objectives, Subject(reference, reference))
        if name == "evaluation":
            timing = Timing().measure(Subject(model, reference))
            measured["timing"] = {reading: value.to_json() for reading, value in timing.items()}
    return measured | {"environment": _environment(facts).to_json()}


def compare(facts: Mapping[str, Any], measured: Mapping[str, Any]) -> tuple[list[Check], list[str]]:
    """Compare readings with the bundle's; return checks, and notes on what cannot be compared."""
    checks, notes = [], []
    expected = facts["expected"]
    here, there = measured["environment"], facts["environment"]
    same = all(here.get(key) == there.get(key) for key in ("cpu", "threads", "provider"))
    for name in SETS:
        if name in expected and name in measured:
            for reading, unit, tolerance in (("psnr_db", "dB", PSNR_DB), ("ssim", "", SSIM), *_further_readings(facts)):
                then, now = expected[name].get(reading), measured[name].get(reading)
                if then is None or now is None:  # of an objective that can be measured in the search's process alone
                    continue
                within = (
                    tolerance * max(1.0, abs(then))
                    if reading not in ("psnr_db", "ssim") and unit != "dB"
                    else tolerance
                )
                found = f"{now:.4f} {unit}".rstrip() + f", at ship {then:.4f} {unit}".rstrip()
                if unit == "bytes" and not same:
                    notes.append(f"{reading} on this machine: {found} (on {there.get('cpu')})")
                    continue
                checks.append(Check(f"{reading}, {name} data", bool(abs(now - then) <= within), found))
    if "timing" in expected:
        then, now = expected["timing"]["speedup"], measured["timing"]["speedup"]
        found = f"{now['value']:.2f} ({now['low']:.2f} to {now['high']:.2f}), at ship {then['value']:.2f}"
        if same:
            checks.append(Check("speedup", bool(now["high"] >= SPEED * then["low"]), found))
        else:
            notes.append(f"speedup on this machine: {found} (on {there.get('cpu')})")
    return checks, notes


def save_data(study: Study, folder: Path) -> None:
    """Write what `measure` reads: the reference, evaluation data, and test data where the study has some."""
    study.builder.build(Candidate()).save(_reference(folder, study.rules.format))
    for name, samples in (("evaluation", study.evaluation), ("test", study.test)):
        if samples is not None:
            save_samples(folder / f"{name}.npz", samples)


def _reference(folder: Path, format: Format) -> Path:
    """Return where the reference's file lies beside the data."""
    return folder / f"{REFERENCE}{format.suffix}"


def further_of(facts: Mapping[str, Any]) -> list[FurtherObjective]:
    """Return the further objectives that a bundle names and that any process can measure.

    Raises:
        InputError: a file of their functions is gone.
    """
    tables = {name: ObjectiveTable(**entry["table"]) for name, entry in facts.get("objectives", {}).items()}
    return [make_objective(name, table, _load) for name, table in tables.items() if not table.in_memory]


def _load(source: str, key: str) -> Callable[..., Any]:
    file, _, function = source.rpartition(":")
    found: Callable[..., Any] = load_function(Path(file), function, key)
    return found


def _further_readings(facts: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """Return the readings of further objectives that a bundle promises: name, unit, and how far a repetition may be off."""
    return [
        (reading, about.unit, {"dB": PSNR_DB, "bytes": MEMORY}.get(about.unit, FURTHER))
        for reading, about in readings_of(kept_criteria(facts)).items()
    ]


def _find_study(facts: Mapping[str, Any]) -> Study:
    """Return the bundle's study, unchanged, from where it was. Raises `InputError` where it is gone."""
    from .study import load_study

    source = facts["study"]["source"]
    study = load_study(source)
    study.check()
    if study.digest != facts["study"]["digest"]:
        raise InputError(f"the study {source!r} has changed since the bundle was shipped")
    return study


def _target(facts: Mapping[str, Any]) -> Target:
    """Return what a bundle's model runs on."""
    return make_target(_runtime(facts), threads=facts["threads"], provider=facts["provider"], device=_device(facts))


def _device(facts: Mapping[str, Any]) -> RemoteEngine | None:
    """Return the device that a bundle was made for, where this process has a token for it; None is this machine."""
    address = facts.get("device")
    if address is None or not os.environ.get(TOKEN):
        return None
    return connect(address, _runtime(facts), facts["threads"], facts["provider"])


def _environment(facts: Mapping[str, Any]) -> Environment:
    """Return where a bundle's model is measured."""
    device = _device(facts)
    if device is not None:
        return device_environment(device.connection.facts, facts["provider"], facts["threads"])
    return current_environment(facts["provider"], facts["threads"], _runtime(facts))


def _runtime(facts: Mapping[str, Any]) -> str:
    return str(facts.get("runtime", DEFAULT_RUNTIME))  # older bundles name none


def _readings(objectives: Sequence[Objective], subject: Subject) -> dict[str, Any]:
    return {name: reading.value for objective in objectives for name, reading in objective.measure(subject).items()}


def _main(folder: Path, data: Path) -> None:
    """Print checks and readings of a bundle as JSON: the fresh process of `ship`."""
    facts = read_bundle(folder)
    checks = check_file(folder, facts)
    holds = all(check.holds for check in checks)
    document = {
        "checks": [asdict(check) for check in checks],
        "measured": measure(folder, data, facts) if holds else {},
    }
    json.dump(document, sys.stdout, allow_nan=False)


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]))
