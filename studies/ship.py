"""Ship: the file that was measured becomes a bundle, after a fresh process has loaded and measured it again."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..objectives.protocol import OpenModel
from ..spaces.build import file_hash
from ..spaces.errors import InputError, SlimfrontError, last_line
from ..spaces.formats import ONNX
from . import bundle
from .card import card
from .neighbours import neighbours
from .output import new_folder
from .review import Decision, Review, now, somebody
from .verify import compare, save_data

if TYPE_CHECKING:
    from .run import Run
    from .study import Study
    from .trial import Trial

Note = Callable[[str], None]


def ship(run: Run, trial: Trial, folder: Path, note: Note | None = None, why: str = "", who: str | None = None) -> Path:
    """Write a trial of a run as a bundle and return its folder.

    The bundle is made beside ``folder`` and renamed when all of it holds, so that nothing is half-written. The decision is then
    kept in the run, as in the bundle's card.

    Args:
        run: the run; its study must be there, unchanged.
        trial: a measured trial.
        folder: is created; it must be absent or empty.
        note: is told what is done.
        why: the reason for the choice.
        who: makes it; by default the user of this process.

    Raises:
        InputError: the trial is not measured, the folder holds something, cannot be written, or the study is gone.
        SlimfrontError: the file does not load in a fresh process, or does not hold what was measured.
    """
    if not trial.measured:
        raise InputError(f"trial {trial.number} cannot be shipped, it is not measured: {trial.reason or trial.state}")
    folder = folder.absolute()
    tell = note or (lambda text: None)
    decision = decide(run, trial, folder, why, who)
    with new_folder(folder, "a bundle") as part:
        fill(run, trial, part, decision, tell)
    keep(run, decision, tell)
    return folder


def decide(run: Run, trial: Trial, folder: Path, why: str = "", who: str | None = None) -> Decision:
    """Return the decision for a trial as a run keeps it; see `ship`."""
    return Decision(
        who=somebody() if who is None else who,
        when=now(),
        trial=trial.number,
        key=trial.candidate.key,
        text=why,
        against=tuple(one.trial.number for one in neighbours(run, trial)),
        bundle=str(folder),
    )


def keep(run: Run, decision: Decision, tell: Note) -> None:
    """Keep a decision in its run."""
    try:
        Review(run.folder).add(decision)
    except InputError as error:  # of a run that may only be read
        tell(f"the decision is in the bundle's card alone: {error}")


def shipped(folder: Path) -> dict[str, Any]:
    """Return the numbers of a bundle that `ship` has just written: the JSON form of a measured candidate."""
    return dict(json.loads((folder / bundle.CANDIDATE_FILE).read_text(encoding="utf-8")))


def shipped_notes(trial: Trial, row: Mapping[str, Any]) -> list[str]:
    """Return a note where the file's speed, measured again, is surely not what the search measured."""
    then = trial.readings["speedup"]
    if then.low is None or then.high is None or (row["speedup_high"] >= then.low and row["speedup_low"] <= then.high):
        return []
    return [
        f"the search measured a speedup of {then.value:.2f} ({then.low:.2f} to {then.high:.2f}), this file now "
        f"{row['speedup']:.2f} ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}), which is what its card says"
    ]


def choose(
    run: Run,
    trial: int | None = None,
    max_size: str | float | None = None,
    max_latency: str | float | None = None,
    min_psnr: float | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    prefer: str = "knee",
    min_preference: float | None = None,
    min: Mapping[str, float] | None = None,
    max: Mapping[str, float] | None = None,
    max_memory: str | float | None = None,
) -> Trial:
    """Return the trial of this number, or without one what `Run.pick` chooses.

    Raises:
        InputError: there is no such trial, both a number and limits are given, or no candidate keeps the limits.
    """
    limits = (max_size, max_latency, min_psnr, max_drop, min_speedup)
    if trial is None:
        return run.pick(*limits, prefer, min_preference, min, max, max_memory)
    if any(limit is not None for limit in (*limits, min_preference, max_memory)) or min or max:
        raise InputError(f"give either --trial {trial} or limits, not both")
    return run.trial(trial)


def fill(run: Run, trial: Trial, part: Path, decision: Decision, tell: Note) -> None:
    """Fill an empty folder with a trial's bundle.

    Raises:
        InputError: the study is gone.
        SlimfrontError: the file does not load in a fresh process, or does not hold what was measured.
    """
    study = run.load()
    study.check()
    tell("writing the model")
    model = part / bundle.model_name(study.rules.format)
    _copy_model(run.model_path(trial), model)
    sha256 = file_hash(model)
    if sha256 != trial.sha256:
        what = f"sha256 {sha256}, not {trial.sha256}"
        raise SlimfrontError(f"the file of trial {trial.number} is not the one that was measured: {what}")
    facts = _facts(run, trial, study, model) | {"decision": _told(run, decision)}
    _write_json(part / bundle.BUNDLE_FILE, facts)
    _save_check(study, part, model)
    tell("measuring the file again in a fresh process")
    measured = _measure_afresh(study, part)
    checks, _ = compare(facts | {"environment": measured["environment"]}, measured)
    failures = [f"{check.name}: {check.found}" for check in checks if not check.holds]
    if failures:
        raise SlimfrontError(f"trial {trial.number} does not hold what was measured: {'; '.join(failures)}")
    if study.further.in_memory:
        tell(f"not measured again, as only the search's process can: {', '.join(study.further.in_memory)}")
    facts |= {"expected": measured, "environment": measured.pop("environment")}
    _write_json(part / bundle.BUNDLE_FILE, facts)
    row = shipped_row(trial, facts)
    _write_json(part / bundle.CANDIDATE_FILE, row)
    text = card(row, facts, study)
    (part / bundle.CARD_FILE).write_text(text, encoding="utf-8")


def _facts(run: Run, trial: Trial, study: Study, model: Path) -> dict[str, Any]:
    target = study.settings.target
    return {
        "version": bundle.VERSION,
        "study": {
            "name": study.name,
            "digest": study.digest,
            "source": study.source or str(run.folder.absolute() / "study"),
        },
        "trial": trial.number,
        "sha256": trial.sha256,
        "size_bytes": int(trial.value("size_bytes")),
        "candidate": trial.candidate.to_json(),
        "reference_size_bytes": int(run.reference.value("size_bytes")),
        "model": model.name,
        **(_onnx_facts(model) if study.rules.format == ONNX else {}),
        "batch": study.graph.batch,
        "threads": target.threads,
        "provider": target.provider,
        "runtime": target.runtime,
        **({} if target.device is None else {"device": target.device}),
        "shipped": now(),
        "expected": {"evaluation": {name: trial.value(name) for name in ("psnr_db", "ssim", *trial.further)}},
        **_objectives(run, study),
    }


def _onnx_facts(model: Path) -> dict[str, Any]:
    """Return what an ONNX file asks of a runtime."""
    asks = bundle.model_format(model)
    return {"opset": asks.opset, "ir_version": asks.ir_version, "least_onnxruntime": asks.least_runtime}


def _objectives(run: Run, study: Study) -> dict[str, Any]:
    """Return the further objectives as a bundle keeps them, to be measured again; nothing where there are none."""
    pairs = zip(run.criteria, study.further.tables.values(), strict=True)
    kept = {
        criterion.name: {
            "criterion": criterion.to_json(),
            "table": table.model_dump(exclude_defaults=True) | study.further.files(criterion.name),
        }
        for criterion, table in pairs
    }
    return {"objectives": kept} if kept else {}


def _told(run: Run, decision: Decision) -> dict[str, Any]:
    """Return a decision as a bundle keeps it, with the numbers of the neighbours."""
    keys = ("trial", "size_bytes", "speedup", "psnr_db")
    against = [run.trial(number).row() for number in decision.against]
    return {
        "who": decision.who,
        "when": decision.when,
        "why": decision.text,
        "against": [{key: row[key] for key in keys} for row in against],
    }


def shipped_row(trial: Trial, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON form of a measured candidate with the numbers of the fresh process, and those on test data."""
    expected = facts["expected"]
    speedup = expected["timing"]["speedup"]
    reference_ms = expected["timing"]["reference_ms"]["value"]
    quality = {name: value for name, value in expected["evaluation"].items() if name != "reference"}
    row = trial.row() | quality
    row |= {"speedup": speedup["value"], "speedup_low": speedup["low"], "speedup_high": speedup["high"]}
    row |= {
        "latency_ms": reference_ms / speedup["value"],
        "latency_low_ms": reference_ms / speedup["high"],
        "latency_high_ms": reference_ms / speedup["low"],
    }
    reference = {"size_bytes": facts["reference_size_bytes"], "latency_ms": reference_ms}
    row["reference"] = reference | expected["evaluation"]["reference"]
    row["test"] = expected.get("test")
    return row


def _measure_afresh(study: Study, part: Path) -> dict[str, Any]:
    """Run `verify` on the bundle in a new Python process; return its readings."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as data:
        save_data(study, Path(data))
        command = [sys.executable, "-P", "-m", "slimfront.studies.verify", str(part), data]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = last_line(done.stderr) or "no message"
        raise SlimfrontError(f"the file cannot be measured in a fresh process: {reason}")
    document = json.loads(done.stdout)
    failed = [f"{check['name']}: {check['found']}" for check in document["checks"] if not check["holds"]]
    if failed:
        raise SlimfrontError(f"the file does not hold in a fresh process: {'; '.join(failed)}")
    return dict(document["measured"])


def _save_check(study: Study, part: Path, model: Path) -> None:
    """Store a few samples with the model's own outputs for them."""
    output_bytes = 4 * math.prod(study.graph.outputs[0].shape) // study.graph.batch
    samples = bundle.few_samples(study.evaluation, output_bytes, study.graph.batch)
    outputs = OpenModel(model, samples, study.graph.batch, study.target).outputs
    bundle.save_samples(part / bundle.CHECK_FILE, samples, outputs)


def _copy_model(source: Path, path: Path) -> None:
    """Copy a model; above 2 GB it names the file of its weights, so it is written anew under its new name."""
    if source.with_name(source.name + ".data").exists():
        import onnx_ir as ir

        from ..spaces.graph import save_model

        save_model(ir.load(source), path)
    else:
        shutil.copyfile(source, path)


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, allow_nan=False) + "\n", encoding="utf-8")
