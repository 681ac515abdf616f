"""Which ways of running a layer pay on this machine: its forms, and integer arithmetic, timed one layer at a time.

A layer is cut out of the graph and lowered in each way, between neighbours that run as it does. Its own kernels are kept apart
from those that lead from float to the first neighbour and from the last one back, so that the same run tells how it fares
between integer and between float neighbours. What a layer alone says against its integer kernels has to be confirmed by the
whole model: there, conversions meet memory in another state, and more than its neighbours depend on it.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..spaces.cache import Store, content_hash
from ..spaces.candidate import DYNAMIC, NATIVE, Candidate, LayerChoice
from ..spaces.errors import BuildError
from ..spaces.forms import growth
from ..spaces.graph import Graph, Layer, save_model
from ..spaces.kernels import QUANTISING
from ..spaces.offers import FormOffer, Offer
from ..spaces.rules import Rules
from ..spaces.single import NEIGHBOUR, single_layer
from ..spaces.skeleton import skeleton_lowering
from .kernel_profile import KernelProfile, Rounds

if TYPE_CHECKING:
    from .target import Target

VERSION = 3
CLEARLY = 1.05  # times as fast: less is noise
LEAST_ROUNDS = 4
MOST_ROUNDS = 16
SECONDS = 0.15  # for one layer, once it has run often enough
WHOLE_SECONDS = 10.0  # for four whole models
LEAST_MS = 1e-3  # what a profile tells apart

Way = tuple[str, int]  # form, activation bits


@dataclass(frozen=True)
class WayTime:
    """Milliseconds of a layer that is run in one way.

    Attributes:
        core: of its own kernels, between neighbours of its kind.
        entering: from a float input to what these read: layout, and integers.
        leaving: the way back.
    """

    core: float
    entering: float
    leaving: float


def layer_offers(
    graph: Graph,
    target: Target,
    feed: Mapping[str, np.ndarray],
) -> dict[str, Offer]:
    """Return by layer what is worth offering on this machine, for those where it is not simply all in the native form.

    Measured once for each target, by its fingerprint, and kind of layer, and kept in the user's cache, so that a study offers
    the same each time. A layer that cannot be measured has no entry.

    Args:
        graph: captured.
        target: where models run.
        feed: one batch of the model's inputs, arrays by name.
    """
    store = Store(content_hash("layer speed", VERSION, target.fingerprint))
    rules = target.rules
    found: dict[str, Offer] = {}
    integer = []
    for name, layer in graph.layers.items():
        if rules.has_integer_kernel(graph, layer) or len(rules.forms(graph, layer)) > 1:
            single = single_layer(graph, layer)
            try:
                offer = _offer(single, _stored_times(single, store, target), rules)
            except BuildError:
                continue  # the search records why, where it tries such a candidate
            integer += [name] if rules.has_integer_kernel(graph, layer) else []
            if offer != Offer():
                found[name] = offer
    slower = [name for name, offer in found.items() if not offer.integer]
    others = [name for name in integer if name not in slower]
    if slower and not _slower_in_the_whole(graph, slower, others, feed, store, target):
        found |= {name: replace(found[name], integer=True) for name in slower}
    return {name: offer for name, offer in found.items() if offer != Offer()}


def _slower_in_the_whole(
    graph: Graph,
    names: Sequence[str],
    others: Sequence[str],
    feed: Mapping[str, np.ndarray],
    store: Store,
    target: Target,
) -> bool:
    """Whether the whole model is slower with these layers in integers, beside other integer layers and beside float ones."""
    kind = content_hash("whole", graph.digest, [list(array.shape) for array in feed.values()], names, others)
    stored = store.arrays(kind)
    if stored is None:
        try:
            ratios = _whole_ratios(graph, names, others, feed, target)
        except BuildError:
            ratios = [0.0]  # nothing confirms it
        stored = {"ratios": np.array(ratios)}
        store.put_arrays(kind, stored)
    return bool((stored["ratios"] > 1.0).all())


def _whole_ratios(
    graph: Graph,
    names: Sequence[str],
    others: Sequence[str],
    feed: Mapping[str, np.ndarray],
    target: Target,
) -> list[float]:
    """Return the time of the whole model with layers in integers, in parts of that with them in float.

    First where the others are in integers, then where they are in float; the models are run in turn.
    """
    asked, beside = (dict.fromkeys(some, LayerChoice(8, 8)) for some in (names, others))
    candidates = [Candidate(asked | beside), Candidate(beside), Candidate(asked), Candidate()]
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(candidates))]
        for candidate, path in zip(candidates, paths, strict=True):
            save_model(skeleton_lowering(graph, candidate, lambda _: (-1.0, 1.0), target.rules).run(), path)
        profiles = target.profiles(paths, feed, Rounds(LEAST_ROUNDS, MOST_ROUNDS, WHOLE_SECONDS))
    integer, plain, only, none = (profile.whole_ms for profile in profiles)
    return [float(np.median(integer / plain)), float(np.median(only / none))]


def _stored_times(single: Graph, store: Store, target: Target) -> dict[Way, WayTime]:
    kind = content_hash(single.digest, _only(single).shape)  # a digest does not tell shapes of equal bytes apart
    stored = store.arrays(kind)
    if stored is None:
        times = _times(single, target)
        stored = {
            "ways": np.array([f"{form} {bits}" for form, bits in times]),
            "times": np.array([[way.core, way.entering, way.leaving] for way in times.values()]),
        }
        store.put_arrays(kind, stored)
    ways = (str(way).split(" ") for way in stored["ways"])
    return {(form, int(bits)): WayTime(*row) for (form, bits), row in zip(ways, stored["times"].tolist(), strict=True)}


def _times(single: Graph, target: Target) -> dict[Way, WayTime]:
    """Return the times of the only layer of a graph in every way it can be run; the ways are run in turn."""
    layer = _only(single)
    port = single.inputs[0]
    feed = {port.name: np.random.default_rng(0).uniform(-1, 1, port.shape).astype(np.float32)}
    rules = target.rules
    ways = [(form, bits) for form in rules.forms(single, layer) for bits in rules.activation_bits(single, layer, form)]
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        paths = [Path(folder) / f"{form}-{activation_bits}.onnx" for form, activation_bits in ways]
        for (form, activation_bits), path in zip(ways, paths, strict=True):
            candidate = Candidate({layer.name: _choice(rules, form, activation_bits)})
            save_model(skeleton_lowering(single, candidate, lambda _: (-1.0, 1.0), target.rules).run(), path)
        profiles = target.profiles(paths, feed, Rounds(LEAST_ROUNDS, MOST_ROUNDS, SECONDS))
    return {way: _way_time(profile) for way, profile in zip(ways, profiles, strict=True)}


def _choice(rules: Rules, form: str, activation_bits: int) -> LayerChoice:
    """Return a choice with weights of 8 bits, or of 32 where files have no 8 beside such activations."""
    choice = LayerChoice(8, activation_bits, form=form)
    return choice if rules.stores(choice) else replace(choice, weight_bits=32)


def _way_time(profile: KernelProfile) -> WayTime:
    ops = [kernel.short_op for kernel in profile.kernels]
    marks = [number for number, op in enumerate(ops) if op.endswith(NEIGHBOUR)]
    if marks:
        parts = np.split(profile.kernel_ms, [marks[0], marks[0] + 1, marks[-1], marks[-1] + 1])
        return WayTime(core=float(parts[2].sum()), entering=float(parts[0].sum()), leaving=float(parts[4].sum()))
    times = dict.fromkeys((*QUANTISING, "core"), 0.0)
    for op, kernel_ms in zip(ops, profile.kernel_ms.tolist(), strict=True):
        times[op if op in QUANTISING else "core"] += kernel_ms
    return WayTime(times["core"], *(times[op] for op in QUANTISING))


def _offer(single: Graph, times: Mapping[Way, WayTime], rules: Rules) -> Offer:
    """Return what the times of a layer say is worth offering."""
    layer = _only(single)
    forms = {}
    for form in rules.forms(single, layer)[1:]:
        if form == DYNAMIC:
            continue
        ratios = {
            bits: times[form, bits].core / max(times[NATIVE, bits].core, LEAST_MS)
            for bits in (8, 32)
            if (form, bits) in times
        }
        faster = {bits: ratio for bits, ratio in ratios.items() if ratio * CLEARLY < 1}
        if faster:
            forms[form] = FormOffer(growth(single, layer, form), faster)
    if (DYNAMIC, 8) in times and (ratio := _dynamic_ratio(times)) * CLEARLY < 1:
        forms[DYNAMIC] = FormOffer(1.0, {8: ratio})
    slower = (NATIVE, 8) in times and _integer_is_slower(single, times[NATIVE, 8], times[NATIVE, 32])
    return Offer(not slower, forms)


def _dynamic_ratio(times: Mapping[Way, WayTime]) -> float:
    """Return the time of a layer in the form "dynamic" in parts of that in float; 1 where a calibrated grid is as fast.

    It reads and writes float, so between float neighbours it is compared; between integer ones a calibrated grid is better.
    """
    own, plain = times[DYNAMIC, 8], times[NATIVE, 32].core
    calibrated = times.get((NATIVE, 8))
    if calibrated is not None and calibrated.core + calibrated.entering + calibrated.leaving <= own.core * CLEARLY:
        return 1.0
    return own.core / max(plain, LEAST_MS)


def _integer_is_slower(single: Graph, integer: WayTime, plain: WayTime) -> bool:
    """Whether integer arithmetic is slower between integer and between float neighbours as well."""
    read, written = (math.prod(port.shape) for port in (single.inputs[0], single.outputs[0]))
    to_float, to_integer = integer.leaving * read / written, integer.entering * written / read
    between_integers = integer.core > CLEARLY * (plain.core + plain.entering + plain.leaving + to_float + to_integer)
    between_floats = integer.core + integer.entering + integer.leaving > CLEARLY * plain.core
    return between_integers and between_floats


def _only(single: Graph) -> Layer:
    return next(iter(single.layers.values()))
