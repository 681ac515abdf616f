"""Why a layer is as fast as it is: the rules on given facts, so that no machine decides a test."""

from __future__ import annotations

from typing import Any

import pytest

from slimfront.studies.advice import WORTH, advice, between_sentence, pruning_rows
from slimfront.studies.causes import LayerFacts, border_cause, integer_speedup, layer_cause, op_cause

PLAIN: dict[str, Any] = {
    "name": "conv",
    "op": "Conv",
    "kernel": "integer",
    "integer_form": True,
    "reference_ms": 12.0,
    "candidate_ms": 4.0,
    "share": 0.2,
    "adjacent_ms": 0.0,
    "removable_ms": 0.0,
    "added_ms": 0.0,
    "multiply_adds": 600,
    "reference_multiply_adds": 600,
    "weight_bits": 8,
    "sparsity": 0.0,
    "inputs": 64,
    "outputs": 64,
    "taps": 9,
    "axes": 2,
    "dense_speedup": 3.0,
}
UNCOMPRESSED = {"kernel": "float", "weight_bits": 32, "candidate_ms": 12.0}
SLOWER = {"candidate_ms": 15.0}


def facts(**changes: Any) -> LayerFacts:
    return LayerFacts(**{**PLAIN, **changes})


@pytest.mark.parametrize(
    ("changes", "kind", "told"),
    [
        ({}, "integer", "in integers"),
        ({"multiply_adds": 150, "candidate_ms": 1.0}, "integer", "75 % less work"),
        ({"kernel": "fallback"}, "fallback", "the runtime runs it in float"),
        ({"share": 0.001}, "small", "next to nothing of the time"),
        ({"kernel": "float", "integer_form": False, "axes": 1, "taps": 3}, "no integer kernel", "1-D convolution"),
        (
            {"kernel": "float", "integer_form": False, "op": "ConvTranspose", "dilated": True},
            "no integer kernel",
            "dilated transposed convolution",
        ),
        (
            {"kernel": "float", "integer_form": False, "op": "ConvTranspose", "group": 2},
            "no integer kernel",
            "grouped transposed convolution",
        ),
        ({**UNCOMPRESSED, "removable_ms": 3.0}, "float between integers", "converted to float and back here: 3.00 ms"),
        (
            {**UNCOMPRESSED, "multiply_adds": 300, "outputs": 20},
            "float width",
            "20 channels take as long as 32 in float",
        ),
        ({**UNCOMPRESSED, "multiply_adds": 300, "outputs": 32}, "float, pruned", "in float, 50 % less work"),
        ({**UNCOMPRESSED, "weight_bits": 4}, "decoded", "fewer bits only shrink the file"),
        ({**UNCOMPRESSED, "sparsity": 0.5}, "sparse", "zeros are multiplied"),
        (UNCOMPRESSED, "uncompressed", "uncompressed, in float"),
        ({**SLOWER, "group": 64, "inputs": 1, "taps": 49}, "depthwise", "slower: depthwise, bound by memory"),
        ({**SLOWER, "group": 4, "inputs": 16}, "grouped", "slower: 4 groups, one after the other"),
        ({"candidate_ms": 12.0, "inputs": 3}, "few inputs", "no faster: only 3 inputs, filled up to 4"),
        ({"candidate_ms": 6.0, "outputs": 3}, "few outputs", "computes 16 outputs for 3"),
        ({"candidate_ms": 10.0, "inputs": 30}, "odd width", "filled up to multiples of 4"),
        ({"candidate_ms": 10.0, "adjacent_ms": 3.0}, "lone integer", "its conversions cost 3.00 ms"),
        ({"candidate_ms": 10.0, "taps": 1}, "held back", "little faster: little work a value"),
    ],
)
def test_the_first_rule_that_holds_gives_the_reason(changes: dict[str, Any], kind: str, told: str):
    cause = layer_cause(facts(**changes))
    assert cause.kind == kind
    assert told in cause.why


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({**UNCOMPRESSED, "multiply_adds": 300, "outputs": 20}, "float, pruned"),
        ({**SLOWER, "group": 64, "inputs": 1, "taps": 49}, "held back"),
        ({**SLOWER, "group": 4, "inputs": 16}, "held back"),
        ({"candidate_ms": 12.0, "inputs": 3}, "held back"),
        ({"candidate_ms": 4.0, "outputs": 3}, "integer"),
        ({"candidate_ms": 11.0, "inputs": 30}, "held back"),
    ],
)
def test_of_kernels_that_are_not_known_no_widths_and_groups_are_told(changes: dict[str, Any], kind: str):
    found = facts(**{"dense_speedup": 2.0, **changes}, known_kernels=False)
    assert layer_cause(found).kind == kind
    assert integer_speedup(found) == (1.0 if found.group > 1 else 2.0)


def test_a_pruned_layer_is_as_fast_as_its_work_lets_expect():
    """A quarter of the work in a quarter of the time has gained nothing from integers."""
    assert layer_cause(facts(multiply_adds=150, candidate_ms=3.0)).kind == "held back"
    assert layer_cause(facts(multiply_adds=150, candidate_ms=1.0)).kind == "integer"


def test_in_integers_a_float_layer_saves_time_and_its_conversions():
    cause = layer_cause(facts(**UNCOMPRESSED, removable_ms=2.0, dense_speedup=3.0))
    assert (cause.change, cause.help) == ("integer", "activation_bits 8")
    assert cause.gain_ms == pytest.approx(12.0 * 2 / 3 + 2.0)
    assert layer_cause(facts(**UNCOMPRESSED, added_ms=20.0)).change == ""


def test_a_layer_slower_in_integers_helps_in_float_unless_conversions_eat_it():
    cause = layer_cause(facts(**SLOWER, group=4, inputs=16, added_ms=1.0))
    assert (cause.change, cause.gain_ms) == ("float", pytest.approx(2.0))
    assert layer_cause(facts(**SLOWER, group=4, inputs=16, added_ms=4.0)).help == ""


def test_where_nothing_else_helps_channels_do():
    cause = layer_cause(facts(pruning=("conv", 0.25, 1.5)))
    assert (cause.change, cause.help, cause.gain_ms) == ("prune conv", "pruning_ratio 0.25 of conv", 1.5)


def test_depthwise_and_grouped_layers_are_not_expected_to_gain_like_others():
    assert integer_speedup(facts(dense_speedup=2.0)) == 2.0
    assert integer_speedup(facts(dense_speedup=None)) == 3.0
    large, small = (integer_speedup(facts(group=64, inputs=1, taps=taps)) for taps in (49, 9))
    assert large < 1 < small
    assert integer_speedup(facts(group=16, inputs=4)) < 1 < integer_speedup(facts(group=2, inputs=32))
    assert integer_speedup(facts(outputs=3)) == 1.0


@pytest.mark.parametrize(
    ("kind", "due", "told"),
    [
        ("conversion", ("model", "input"), "the model's input is float"),
        ("conversion", ("layer", "conv2"), "conv2 runs in float"),
        ("conversion", ("op", "Gelu"), "Gelu runs in float: it has no integer kernel"),
        ("conversion", ("op", "Add"), "Add runs in float"),
        ("layout", ("op", "DepthToSpace"), "channels moved for DepthToSpace"),
        ("layout", ("op", ""), "another layout"),
    ],
)
def test_a_border_says_whose_fault_it_is(kind: str, due: tuple[str, str], told: str):
    assert told in border_cause(kind, due, 1.0).why
    assert border_cause(kind, due, 0.0).why == "only in the reference"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("Softmax", False, 2.0, 2.0, 0.1), "no integer kernel"),
        (("MatMul", True, 2.0, 4.0, 0.1), "two computed tensors: slower in integers"),
        (("Concat", True, 4.0, 1.0, 0.1), "faster in integers"),
        (("Add", True, 1.0, 2.0, 0.1), "slower in integers"),
        (("Add", True, 0.0, 2.0, 0.1), "part of other kernels in the reference"),
        (("Resize", False, 1.0, 1.0, 0.1), "as what is around it"),
        (("Resize", False, 1.0, 0.1, 0.001), "next to nothing"),
        (("Resize", False, 1.0, 0.0, 0.0), "only in the reference"),
    ],
)
def test_an_op_between_the_layers_has_a_reason_too(arguments: tuple[Any, ...], told: str):
    assert told in op_cause(*arguments).why


def row(name: str, change: str, gain_ms: float) -> dict[str, Any]:
    return {"name": name, "change": change, "help": f"help of {change}", "gain_ms": gain_ms}


def test_advice_adds_up_layers_that_change_alike_and_tells_time_and_percent():
    told = advice([row(name, "integer", 5.0) for name in "abcd"], 100.0)
    assert told == "Run a, b, c and 1 more in integers (help of integer): about 20.0 ms of 100 ms (20 %) should go."


def test_advice_prefers_what_costs_no_quality():
    rows = [row("a", "float", 3.0), row("b", "prune b", 30.0)]
    assert advice(rows, 100.0).startswith("Leave a in float")
    assert advice(rows[1:], 100.0).startswith("Remove channels")
    assert "at some loss of quality" in advice(rows[1:], 100.0)


def test_a_channel_group_saves_once_however_many_layers_tell_of_it():
    assert "30.0 ms" in advice([row(name, "prune g", 30.0) for name in "abc"], 100.0)


def test_advice_says_where_no_single_change_is_worth_it():
    assert advice([row("a", "integer", 0.9 * WORTH * 100)], 100.0).startswith("No single change")
    assert advice([], 100.0).startswith("No single change")


def test_small_layers_of_a_group_that_saves_much_are_heard():
    small = facts(share=0.001, pruning=("g", 0.5, 40.0))
    assert layer_cause(small).help == ""
    assert "pruning_ratio 0.5 of g" in advice(pruning_rows([small, small]), 100.0)


def test_much_time_between_the_layers_is_named():
    between = [{"name": "Softmax", "candidate_ms": 30.0}, {"name": "Gelu", "candidate_ms": 5.0}]
    assert "35 % of the time" in between_sentence(between, 100.0)
    assert "Softmax 30.0 ms, Gelu 5.00 ms" in between_sentence(between, 100.0)
    assert between_sentence(between, 1000.0) == ""
