"""What ``[space.fixed]`` holds: the choices of layers and the ratios of groups, by name or glob."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .candidate import DYNAMIC, NATIVE, LayerChoice, share
from .errors import InputError, nearest
from .forms import check_form, valid_forms
from .graph import Graph
from .groups import Channels, channel_groups
from .matrix import has_matrix
from .rules import Rules

CHOICE_KEYS = ("weight_bits", "activation_bits", "sparsity", "form")


def held_choices(
    graph: Graph, fixed: Mapping[str, Mapping[str, Any]], rules: Rules
) -> tuple[dict[str, LayerChoice], dict[str, float]]:
    """Return the choices of layers and the ratios of groups that are held; the last pattern counts, whole."""
    held: dict[str, dict[str, Any]] = {}
    ratios: dict[str, float] = {}
    channels = channel_groups(graph)
    names = dict.fromkeys((*graph.layers, *channels.groups))
    for pattern, values in sorted(fixed.items(), key=lambda item: item[0] in names):
        found = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        where = f"space.fixed.{pattern!r}"
        if not found:
            raise InputError(f"space.fixed: there is no layer or channel group {pattern!r}{nearest(pattern, names)}")
        allowed = (*CHOICE_KEYS, "pruning_ratio")
        unknown = [key for key in values if key not in allowed]
        if unknown:
            raise InputError(
                f"{where}: unknown key {unknown[0]!r}{nearest(unknown[0], allowed)}; allowed: {', '.join(allowed)}"
            )
        chosen = {key: value for key, value in values.items() if key in CHOICE_KEYS}
        for name in found if chosen or not values else ():
            if name in graph.layers:
                held[name] = chosen
                try:
                    _check_held(graph, name, LayerChoice(**held[name]), rules, exact=pattern == name)
                except InputError as error:
                    raise InputError(f"{where}: {error}") from None
        if "pruning_ratio" in values:
            try:
                ratios |= _held_ratios(channels, found, share("pruning_ratio", values["pruning_ratio"]), pattern)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
    return {name: _possible(graph, name, LayerChoice(**values), rules) for name, values in held.items()}, ratios


def _possible(graph: Graph, name: str, choice: LayerChoice, rules: Rules) -> LayerChoice:
    """Return a choice without the sparsity or the form that a layer cannot have: a glob may name it all the same."""
    layer = graph.layers[name]
    choice = choice if rules.can_be_sparse(layer) else replace(choice, sparsity=0.0)
    if choice.form in rules.forms(graph, layer):
        return choice
    bits = choice.activation_bits if choice.activation_bits in rules.activation_bits(graph, layer) else 32
    return replace(choice, activation_bits=bits, form=NATIVE)


def _check_held(graph: Graph, name: str, choice: LayerChoice, rules: Rules, exact: bool) -> None:
    layer = graph.layers[name]
    if choice.calibrated and not rules.has_integer_kernel(graph, layer):
        more = f", or form {DYNAMIC!r}" if DYNAMIC in rules.forms(graph, layer) else ""
        raise InputError(f"layer {name!r} has no integer kernel; activation_bits must be 32{more}")
    if not rules.stores(choice):
        raise InputError(f"layer {name!r}: {rules.not_stored(choice)}")
    if exact and choice.form == DYNAMIC and DYNAMIC in valid_forms(graph, layer) and layer.op not in rules.dynamic:
        raise InputError(f"layer {name!r}: {rules.not_dynamic(layer)}")
    if exact and choice.sparsity and not has_matrix(graph.layers[name]):
        raise InputError(f"layer {name!r} is a dilated ConvTranspose, which has no sparse form; sparsity must be 0")
    if exact and choice.sparsity and not rules.sparse:
        raise InputError(f"files for {rules.runtime} store all weights; sparsity must be 0")
    if exact:
        check_form(graph, graph.layers[name], choice.form)


def _held_ratios(channels: Channels, found: Sequence[str], ratio: float, pattern: str) -> dict[str, float]:
    """Return the ratio of each group that is named, or that a layer writes which a glob names."""
    if list(found) == [pattern]:
        groups = [channels.group(pattern)]  # raises with the op that froze it, or the group that it goes with
    else:
        groups = [group for group in channels.groups.values() if {group.name, *group.writers} & set(found)]
        if not groups:
            channels.group(found[0])
    return {group.name: group.ratio(group.kept(ratio)) for group in groups}
