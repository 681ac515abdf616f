"""A candidate: one point of the space. Pure data, hashable, JSON; what is absent is uncompressed."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from typing import Any

from .errors import InputError, nearest

VERSION = 1
CANONICAL = {"version", "base", "layers", "repair"}  # keys of every candidate in JSON
WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8, 16, 32)
ACTIVATION_BITS = (8, 32)
REPAIRS = ("static", "sequential")
NATIVE = "native"  # a layer written as it came
DYNAMIC = "dynamic"  # in integers, the grid of its inputs found at each inference (`dynamic`)
FORM_NAMES = (NATIVE, "phases", DYNAMIC)  # what the others are: `forms`
REFERENCE = "reference"  # the base that every study has
CONTENT = re.compile("sha256:[0-9a-f]{64}")  # of another base's graph, and of trained weights
SHARE_DIGITS = 6  # of ratios and sparsities: enough for groups of any size


@dataclass(frozen=True, order=True)
class LayerChoice:
    """How one layer is compressed.

    Attributes:
        weight_bits: 2-8, 16 or 32.
        activation_bits: 8 or 32.
        sparsity: the fraction of single weights that are zero, from 0 to below 1.
        form: the way the layer is written: "native", or one that trades size for time (`forms`).
    """

    weight_bits: int = 32
    activation_bits: int = 32
    sparsity: float = 0.0
    form: str = NATIVE

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
        object.__setattr__(self, "sparsity", share("sparsity", self.sparsity))
        if self.form not in FORM_NAMES:
            near = nearest(self.form, FORM_NAMES) if isinstance(self.form, str) else ""
            raise InputError(f"form must be one of {', '.join(FORM_NAMES)}, but got {self.form!r}{near}")
        if self.form == DYNAMIC and not self.integer:
            raise InputError(
                f"form {DYNAMIC!r} needs activation_bits 8, but got activation_bits {self.activation_bits}"
            )

    @property
    def integer(self) -> bool:
        """Whether the layer runs in integer kernels."""
        return self.activation_bits == 8

    @property
    def calibrated(self) -> bool:
        """Whether the layer runs in integer kernels on inputs whose grid calibration data chose."""
        return self.integer and self.form != DYNAMIC

    @property
    def rounded(self) -> bool:
        """Whether the weights are rounded to integers."""
        return self.weight_bits <= 8


def share(name: str, value: object) -> float:
    """Return a pruning ratio or sparsity as a number.

    Raises:
        InputError: it is no number from 0 to below 1.
    """
    number = not isinstance(value, bool) and isinstance(value, (int, float)) and 0.0 <= value < 1.0
    rounded = round(float(value), SHARE_DIGITS) if number else 1.0  # type: ignore[arg-type]
    if rounded >= 1.0:
        raise InputError(f"{name} must be a number from 0 to below 1, but got {value!r}")
    return rounded


UNCOMPRESSED = LayerChoice()


def _is_uncompressed(choice: LayerChoice) -> bool:
    return choice.weight_bits == 32 and choice == UNCOMPRESSED  # the first tells nearly all apart, in no time


@dataclass(frozen=True)
class Candidate:
    """One point of the space.

    Attributes:
        layers: choices by layer name; a layer that is absent is uncompressed.
        groups: pruning ratios by channel group; a group that is absent keeps all its channels.
        base: "reference", or "sha256:..." of another graph that the run holds.
        student: the parameters of the base's architecture, where it is a student; for people: the base says it all.
        repair: how rounding and pruning are made good: "static" or "sequential".
        weights: "sha256:..." of trained weights that replace the built ones; empty where there are none.
    """

    layers: Mapping[str, LayerChoice] = field(default_factory=dict)
    groups: Mapping[str, float] = field(default_factory=dict)
    base: str = REFERENCE
    repair: str = "static"
    weights: str = ""
    student: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key, value, other in (("weights", self.weights, ""), ("base", self.base, REFERENCE)):
            if value != other and not (isinstance(value, str) and CONTENT.fullmatch(value)):
                or_else = f"{other!r}, or " if other else ""
                raise InputError(f"{key} must be {or_else}'sha256:' and 64 hexadecimal digits, but got {value!r}")
        if self.repair not in REPAIRS:
            raise InputError(f"repair must be one of {', '.join(REPAIRS)}, but got {self.repair!r}")
        kept = {name: choice for name, choice in sorted(self.layers.items()) if not _is_uncompressed(choice)}
        object.__setattr__(self, "layers", kept)
        ratios = {name: share("pruning_ratio", ratio) for name, ratio in sorted(self.groups.items())}
        object.__setattr__(self, "groups", {name: ratio for name, ratio in ratios.items() if ratio})
        if not self.repaired:
            object.__setattr__(self, "repair", "static")  # nothing is to be made good: the two are the same model

    def choice(self, layer: str) -> LayerChoice:
        """Return the layer's choice; uncompressed where the candidate does not name it."""
        return self.layers.get(layer, UNCOMPRESSED)

    @property
    def rounded(self) -> list[str]:
        """Names of the layers whose weights are rounded to integers."""
        return [name for name, choice in self.layers.items() if choice.rounded]

    @property
    def is_reference(self) -> bool:
        """Whether this is the study's own model as it came."""
        return self == Candidate()

    @property
    def uncompressed(self) -> Candidate:
        """The base as it is."""
        return Candidate(base=self.base, student=self.student)

    @property
    def repaired(self) -> bool:
        """Whether weights are changed (rounded, zeroed or removed), so that there is something to be made good."""
        return bool(self.groups) or any(choice.rounded or choice.sparsity for choice in self.layers.values())

    @property
    def rewritten(self) -> bool:
        """Whether a build may write float nodes in another form: not where the reference is only stored in 16 bits."""
        return self.repaired or any(choice.form != NATIVE for choice in self.layers.values())

    def ratio(self, group: str) -> float:
        """Return the group's pruning ratio; 0 where the candidate does not name it."""
        return self.groups.get(group, 0.0)

    def check_layers(self, known: Collection[str]) -> None:
        """Raise `InputError` with the nearest spelling where the candidate names a layer that is not ``known``."""
        for name in self.layers:
            if name not in known:
                raise InputError(f"the candidate names an unknown layer {name!r}{nearest(name, known)}")

    @cached_property
    def key(self) -> str:
        """The hash of the canonical form: equal for candidates that build the same model."""
        data = {key: value for key, value in self.to_json().items() if key != "student"}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Candidate) and self.key == other.key

    def to_json(self) -> dict[str, Any]:
        """Return the canonical JSON form (design: "A candidate")."""
        layers = {name: dict(_choice_json(choice)) for name, choice in self.layers.items()}
        groups = {name: {"pruning_ratio": ratio} for name, ratio in self.groups.items()}
        data = {"version": VERSION, "base": self.base, "layers": layers, "groups": groups, "repair": self.repair}
        if self.weights:
            data["weights"] = self.weights
        if self.student:
            data["student"] = dict(self.student)
        return data if groups else {key: value for key, value in data.items() if key != "groups"}

    @classmethod
    def from_json(cls, data: Any) -> Candidate:
        """Read a candidate; unknown keys and wrong values raise `InputError` with the nearest valid spelling."""
        if not isinstance(data, Mapping):
            raise InputError(f"a candidate must be a JSON object, but got {type(data).__name__}")
        _check_keys("candidate", data, ("version", "base", "layers", "groups", "repair", "student", "weights"))
        if data.get("version", VERSION) != VERSION:
            raise InputError(f"candidate version must be {VERSION}, but got {data['version']!r}")
        student = data.get("student") or {}
        if not isinstance(student, Mapping):
            raise InputError(f"candidate key 'student' must be an object, but got {student!r}")
        layers, groups = data.get("layers", {}), data.get("groups", {})
        for key, value, of in (("layers", layers, "layer"), ("groups", groups, "group")):
            if not isinstance(value, Mapping):
                raise InputError(f"candidate key {key!r} must be an object of {of} names, but got {value!r}")
        return cls(
            layers={name: _layer_choice(name, choice) for name, choice in layers.items()},
            groups={name: _ratio(name, choice) for name, choice in groups.items()},
            base=data.get("base", REFERENCE),
            repair=data.get("repair", "static"),
            weights=_weights(data.get("weights", "")),
            student=dict(student),
        )

    @classmethod
    def from_canonical(cls, data: Mapping[str, Any], key: str) -> Candidate:
        """Read what `to_json` wrote, many times as fast as `from_json`: only the values of choices are checked.

        Args:
            data: as `to_json` wrote it.
            key: what it was kept under, by this version; it is not worked out again.
        """
        if data.keys() - {"groups"} != CANONICAL or (data["version"], data["base"]) != (VERSION, REFERENCE):
            return cls.from_json(data)
        choices = map(_choices.__getitem__, map(tuple, map(dict.items, data["layers"].values())))
        layers = dict(zip(map(sys.intern, data["layers"]), choices, strict=True))
        groups = {name: choice["pruning_ratio"] for name, choice in data.get("groups", {}).items()}
        candidate = cls.__new__(cls)
        own = {"layers": layers, "groups": groups, "base": data["base"], "repair": data["repair"]}
        own |= {"weights": "", "student": {}}
        vars(candidate).update(own, key=key)
        return candidate


@lru_cache(maxsize=4096)
def _choice_json(choice: LayerChoice) -> tuple[tuple[str, Any], ...]:
    """Return what a choice has that the uncompressed one has not."""
    return tuple((key, value) for key, value in asdict(choice).items() if value != getattr(UNCOMPRESSED, key))


class _Choices(dict[tuple[tuple[str, Any], ...], LayerChoice]):
    """Choices by what `to_json` writes of them: there are few, and many candidates name them."""

    def __missing__(self, data: tuple[tuple[str, Any], ...]) -> LayerChoice:
        self[data] = LayerChoice(**dict(data))
        return self[data]


_choices = _Choices()


def _weights(data: Any) -> str:
    if not isinstance(data, str):
        raise InputError(f"candidate key 'weights' must be a text, but got {data!r}")
    return data


def _layer_choice(name: str, data: Any) -> LayerChoice:
    if not isinstance(data, Mapping):
        raise InputError(f"layer {name!r}: the choice must be an object, but got {data!r}")
    _check_keys(f"layer {name!r}", data, ("weight_bits", "activation_bits", "sparsity", "form"))
    try:
        return LayerChoice(**data)
    except InputError as error:
        raise InputError(f"layer {name!r}: {error}") from None


def _ratio(name: str, data: Any) -> float:
    if not isinstance(data, Mapping):
        raise InputError(f"group {name!r}: the choice must be an object, but got {data!r}")
    _check_keys(f"group {name!r}", data, ("pruning_ratio",))
    try:
        return share("pruning_ratio", data.get("pruning_ratio", 0.0))
    except InputError as error:
        raise InputError(f"group {name!r}: {error}") from None


def _check_keys(where: str, data: Mapping[str, Any], allowed: tuple[str, ...]) -> None:
    for key in data:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}{nearest(str(key), allowed)}; allowed: {', '.join(allowed)}")
