"""A candidate: one point of the space. Pure data, hashable, JSON; what is absent is uncompressed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .errors import InputError, nearest

VERSION = 1
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, 32)
ACTIVATION_BITS = (8, 32)
REPAIRS = ("static", "sequential")


@dataclass(frozen=True, order=True)
class LayerChoice:
    """How one layer is compressed: bits of its weights (2-8, 16, 32) and of its activations (8, 32)."""

    weight_bits: int = 32
    activation_bits: int = 32

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("weight_bits", self.weight_bits, WEIGHT_BITS),
            ("activation_bits", self.activation_bits, ACTIVATION_BITS),
        ):
            if isinstance(value, bool) or not isinstance(value, int) or value not in allowed:
                raise InputError(f"{name} must be one of {', '.join(map(str, allowed))}, but got {value!r}")
        if self.activation_bits == 8 and self.weight_bits > 8:
            raise InputError(
                f"activation_bits 8 needs weight_bits 2-8, but got weight_bits {self.weight_bits}: "
                "integer kernels take integer weights"
            )

    @property
    def integer(self) -> bool:
        """Whether the layer runs in integer kernels."""
        return self.activation_bits == 8


UNCOMPRESSED = LayerChoice()


@dataclass(frozen=True)
class Candidate:
    """One point of the space.

    Attributes:
        layers: choices by layer name; a layer that is absent is uncompressed.
        base: "reference", or the content id of another graph that the run holds.
        repair: how rounding is made good: "static" or "sequential".
    """

    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    base: str = "reference"
    repair: str = "static"

    def __post_init__(self) -> None:
        if self.repair not in REPAIRS:
            raise InputError(f"repair must be one of {', '.join(REPAIRS)}, but got {self.repair!r}")
        kept = {name: choice for name, choice in sorted(self.layers.items()) if choice != UNCOMPRESSED}
        object.__setattr__(self, "layers", kept)
        if not self.rounded:
            object.__setattr__(self, "repair", "static")  # nothing is rounded: the two are the same model

    def choice(self, layer: str) -> LayerChoice:
        """Return the layer's choice; uncompressed where the candidate does not name it."""
        return self.layers.get(layer, UNCOMPRESSED)

    @property
    def rounded(self) -> list[str]:
        """Names of the layers whose weights are rounded to integers."""
        return [name for name, choice in self.layers.items() if choice.weight_bits <= 8]

    def check_layers(self, known: Collection[str]) -> None:
        """Raise `InputError` with the nearest spelling where the candidate names a layer that is not ``known``."""
        for name in self.layers:
            if name not in known:
                raise InputError(f"the candidate names an unknown layer {name!r}{nearest(name, known)}")

    @cached_property
    def key(self) -> str:
        """The hash of the canonical form: equal for candidates that build the same model."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def to_json(self) -> dict[str, Any]:
        """Return the canonical JSON form (design: "A candidate")."""
        layers = {
            name: {
                key: value
                for key, value in (("weight_bits", c.weight_bits), ("activation_bits", c.activation_bits))
                if value != 32
            }
            for name, c in self.layers.items()
        }
        return {"version": VERSION, "base": self.base, "layers": layers, "repair": self.repair}

    @classmethod
    def from_json(cls, data: Any) -> Candidate:
        """Read a candidate; unknown keys and wrong values raise `InputError` with the nearest valid spelling."""
        if not isinstance(data, Mapping):
            raise InputError(f"a candidate must be a JSON object, but got {type(data).__name__}")
        _check_keys("candidate", data, ("version", "base", "layers", "groups", "repair", "student", "weights"))
        if data.get("version", VERSION) != VERSION:
            raise InputError(f"candidate version must be {VERSION}, but got {data['version']!r}")
        for later in ("groups", "student", "weights"):
            if data.get(later):
                raise InputError(f"candidate key {later!r} is not supported by this version of slimfront")
        if data.get("base", "reference") != "reference":
            raise InputError(f"candidate base must be 'reference', but got {data['base']!r}")
        layers = data.get("layers", {})
        if not isinstance(layers, Mapping):
            raise InputError(f"candidate key 'layers' must be an object of layer names, but got {layers!r}")
        return cls(
            layers={name: _layer_choice(name, choice) for name, choice in layers.items()},
            base=data.get("base", "reference"),
            repair=data.get("repair", "static"),
        )


def _layer_choice(name: str, data: Any) -> LayerChoice:
    if not isinstance(data, Mapping):
        raise InputError(f"layer {name!r}: the choice must be an object, but got {data!r}")
    _check_keys(f"layer {name!r}", data, ("weight_bits", "activation_bits", "sparsity", "form"))
    if data.get("sparsity", 0.0) != 0.0 or data.get("form", "native") != "native":
        raise InputError(f"layer {name!r}: sparsity and form are not supported by this version of slimfront")
    try:
        return LayerChoice(data.get("weight_bits", 32), data.get("activation_bits", 32))
    except InputError as error:
        raise InputError(f"layer {name!r}: {error}") from None


def _check_keys(where: str, data: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in data:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), allowed)}; allowed: {', '.join(allowed)}")
