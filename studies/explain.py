"""Explain: where a candidate's time goes, layer by layer, why it is or is not faster than the reference, and what would help."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..objectives.kernel_profile import KernelProfile, Rounds
from ..spaces.attribution import Place, attribute, stored_bytes
from ..spaces.errors import InputError
from ..spaces.prune import pruned
from ..spaces.statistics import Progress
from .advice import advice, between_sentence, pruning_rows
from .causes import Cause, LayerFacts, border_cause, layer_cause, op_cause
from .layer_facts import Measured, layer_facts
from .screen import plain

if TYPE_CHECKING:
    from ..spaces.build import Built
    from .run import Run
    from .study import Study
    from .trial import Trial

LEAST_ROUNDS = 5
MOST_ROUNDS = 15
SECONDS = 10.0


def explain(run: Run, trial: Trial, progress: Progress | None = None) -> dict[str, Any]:
    """Profile a trial's file in turn with the reference's, and say of each layer why it is as fast as it is.

    Args:
        run: the run.
        trial: a measured one.
        progress: told what is being done, and the part of it that is done.

    Returns:
        Plain JSON data: ``trial``, ``base`` (where it is a student, the uncompressed student stands in the reference's place),
        ``speedup`` (as it was measured), ``reference_ms`` and ``candidate_ms`` (all kernels and what passes between them, under
        the profile), ``reference_overhead_ms`` and ``overhead_ms`` (the latter alone), ``layers`` (the slowest first),
        ``between`` (conversions, layouts and ops between the layers) and ``advice``. The
        times of layers and between add up to all kernels. A layer's ``conversion_ms`` is that of the conversions at its
        borders, which stand in ``between``; its ``bytes`` are those in the file. ``gain_ms`` is foretold, all else measured.

    Raises:
        InputError: the trial failed, or the run's study is gone or has changed.
        SlimfrontError: the file cannot be built again as it was measured.
        BuildError: it does not run.
    """
    if not trial.measured:
        reason = trial.reason or "no reason kept"
        raise InputError(f"trial {trial.number} of {run.folder} has no time to explain: it {trial.state} ({reason})")
    study = run.load()
    study.prepare([trial.candidate], progress)
    built = run.rebuild(trial, study)
    base = study.builder.build(trial.candidate.uncompressed)
    whole = study.builder.of(trial.candidate.base).graph
    graph = study.builder.graph_of(built.candidate)
    removed = study.builder.removed(built.candidate)
    narrow = pruned(graph, removed) if removed else graph
    profiles = _profiles(study, base, built, progress)
    before = _measured(profiles[0], attribute(profiles[0].kernels, base, whole))
    after = _measured(profiles[1], attribute(profiles[1].kernels, built, narrow))
    space = study.space_of(trial.candidate.base)
    facts = layer_facts(whole, narrow, built.candidate, space, before, after, study.target.rules)
    stored = stored_bytes(built, narrow)
    layers = [_layer_row(fact, stored[fact.name], after) for fact in facts]
    between = _between_rows(before, after)
    document = {
        "trial": trial.number,
        "base": trial.candidate.base,
        "speedup": trial.value("speedup"),
        "reference_ms": before.whole_ms,
        "candidate_ms": after.whole_ms,
        "reference_overhead_ms": before.overhead_ms,
        "overhead_ms": after.overhead_ms,
        "layers": sorted(layers, key=lambda row: -row["candidate_ms"]),
        "between": sorted(between, key=lambda row: -row["candidate_ms"]),
        "advice": advice([*layers, *between, *pruning_rows(facts)], after.whole_ms)
        + between_sentence(between, after.whole_ms),
    }
    return dict(plain(document))


def _profiles(study: Study, reference: Built, built: Built, progress: Progress | None) -> list[KernelProfile]:
    """Run both files in turn, so that drift hits both."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        paths = [Path(folder) / "reference.onnx", Path(folder) / "candidate.onnx"]
        for model, path in zip((reference, built), paths, strict=True):
            model.save_graph(path)
        rounds = Rounds(LEAST_ROUNDS, MOST_ROUNDS, SECONDS)
        return study.target.profiles(paths, study.feed, rounds, progress)


def _measured(profile: KernelProfile, places: list[Place]) -> Measured:
    between_ms = np.median(profile.whole_ms - profile.times_ms.sum(axis=1))
    return Measured(profile.kernels, places, profile.kernel_ms, max(0.0, float(between_ms)))


def _layer_row(facts: LayerFacts, stored: int, after: Measured) -> dict[str, Any]:
    return {
        "name": facts.name,
        "op": facts.op,
        "multiply_adds": facts.multiply_adds,
        "reference_multiply_adds": facts.reference_multiply_adds,
        "bytes": stored,
        "kernel": facts.kernel,
        "kernels": list(dict.fromkeys(kernel.short_op for kernel in after.of_layer(facts.name))),
        "reference_ms": facts.reference_ms,
        "candidate_ms": facts.candidate_ms,
        "share": facts.share,
        "conversion_ms": after.total_ms(lambda place: place.kind == "conversion" and facts.name in place.layers),
        **_words(layer_cause(facts)),
    }


def _between_rows(before: Measured, after: Measured) -> list[dict[str, Any]]:
    """Return a row for each border at which values are converted or moved, and for each op between the layers."""
    keys = dict.fromkeys(_key(place) for place in (*after.places, *before.places) if place.kind != "layer")
    return [_between_row(key, before, after) for key in keys]


Key = tuple[str, str, tuple[str, str]]


def _key(place: Place) -> Key:
    return place.kind, place.name, place.due


def _between_row(key: Key, before: Measured, after: Measured) -> dict[str, Any]:
    kind, name, due = key
    times = [measured.total_ms(lambda place: _key(place) == key) for measured in (before, after)]
    kernels = [kernel for kernel, place in zip(after.kernels, after.places, strict=True) if _key(place) == key]
    share = times[1] / after.kernels_ms if after.kernels_ms else 0.0
    if kind == "op":
        cause = op_cause(name, any(kernel.integer for kernel in kernels), times[0], times[1], share)
    else:
        cause = border_cause(kind, due, times[1])
    return {
        "name": name,
        "kind": kind,
        "due": due[1] or None,
        "kernels": list(dict.fromkeys(kernel.short_op for kernel in kernels)),
        "reference_ms": times[0],
        "candidate_ms": times[1],
        "share": share,
        **_words(cause),
    }


def _words(cause: Cause) -> dict[str, Any]:
    return {"why": cause.why, "help": cause.help, "change": cause.change, "gain_ms": cause.gain_ms}
