"""Why a layer did or did not get faster, and the change that would help it most: from measured facts to plain words.

What was measured in the same file comes first. Where a time has to be foretold (a layer in integers that runs in float), it is
scaled by what integers gained in this file; only where nothing was measured, by kernel times of ONNX Runtime on one thread. On
another runtime layers in groups are expected to gain nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..spaces.candidate import DYNAMIC
from ..spaces.convolution import INPUTS, LEAST_OUTPUTS, OUTPUTS
from ..spaces.integer_ops import OPS
from ..spaces.recurrent import GATES
from .texts import time_text

NEXT_TO_NOTHING = 0.005  # of the time: half of what the ratio of two timings drifts by
FASTER = 1.15  # times: smaller differences of single kernels come and go between runs
HELD_BACK = (
    0.6  # of what integers gained in the plain layers of the same file: below it something of its own holds a layer
)
FLOAT_STEP = 16  # channels: the blocked layout of float convolutions computes in steps of this
DENSE_SPEEDUP = 3.0  # integer against float where nothing was measured: 3.0-3.9 for 1x1, 3x3, 5x5, strided, dilated
DEPTHWISE_SPEEDUP = ((9, 1.2), (25, 0.64), (49, 0.53))  # by taps at most
GROUPED_SPEEDUP = ((2, 1.7), (4, 0.8), (16, 0.26))  # by groups at most
LEAST_SPEEDUP = 0.26
DYNAMIC_SPEEDUP = 2.0  # of an LSTM: 1.2 with 64 hidden units, 1.7 to 2.1 with 128, 2.6 to 3.0 with 256
PRUNE = "prune"  # begins the name of a change that removes channels


@dataclass(frozen=True)
class LayerFacts:
    """What was measured of one layer, and what it is.

    Attributes:
        name, op: of the layer.
        kernel: "integer", "float" or "fallback" (in float, against what the candidate chose).
        integer_form: whether an integer kernel can run it at all.
        reference_ms, candidate_ms: the time of its kernels.
        share: of the time of all of the candidate's kernels, 0 to 1.
        adjacent_ms: the conversions at its borders.
        removable_ms: those of them that are there since this layer runs in float.
        added_ms: conversions that would be new if it went from float to integers or back, foretold.
        multiply_adds, reference_multiply_adds: of the candidate and of the reference.
        weight_bits, sparsity: as the candidate chose.
        inputs, outputs: channels that an output reads, and all outputs; after pruning.
        group, taps, axes: groups, kernel positions and spatial axes; 1, 1 and 0 for Gemm and MatMul.
        dilated: whether it has dilations above 1.
        dense_speedup: what integers gained in the plain layers of this candidate, for equal multiply-adds; None: not known.
        dynamic_form: whether the runtime can find the grid of its inputs at each inference.
        known_kernels: whether the runtime is ONNX Runtime: which widths and groups its kernels like is known here.
        pruning: (channel group, next ratio, what it would save in ms), or None where no channels can be removed.
    """

    name: str
    op: str
    kernel: str
    integer_form: bool
    reference_ms: float
    candidate_ms: float
    share: float
    adjacent_ms: float
    removable_ms: float
    added_ms: float
    multiply_adds: int
    reference_multiply_adds: int
    weight_bits: int
    sparsity: float
    inputs: int
    outputs: int
    group: int = 1
    taps: int = 1
    axes: int = 0
    dilated: bool = False
    dense_speedup: float | None = None
    pruning: tuple[str, float, float] | None = None
    dynamic_form: bool = False
    known_kernels: bool = True

    @property
    def depthwise(self) -> bool:
        """Whether an output reads a single channel of many."""
        return self.group > 1 and self.inputs == 1

    @property
    def plain(self) -> bool:
        """Whether its integer kernel has nothing to stumble over: no groups, and enough channels where that matters."""
        wide = self.inputs >= INPUTS and self.outputs >= LEAST_OUTPUTS
        return self.group == 1 and (wide or not self.known_kernels)

    @property
    def speedup(self) -> float:
        """Reference over candidate, the conversions at its borders left out."""
        return self.reference_ms / self.candidate_ms if self.candidate_ms > 0 else 1.0

    @property
    def kept(self) -> float:
        """The part of the multiply-adds that is left."""
        return self.multiply_adds / self.reference_multiply_adds if self.reference_multiply_adds else 1.0


@dataclass(frozen=True)
class Cause:
    """Why, in words, and what would help.

    Attributes:
        kind: names the rule.
        why: a few words.
        help: the change that would help most, "" where there is none.
        change: what the change is of: equal for changes that are made together ("integer", "float", "op Gelu", ...).
        gain_ms: what the change would save, foretold; 0 without one.
    """

    kind: str
    why: str
    help: str = ""
    change: str = ""
    gain_ms: float = 0.0


class Change(NamedTuple):
    """What might be changed, as in `Cause`."""

    change: str
    help: str
    gain_ms: float


Rule = tuple[str, Callable[[LayerFacts], bool], Callable[[LayerFacts], str]]


def layer_cause(facts: LayerFacts) -> Cause:
    """Return the first rule that holds for a layer, with the change that would save most."""
    kind, why = next((kind, words(facts)) for kind, holds, words in RULES if holds(facts))
    if kind == "small":
        return Cause(kind, why)
    options = [change for change in (_to_integer(facts), _to_float(facts)) if change is not None and change.gain_ms > 0]
    if not options and facts.pruning is not None:
        group, ratio, saved = facts.pruning
        options = [Change(f"{PRUNE} {group}", f"pruning_ratio {ratio:g} of {group}", saved)]
    if not options:
        return Cause(kind, why)
    best = max(options, key=lambda change: change.gain_ms)
    return Cause(kind, why, best.help, best.change, best.gain_ms)


def integer_speedup(facts: LayerFacts) -> float:
    """Return how much faster than in float a layer should run in integers, for equal multiply-adds."""
    if not facts.known_kernels:
        return 1.0 if facts.group > 1 else facts.dense_speedup or DENSE_SPEEDUP
    if facts.depthwise:
        return next((speedup for most, speedup in DEPTHWISE_SPEEDUP if facts.taps <= most), DEPTHWISE_SPEEDUP[-1][1])
    if facts.group > 1:
        return next((speedup for most, speedup in GROUPED_SPEEDUP if facts.group <= most), LEAST_SPEEDUP)
    dense = facts.dense_speedup or DENSE_SPEEDUP
    lacking = facts.inputs / (facts.inputs + -facts.inputs % INPUTS) * min(1.0, facts.outputs / LEAST_OUTPUTS)
    return max(1.0, dense * lacking)


def _to_integer(facts: LayerFacts) -> Change | None:
    if facts.kernel == "float" and facts.dynamic_form and not facts.integer_form:
        saved = facts.candidate_ms * (1 - 1 / DYNAMIC_SPEEDUP)
        return Change("dynamic", f"activation_bits 8 in form {DYNAMIC!r}", saved)
    if facts.kernel != "float" or not facts.integer_form:
        return None
    saved = facts.candidate_ms * (1 - 1 / integer_speedup(facts)) + facts.removable_ms
    return Change("integer", "activation_bits 8", saved - facts.added_ms)


def _to_float(facts: LayerFacts) -> Change | None:
    if facts.kernel != "integer" or facts.reference_ms <= 0:
        return None
    saved = facts.candidate_ms - facts.reference_ms * facts.kept + facts.adjacent_ms
    return Change("float", "activation_bits 32", saved - facts.added_ms)


def _held_back(facts: LayerFacts) -> bool:
    if facts.kernel != "integer":
        return False
    gained = facts.speedup * facts.kept
    return gained < max(1.0, HELD_BACK * (facts.dense_speedup or DENSE_SPEEDUP))


def _stumbles(facts: LayerFacts) -> bool:
    """Whether it is held back by what is known of its kernels."""
    return facts.known_kernels and _held_back(facts)


def _in_float(facts: LayerFacts) -> bool:
    return facts.kernel == "float"


def _lacking_form(facts: LayerFacts) -> str:
    what = {"Conv": "convolution", "ConvTranspose": "transposed convolution"}.get(facts.op, facts.op)
    if facts.op in GATES:
        way = f" but in form {DYNAMIC!r}" if facts.dynamic_form else ""
        return f"no integer kernel for {'an' if facts.op == 'LSTM' else 'a'} {facts.op}{way}"
    if facts.axes and facts.axes != 2:
        return f"no integer kernel for a {facts.axes}-D {what}"
    how = "dilated " if facts.dilated else "grouped " if facts.group > 1 else "such a "
    return f"no integer kernel for {'a ' if how != 'such a ' else ''}{how}{what}"


def _steps(facts: LayerFacts) -> str:
    odd = facts.outputs if facts.outputs % FLOAT_STEP else facts.inputs
    full = odd + -odd % FLOAT_STEP
    return f"{odd} channels take as long as {full} in float"


def _fewer(facts: LayerFacts) -> str:
    return f", {100 * (1 - facts.kept):.0f} % less work" if facts.kept < 1 else ""


def _how_much(facts: LayerFacts) -> str:
    gained = facts.speedup * facts.kept
    return "little faster" if gained >= FASTER else "slower" if gained < 1 / FASTER else "no faster"


RULES: tuple[Rule, ...] = (
    ("fallback", lambda f: f.kernel == "fallback", lambda f: "meant for integers, but the runtime runs it in float"),
    ("small", lambda f: f.share < NEXT_TO_NOTHING, lambda f: "next to nothing of the time"),
    ("no integer kernel", lambda f: _in_float(f) and not f.integer_form, _lacking_form),
    (
        "float between integers",
        lambda f: _in_float(f) and f.removable_ms > NEXT_TO_NOTHING * f.candidate_ms,
        lambda f: f"converted to float and back here: {time_text(f.removable_ms)}",
    ),
    (
        "float width",
        lambda f: (
            _in_float(f)
            and f.known_kernels
            and f.kept < 1
            and bool(f.outputs % FLOAT_STEP or (f.axes and f.group == 1 and f.inputs % FLOAT_STEP))
        ),
        _steps,
    ),
    ("float, pruned", lambda f: _in_float(f) and f.kept < 1, lambda f: f"in float{_fewer(f)}"),
    (
        "decoded",
        lambda f: _in_float(f) and f.weight_bits < 32,
        lambda f: "in float: fewer bits only shrink the file",
    ),
    ("sparse", lambda f: _in_float(f) and f.sparsity > 0, lambda f: "in float: zeros are multiplied like all"),
    ("uncompressed", _in_float, lambda f: "uncompressed, in float"),
    (
        "depthwise",
        lambda f: _stumbles(f) and f.depthwise,
        lambda f: f"{_how_much(f)}: depthwise, bound by memory",
    ),
    (
        "grouped",
        lambda f: _stumbles(f) and f.group > 1,
        lambda f: f"{_how_much(f)}: {f.group} groups, one after the other",
    ),
    (
        "few inputs",
        lambda f: _stumbles(f) and f.inputs < INPUTS,
        lambda f: f"{_how_much(f)}: only {f.inputs} input{'s'[: f.inputs > 1]}, filled up to {INPUTS}",
    ),
    (
        "few outputs",
        lambda f: (
            f.known_kernels and f.kernel == "integer" and f.axes == 2 and f.group == 1 and f.outputs < LEAST_OUTPUTS
        ),
        lambda f: f"computes {LEAST_OUTPUTS} outputs for {f.outputs}",
    ),
    (
        "odd width",
        lambda f: _stumbles(f) and f.axes == 2 and bool(f.outputs % OUTPUTS or f.inputs % INPUTS),
        lambda f: f"{f.inputs} inputs, {f.outputs} outputs, filled up to multiples of {INPUTS}",
    ),
    (
        "lone integer",
        lambda f: f.kernel == "integer" and f.adjacent_ms > max(0.0, f.reference_ms - f.candidate_ms) > 0,
        lambda f: f"faster, but its conversions cost {time_text(f.adjacent_ms)}",
    ),
    ("held back", _held_back, lambda f: f"{_how_much(f)}: little work a value{_fewer(f)}"),
    ("integer", lambda f: True, lambda f: f"in integers{_fewer(f)}"),
)


def border_cause(kind: str, due: tuple[str, str], milliseconds: float) -> Cause:
    """Return why values are converted or reordered between two layers.

    Args:
        kind: "conversion" or "layout".
        due: what is in float there, as in `attribution.Place`; of a layout the op that wants another one.
        milliseconds: what it takes.
    """
    what, name = due
    if milliseconds == 0:
        return Cause("gone", "only in the reference")
    if kind == "layout":
        return Cause("layout", f"channels moved for {name}" if name else "channels moved to another layout")
    if what == "model":
        return Cause("model", f"the model's {name} is float")
    if what == "layer":
        return Cause("float layer", f"{name} runs in float")
    return Cause(
        "float op",
        f"{name} runs in float{'' if name in (*OPS, 'MatMul') else ': it has no integer kernel'}",
        f"a model without {name} here",
        f"op {name}",
        milliseconds,
    )


def op_cause(op: str, integer: bool, reference_ms: float, candidate_ms: float, share: float) -> Cause:
    """Return why an op between the layers takes the time that it takes.

    Args:
        op: its name.
        integer: whether it runs on integers in the candidate, at least once.
        reference_ms, candidate_ms: the time of all of them.
        share: of all of the candidate's kernels.
    """
    if share < NEXT_TO_NOTHING:
        return Cause("small", "next to nothing of the time" if candidate_ms else "only in the reference")
    if reference_ms == 0:
        return Cause("unfused", "part of other kernels in the reference")
    slower = candidate_ms > FASTER * reference_ms
    if op == "MatMul":
        words = "slower in integers" if slower and integer else "no stored weights"
        return Cause("product", f"of two computed tensors: {words}")
    if op not in OPS:
        return Cause("no integer op", "in float: no integer kernel")
    if integer:
        faster = reference_ms > FASTER * candidate_ms
        return Cause(
            "integer op",
            "faster in integers" if faster else "slower in integers" if slower else "no faster in integers",
        )
    return Cause("float op here", "in float, as what is around it")
