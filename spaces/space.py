"""The space of candidates: for every layer the choices that the search may make."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .candidate import ACTIVATION_BITS, REPAIRS, WEIGHT_BITS, Candidate, LayerChoice
from .domains import can_run_integer
from .errors import InputError, nearest
from .graph import Graph, Layer

DEFAULT_WEIGHT_BITS = (2, 3, 4, 5, 6, 8, 32)
UNIFORM_KEYS = ("weight_bits", "activation_bits", "repair")


@dataclass(frozen=True)
class Space:
    """The choices of every layer of a graph; a layer with one choice is fixed."""

    choices: Mapping[str, tuple[LayerChoice, ...]]

    @property
    def varies(self) -> bool:
        """Whether there is anything to search."""
        return any(len(choices) > 1 for choices in self.choices.values())

    @cached_property
    def size(self) -> int:
        """Number of points."""
        result = 1
        for choices in self.choices.values():
            result *= len(choices)
        return result

    @property
    def rounded(self) -> list[str]:
        """Names of the layers whose weights may be rounded to integers."""
        return [name for name, choices in self.choices.items() if any(choice.weight_bits <= 8 for choice in choices)]

    def contains(self, candidate: Candidate) -> bool:
        """Whether the search could have proposed this candidate."""
        known = all(name in self.choices for name in candidate.layers)
        return known and all(candidate.choice(name) in choices for name, choices in self.choices.items())


def make_space(
    graph: Graph,
    *,
    weight_bits: Sequence[int] = DEFAULT_WEIGHT_BITS,
    activation_bits: Sequence[int] = ACTIVATION_BITS,
    fixed: Mapping[str, Mapping[str, int]] | None = None,
    saturation_safe: bool = False,
) -> Space:
    """Return the space of a graph: the valid pairs of bits that each layer's op can have.

    Args:
        weight_bits, activation_bits: what the study offers.
        fixed: choices by layer name or glob; where several match, the last one counts, an exact name most.
        saturation_safe: integer layers get at most 7 bits, so that no product saturates on machines without VNNI.

    Raises:
        InputError: a width that does not exist, a fixed layer that the graph has not, no valid pair for a layer.
    """
    for bits, allowed, key in (
        (weight_bits, WEIGHT_BITS, "weight_bits"),
        (activation_bits, ACTIVATION_BITS, "activation_bits"),
    ):
        wrong = [value for value in bits if value not in allowed]
        if wrong or not bits:
            raise InputError(f"space.{key}: {list(bits)} is not a choice of {', '.join(map(str, allowed))}")
    held = _held(graph, fixed or {})
    choices: dict[str, tuple[LayerChoice, ...]] = {}
    for name, layer in graph.layers.items():
        if name in held:
            choices[name] = (held[name],)
            continue
        offered = _pairs(graph, layer, weight_bits, activation_bits, saturation_safe)
        if not offered:
            raise InputError(
                f"space: no pair of weight_bits {list(weight_bits)} and activation_bits {list(activation_bits)} "
                f"fits layer {name!r} ({layer.op}); add activation_bits 32"
            )
        choices[name] = offered
    return Space(choices)


def _pairs(
    graph: Graph, layer: Layer, weight_bits: Sequence[int], activation_bits: Sequence[int], saturation_safe: bool
) -> tuple[LayerChoice, ...]:
    most = 7 if saturation_safe else 8
    able = layer_activation_bits(graph, layer)
    return tuple(
        LayerChoice(bits, activation)
        for activation in sorted(set(activation_bits) & set(able))
        for bits in sorted(set(weight_bits))
        if activation == 32 or bits <= most
    )


def _held(graph: Graph, fixed: Mapping[str, Mapping[str, int]]) -> dict[str, LayerChoice]:
    held = {}
    for pattern, values in sorted(fixed.items(), key=lambda item: item[0] in graph.layers):
        names = [pattern] if pattern in graph.layers else fnmatch.filter(graph.layers, pattern)
        if not names:
            raise InputError(f"space.fixed: there is no layer {pattern!r}{nearest(pattern, graph.layers)}")
        unknown = [key for key in values if key not in ("weight_bits", "activation_bits")]
        if unknown:
            raise InputError(
                f"space.fixed.{pattern!r}: unknown key {unknown[0]!r}{nearest(unknown[0], UNIFORM_KEYS)}; "
                "allowed: weight_bits, activation_bits"
            )
        try:
            choice = LayerChoice(**values)
        except InputError as error:
            raise InputError(f"space.fixed.{pattern!r}: {error}") from None
        for name in names:
            if choice.integer and not can_run_integer(graph, graph.layers[name]):
                raise InputError(
                    f"space.fixed.{pattern!r}: layer {name!r} has no integer kernel; activation_bits must be 32"
                )
            held[name] = choice
    return held


def layer_activation_bits(graph: Graph, layer: Layer) -> tuple[int, ...]:
    """Return the activation bits that a layer can have: (8, 32), or (32,) where no integer kernel can run it."""
    return (8, 32) if can_run_integer(graph, layer) else (32,)


def parse_uniform(text: str) -> dict[str, Any]:
    """Read ``weight_bits=4,activation_bits=8,repair=static``.

    Raises:
        InputError: no or an unknown key, one that stands twice, no value, or one that is no number.
    """
    values: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        if key not in UNIFORM_KEYS:
            raise InputError(
                f"--uniform: unknown key {key!r}{nearest(key, UNIFORM_KEYS)}; allowed: {', '.join(UNIFORM_KEYS)}"
            )
        if not value:
            raise InputError(f"--uniform: {part!r} needs a value, as in weight_bits=4,activation_bits=8")
        if key in values:
            raise InputError(f"--uniform: {key} must stand once, but got {values[key]!r} and {value!r}")
        if key == "repair":
            values[key] = value
        elif value.isdecimal():
            values[key] = int(value)
        else:
            raise InputError(f"--uniform: {key} must be a whole number, but got {value!r}")
    if not values:
        raise InputError(f"--uniform needs values, as in weight_bits=4,activation_bits=8, but got {text!r}")
    return values


def uniform(graph: Graph, values: Mapping[str, Any]) -> tuple[Candidate, list[str]]:
    """Return the candidate that gives every layer the same choice, and notes on layers that cannot have it.

    Args:
        values: any of weight_bits, activation_bits, repair; what is absent is uncompressed.

    Raises:
        InputError: an unknown key, or a choice that no layer could have.
    """
    for key in values:
        if key not in UNIFORM_KEYS:
            raise InputError(
                f"uniform: unknown key {key!r}{nearest(key, UNIFORM_KEYS)}; allowed: {', '.join(UNIFORM_KEYS)}"
            )
    wanted = LayerChoice(values.get("weight_bits", 32), values.get("activation_bits", 32))
    repair = values.get("repair", "static")
    if repair not in REPAIRS:
        raise InputError(f"repair must be one of {', '.join(REPAIRS)}, but got {repair!r}")
    layers, floats = {}, []
    for name, layer in graph.layers.items():
        if wanted.activation_bits in layer_activation_bits(graph, layer):
            layers[name] = wanted
        else:
            layers[name] = LayerChoice(wanted.weight_bits, 32)
            floats.append(name)
    notes = [f"no integer kernel, so activation_bits is 32: {', '.join(floats)}"] if floats else []
    return Candidate(layers, repair=repair), notes
