"""The space of candidates: for every layer and channel group the choices that the search may make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from .candidate import ACTIVATION_BITS, DYNAMIC, REFERENCE, REPAIRS, WEIGHT_BITS, Candidate, LayerChoice, share
from .errors import InputError, nearest, some_of
from .forms import FORMS
from .graph import Graph, Layer
from .groups import channel_groups
from .held import CHOICE_KEYS, held_choices
from .offers import Offer
from .rules import ONNX_RUNTIME, Rules
from .widths import STEP, offered_ratios

HALF_A_CHANNEL = 0.02  # ratios that differ by less are called the same

DEFAULT_WEIGHT_BITS = (2, 3, 4, 5, 6, 8, 32)
UNIFORM_KEYS = ("weight_bits", "activation_bits", "pruning_ratio", "sparsity", "repair")

Option = LayerChoice | float


@dataclass(frozen=True)
class Axis:
    """One thing to choose: bits, sparsity and form of a layer, or the pruning ratio of a channel group."""

    name: str
    options: tuple[Option, ...]
    is_group: bool = False

    @property
    def label(self) -> str:
        """A name that no other axis has."""
        return f"{self.name} pruning_ratio" if self.is_group else self.name

    def of(self, candidate: Candidate) -> Option:
        """Return what a candidate chose."""
        return candidate.ratio(self.name) if self.is_group else candidate.choice(self.name)


@dataclass(frozen=True)
class Space:
    """The choices of a graph's layers and channel groups; one that has a single choice is fixed.

    Attributes:
        choices: by layer name.
        ratios: pruning ratios by channel group.
        base, student: of the candidates (`Candidate`).
        offers: what was measured of layers, by name.
    """

    choices: Mapping[str, tuple[LayerChoice, ...]]
    ratios: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    offers: Mapping[str, Offer] = field(default_factory=dict)
    base: str = REFERENCE
    student: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def axes(self) -> tuple[Axis, ...]:
        """All layers, then all groups."""
        layers = [Axis(name, choices) for name, choices in self.choices.items()]
        return (*layers, *(Axis(name, ratios, is_group=True) for name, ratios in self.ratios.items()))

    @property
    def varies(self) -> bool:
        """Whether there is anything to search."""
        return any(len(axis.options) > 1 for axis in self.axes)

    @cached_property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(axis.options) for axis in self.axes)

    @property
    def rounded(self) -> list[str]:
        """Names of the layers whose weights may be rounded to integers."""
        return [name for name, choices in self.choices.items() if any(choice.rounded for choice in choices)]

    @property
    def formed(self) -> dict[str, list[str]]:
        """By form, names of the layers that may be rounded in it."""
        found: dict[str, list[str]] = {}
        for name in self.rounded:
            for form in self.forms_of(name):
                found.setdefault(form, []).append(name)
        return found

    def forms_of(self, layer: str) -> list[str]:
        """Return the forms that a layer may be rounded in, beside what "native" and "dynamic" share."""
        forms = (choice.form for choice in self.choices[layer] if choice.rounded)
        return [form for form in dict.fromkeys(forms) if form in FORMS]

    def relative(self, layer: str, choice: LayerChoice) -> tuple[float, float]:
        """Return the weights and the time of a choice's form in parts of those of the native one, as far as is known."""
        form = self.offers.get(layer, Offer()).forms.get(choice.form)
        return (1.0, 1.0) if form is None else (form.size, form.times.get(choice.activation_bits, 1.0))

    @property
    def pruned(self) -> list[str]:
        """Names of the channel groups that may lose channels."""
        return [name for name, ratios in self.ratios.items() if any(ratios)]

    def contains(self, candidate: Candidate) -> bool:
        """Whether the search could have proposed this candidate."""
        known = (
            candidate.base == self.base
            and candidate.repair == "static"
            and not candidate.weights
            and all(name in self.choices for name in candidate.layers)
        )
        known = known and all(name in self.ratios for name in candidate.groups)
        return known and all(axis.of(candidate) in axis.options for axis in self.axes)

    def candidate(
        self, layers: Mapping[str, LayerChoice] | None = None, groups: Mapping[str, float] | None = None
    ) -> Candidate:
        """Return a candidate of the base."""
        return Candidate(layers or {}, groups or {}, self.base, student=self.student)

    def make(self, options: Iterable[tuple[Axis, Option]]) -> Candidate:
        """Return the candidate that takes these options."""
        layers: dict[str, LayerChoice] = {}
        groups: dict[str, float] = {}
        for axis, option in options:
            if isinstance(option, LayerChoice):
                layers[axis.name] = option
            else:
                groups[axis.name] = option
        return self.candidate(layers, groups)


def make_space(
    graph: Graph,
    *,
    weight_bits: Sequence[int] = DEFAULT_WEIGHT_BITS,
    activation_bits: Sequence[int] = ACTIVATION_BITS,
    pruning_ratios: Sequence[float] = (0.0,),
    sparsities: Sequence[float] = (0.0,),
    fixed: Mapping[str, Mapping[str, Any]] | None = None,
    saturation_safe: bool = False,
    step: int = STEP,
    offers: Mapping[str, Offer] | None = None,
    rules: Rules = ONNX_RUNTIME,
) -> Space:
    """Return the space of a graph: what each layer's op can have, and the ratios that lead to widths the kernels like.

    Args:
        weight_bits, activation_bits, pruning_ratios, sparsities: what the study offers.
        fixed: choices by layer (or group) name or glob; where several match, the last one counts, an exact name most. What
            a choice does not name of bits and sparsity is uncompressed; a pruning ratio alone leaves the layer free.
        saturation_safe: integer layers get at most 7 bits, so that no product saturates on machines without VNNI.
        step: of output channels in which kernels get cheaper (`widths.offered_ratios`).
        offers: by layer, what was measured to be worth offering; elsewhere integer arithmetic and no form. Forms are offered
            where bits vary. A choice that is held may have any form that its layer can take.
        rules: of the runtime.

    Raises:
        InputError: a value that does not exist, a fixed layer that the graph has not, no valid pair for a layer.
    """
    for bits, allowed, key in (
        (weight_bits, WEIGHT_BITS, "weight_bits"),
        (activation_bits, ACTIVATION_BITS, "activation_bits"),
    ):
        wrong = [value for value in bits if value not in allowed]
        if wrong or not bits:
            raise InputError(f"space.{key}: {list(bits)} is not a choice of {', '.join(map(str, allowed))}")
    shares = tuple(dict.fromkeys(share("space.sparsities", value) for value in sparsities)) or (0.0,)
    wanted = tuple(dict.fromkeys(share("space.pruning_ratios", value) for value in pruning_ratios)) or (0.0,)
    held, held_ratios = held_choices(graph, fixed or {}, rules)
    choices: dict[str, tuple[LayerChoice, ...]] = {}
    offers = offers or {}
    vary = len(set(weight_bits)) > 1 or len(set(activation_bits)) > 1
    for name, layer in graph.layers.items():
        if name in held:
            choices[name] = (held[name],)
            continue
        pairs = _pairs(graph, layer, weight_bits, activation_bits, saturation_safe, rules)
        if not pairs:
            raise InputError(_no_pair(layer, weight_bits, activation_bits, rules))
        offer = offers.get(name, Offer())
        pairs = (() if offer.integer else tuple(pair for pair in pairs if not pair.integer)) or pairs
        zeros = sorted(shares) if rules.can_be_sparse(layer) else [0.0]
        native = tuple(replace(pair, sparsity=value) for value in zeros for pair in pairs)
        more = _in_forms(native, offer) if vary else ()
        if vary and DYNAMIC in offer.forms and 8 in activation_bits:
            more += _dynamic(weight_bits, zeros, saturation_safe)
        choices[name] = native + more
    ratios = {
        name: (held_ratios[name],) if name in held_ratios else offered_ratios(group, graph.layers, wanted, step)
        for name, group in channel_groups(graph).groups.items()
    }
    return Space(choices, ratios, offers)


def _in_forms(choices: Iterable[LayerChoice], offer: Offer) -> tuple[LayerChoice, ...]:
    """Return the choices in the forms that are faster for them."""
    return tuple(
        replace(choice, form=name)
        for name, form in offer.forms.items()
        for choice in choices
        if name != DYNAMIC and choice.activation_bits in form.times
    )


def _dynamic(weight_bits: Sequence[int], sparsities: Sequence[float], saturation_safe: bool) -> tuple[LayerChoice, ...]:
    """Return the choices in the form "dynamic", which takes integer weights whatever the native form takes."""
    most = _most_integer_bits(saturation_safe)
    widths = [bits for bits in sorted(set(weight_bits)) if bits <= most]
    return tuple(LayerChoice(bits, 8, value, DYNAMIC) for value in sparsities for bits in widths)


def _most_integer_bits(saturation_safe: bool) -> int:
    return 7 if saturation_safe else 8


def _pairs(
    graph: Graph,
    layer: Layer,
    weight_bits: Sequence[int],
    activation_bits: Sequence[int],
    saturation_safe: bool,
    rules: Rules,
) -> tuple[LayerChoice, ...]:
    most = _most_integer_bits(saturation_safe)
    able = layer_activation_bits(graph, layer, rules)
    pairs = (
        LayerChoice(bits, activation)
        for activation in sorted(set(activation_bits) & set(able))
        for bits in sorted(set(weight_bits))
        if activation == 32 or bits <= most
    )
    return tuple(pair for pair in pairs if rules.stores(pair))


def _no_pair(layer: Layer, weight_bits: Sequence[int], activation_bits: Sequence[int], rules: Rules) -> str:
    """Return what to say where a layer can have nothing that a study offers."""
    able = [f"weight_bits {list(widths)} with {bits}" for bits, widths in rules.stored.items() if widths != WEIGHT_BITS]
    stored = f"; files for {rules.runtime} store {', '.join(able)}" if able else ""
    return (
        f"space: no pair of weight_bits {list(weight_bits)} and activation_bits {list(activation_bits)} "
        f"fits layer {layer.name!r} ({layer.op}); add activation_bits 32{stored}"
    )


def layer_activation_bits(graph: Graph, layer: Layer, rules: Rules = ONNX_RUNTIME) -> tuple[int, ...]:
    """Return the activation bits that a layer can have: (8, 32), or (32,) where no integer kernel can run it."""
    return rules.activation_bits(graph, layer)


def parse_uniform(text: str) -> dict[str, Any]:
    """Read ``weight_bits=4,activation_bits=8,pruning_ratio=0.25,repair=static``.

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
        values[key] = value if key == "repair" else _number(key, value)
    if not values:
        raise InputError(f"--uniform needs values, as in weight_bits=4,activation_bits=8, but got {text!r}")
    return values


def _number(key: str, text: str) -> int | float:
    if key in ("weight_bits", "activation_bits"):
        if text.isdecimal():
            return int(text)
        raise InputError(f"--uniform: {key} must be a whole number, but got {text!r}")
    try:
        return share(f"--uniform: {key}", float(text))
    except ValueError:
        raise InputError(f"--uniform: {key} must be a number from 0 to below 1, but got {text!r}") from None


def uniform(graph: Graph, values: Mapping[str, Any], rules: Rules = ONNX_RUNTIME) -> tuple[Candidate, list[str]]:
    """Return the candidate that gives every layer and group the same choice, and notes on those that cannot have it.

    Args:
        values: any of weight_bits, activation_bits, pruning_ratio, sparsity, repair; what is absent is uncompressed.
        rules: of the runtime.

    Raises:
        InputError: an unknown key, or a choice that no layer could have.
    """
    for key in values:
        if key not in UNIFORM_KEYS:
            raise InputError(
                f"uniform: unknown key {key!r}{nearest(key, UNIFORM_KEYS)}; allowed: {', '.join(UNIFORM_KEYS)}"
            )
    wanted = LayerChoice(**{key: values[key] for key in CHOICE_KEYS if key in values})
    ratio = share("pruning_ratio", values.get("pruning_ratio", 0.0))
    repair = values.get("repair", "static")
    if repair not in REPAIRS:
        raise InputError(f"repair must be one of {', '.join(REPAIRS)}, but got {repair!r}")
    layers: dict[str, LayerChoice] = {}
    floats, dense, wider = [], [], []
    for name, layer in graph.layers.items():
        layers[name] = wanted
        if wanted.activation_bits not in layer_activation_bits(graph, layer, rules):
            layers[name] = replace(layers[name], activation_bits=32)
            floats.append(name)
        if wanted.sparsity and not rules.can_be_sparse(layer):
            layers[name] = replace(layers[name], sparsity=0.0)
            dense.append(name)
        if not rules.stores(layers[name]):
            layers[name] = _as_stored(layers[name], rules)
            wider.append(f"{name} {layers[name].weight_bits}")
    channels = channel_groups(graph)
    groups = {name: group.ratio(group.kept(ratio)) for name, group in channels.groups.items()} if ratio else {}
    notes = [f"no integer kernel, so activation_bits is 32: {', '.join(floats)}"] if floats else []
    notes += [f"no sparse form, so sparsity is 0: {', '.join(dense)}"] if dense else []
    notes += [f"files for {rules.runtime} store more bits, so weight_bits is: {some_of(wider)}"] if wider else []
    if ratio:
        notes += _ratio_notes(ratio, groups, channels.frozen)
    return Candidate(layers, groups, repair=repair), notes


def _as_stored(choice: LayerChoice, rules: Rules) -> LayerChoice:
    """Return a choice with the next more weight bits that files store; in float where integer kernels have none."""
    wider = [bits for bits in rules.stored[choice.activation_bits] if bits >= choice.weight_bits]
    return replace(choice, weight_bits=min(wider)) if wider else LayerChoice()


def _ratio_notes(ratio: float, groups: Mapping[str, float], frozen: Mapping[str, str]) -> list[str]:
    """Say which groups cannot have a ratio."""
    notes = []
    if not groups:
        notes.append("no channels can be removed from this model, so pruning_ratio is 0")
    elif frozen:
        notes.append(f"all channels stay in {', '.join(frozen)} (slimfront space says why)")
    other = [f"{name} {found:g}" for name, found in groups.items() if abs(found - ratio) > HALF_A_CHANNEL]
    if other:
        notes.append(f"whole blocks of channels go, so pruning_ratio is not {ratio:g} but: {some_of(other)}")
    return notes
