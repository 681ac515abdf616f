"""Explain: kernels of a real ONNX Runtime go to the layers that they work for, and all times are accounted for."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.attribution import Place, attribute, stored_bytes
from slimfront.spaces.build import Builder, Built
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import InputError
from slimfront.spaces.forms import formed
from slimfront.spaces.graph import Graph
from slimfront.spaces.kernels import Kernel
from slimfront.spaces.space import make_space
from slimfront.studies.causes import LayerFacts
from slimfront.studies.layer_facts import Measured, layer_facts
from slimfront.studies.run import Run

INTEGER, FLOAT = LayerChoice(8, 8), LayerChoice()
PADS = "pads=[1,1,1,1]"
IMAGE = "(float[1,16,12,12] x) => (float[1,{0},12,12] y)"


class Placed(NamedTuple):
    graph: Graph
    built: Built
    kernels: list[Kernel]
    places: list[Place]

    def of(self, kind: str) -> set[str]:
        return {place.name for place in self.places if place.kind == kind}

    def ops(self, layer: str) -> list[str]:
        pairs = zip(self.kernels, self.places, strict=True)
        return [kernel.short_op for kernel, place in pairs if place == Place("layer", layer)]


@pytest.fixture
def place(tmp_path: Path) -> Callable[..., Placed]:
    """A function (text, choices, **weight shapes) that builds a candidate of a graph and places the kernels of its file."""

    def placed(text: str, choices: dict[str, LayerChoice], **shapes: tuple[int, ...]) -> Placed:
        random = np.random.default_rng(0)
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 21]> g {text}')
        for name, shape in shapes.items():
            weight = random.standard_normal(shape) / np.sqrt(max(1, np.prod(shape[1:])))
            model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
        onnx.save(model, tmp_path / "captured.onnx")
        graph = capture_onnx(tmp_path / "captured.onnx")
        [port] = graph.inputs
        samples = {port.name: random.standard_normal((4 * port.shape[0], *port.shape[1:])).astype(np.float32)}
        built = Builder(graph, samples).build(Candidate(choices))
        built.save(tmp_path / "built.onnx")
        kernels = OnnxRuntime().kernels(tmp_path / "built.onnx", {port.name: port.shape})
        return Placed(graph, built, kernels, attribute(kernels, built, graph))

    return placed


def facts_of(placed: Placed) -> dict[str, LayerFacts]:
    """The facts of each layer, where every kernel takes a millisecond."""
    measured = Measured(placed.kernels, placed.places, np.ones(len(placed.kernels)), 0.0)
    space = make_space(placed.graph)
    found = layer_facts(placed.graph, placed.graph, placed.built.candidate, space, measured, measured)
    return {fact.name: fact for fact in found}


SAME = f"Conv<{PADS}>"
CHAIN = (
    IMAGE.format(16)
    + f"{{ [a] p = {SAME}(x, w1) q = Relu(p) [b] r = {SAME}(q, w2) s = Relu(r) [c] y = {SAME}(s, w3) }}"
)
CHAIN_WEIGHTS = {f"w{i}": (16, 16, 3, 3) for i in (1, 2, 3)}
SUM = (
    IMAGE.format(16)
    + f"{{ [a] p = {SAME}(x, w1) [b] q = {SAME}(p, w2) r = Add(p, q) s = Relu(r) [c] y = {SAME}(s, w3) }}"
)
TOKENS = (
    "(float[1,40,24] x) => (float[1,40,8] y)"
    "{ [a] p = MatMul(x, w1) q = Add(p, v1) g = Gelu(q) [b] r = MatMul(g, w2) y = Add(r, v2) }"
)
TOKEN_WEIGHTS = {"w1": (24, 32), "v1": (32,), "w2": (32, 8), "v2": (8,)}
TWICE = IMAGE.format(16) + f"{{ [a] p = {SAME}(x, w1) q = Relu(p) [b] y = {SAME}(q, w1) }}"
DEPTHWISE = IMAGE.format(16) + "{ [a] p = Conv<pads=[3,3,3,3], group=16>(x, w1) q = Relu(p) [b] y = Conv(q, w2) }"
GROUPED = IMAGE.format(16) + f"{{ [a] p = Conv<{PADS}, group=4>(x, w1) q = Sigmoid(p) [b] y = Conv(q, w2) }}"
UPSCALED = (
    "(float[1,16,12,12] x) => (float[1,16,24,24] y)"
    f"{{ [a] p = ConvTranspose<{PADS}, strides=[2,2]>(x, w1) [b] y = Conv(p, w2) }}"
)
EDGES = f"(float[1,3,64,64] x) => (float[1,6,64,64] y) {{ [a] p = {SAME}(x, w1) q = Relu(p) [b] y = {SAME}(q, w2) }}"
ENLARGED = (
    "(float[1,16,12,12] x) => (float[1,16,24,24] y)"
    f"{{ [a] p = {SAME}(x, w1)"
    ' u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(p, , f)'
    f" [b] q = {SAME}(u, w2) r = Relu(q) [c] y = {SAME}(r, w3) }}"
).replace("=> (float[1,16,24,24] y)", "=> (float[1,16,24,24] y) <float[4] f = {1, 1, 2, 2}>")
GRAPHS = {
    "a chain": (CHAIN, CHAIN_WEIGHTS),
    "a sum": (SUM, CHAIN_WEIGHTS),
    "tokens": (TOKENS, TOKEN_WEIGHTS),
    "weights used twice": (TWICE, {"w1": (16, 16, 3, 3)}),
    "depthwise": (DEPTHWISE, {"w1": (16, 1, 7, 7), "w2": (16, 16, 1, 1)}),
    "grouped": (GROUPED, {"w1": (16, 4, 3, 3), "w2": (16, 16, 1, 1)}),
    "transposed": (UPSCALED, {"w1": (16, 16, 4, 4), "w2": (16, 16, 1, 1)}),
    "few inputs and outputs": (EDGES, {"w1": (16, 3, 3, 3), "w2": (6, 16, 3, 3)}),
}


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("choice", [FLOAT, LayerChoice(4, 32), INTEGER], ids=["reference", "decoded", "integer"])
def test_each_layer_gets_its_own_product_and_no_other(name: str, choice: LayerChoice, place: Callable[..., Placed]):
    text, weights = GRAPHS[name]
    layers = ["a"] if text == TWICE else [letter for letter in "abc" if f"[{letter}]" in text]
    placed = place(text, dict.fromkeys(layers, choice), **weights)
    products = Counter(
        at.name for kernel, at in zip(placed.kernels, placed.places, strict=True) if kernel.is_product and kernel.weight
    )
    assert products == {layer: len(placed.graph.layers[layer].nodes) for layer in layers}
    assert placed.of("layer") == set(layers)
    kinds = {fact.kernel for fact in facts_of(placed).values()}
    assert kinds == {"integer" if choice.integer else "float"}


def test_a_float_layer_between_integer_ones_owes_the_conversions_on_both_sides(place: Callable[..., Placed]):
    placed = place(CHAIN, {"a": INTEGER, "b": FLOAT, "c": INTEGER}, **CHAIN_WEIGHTS)
    conversions = {(at.layers, at.due) for at in placed.places if at.kind == "conversion"}
    assert conversions == {
        (("", "a"), ("model", "input")),
        (("a", "b"), ("layer", "b")),
        (("b", "c"), ("layer", "b")),
        (("c", ""), ("model", "output")),
    }
    facts = facts_of(placed)
    assert facts["b"].kernel == "float"
    assert facts["b"].removable_ms >= 2
    assert facts["b"].added_ms == 0
    assert facts["a"].removable_ms == facts["c"].removable_ms == 0


def test_an_op_without_an_integer_kernel_owes_the_conversions_around_it(place: Callable[..., Placed]):
    text = CHAIN.replace("Relu(p)", "Gelu(p)")
    placed = place(text, dict.fromkeys("abc", INTEGER), **CHAIN_WEIGHTS)
    due = {at.layers: at.due for at in placed.places if at.kind == "conversion"}
    assert due[("a", "b")] == ("op", "Gelu")
    assert "Gelu" in placed.of("op")


def test_filled_up_and_cut_widths_belong_to_the_layer(place: Callable[..., Placed]):
    text, weights = GRAPHS["few inputs and outputs"]
    placed = place(text, dict.fromkeys("ab", INTEGER), **weights)
    assert "Pad" in placed.ops("a")
    assert "Slice" in placed.ops("b")
    assert not placed.of("op")


def test_the_pixel_shuffle_of_a_transposed_convolution_belongs_to_it(place: Callable[..., Placed]):
    text, weights = GRAPHS["transposed"]
    placed = place(text, dict.fromkeys("ab", INTEGER), **weights)
    assert {"QLinearConv", "Transpose", "Slice"} <= set(placed.ops("a"))
    assert not placed.of("op")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("(float[1,8,40] x) => (float[1,8,40] y) { [a] y = Conv<pads=[1,1]>(x, w1) }", (8, 8, 3)),
        ("(float[1,8,9,9] x) => (float[1,8,13,13] y) { [a] y = ConvTranspose<dilations=[2,2]>(x, w1) }", (8, 8, 3, 3)),
    ],
    ids=["1-D", "dilated transposed"],
)
def test_a_layer_without_an_integer_kernel_is_known_as_one(
    text: str, shape: tuple[int, ...], place: Callable[..., Placed]
):
    facts = facts_of(place(text, {"a": LayerChoice(4, 32)}, w1=shape))["a"]
    assert (facts.kernel, facts.integer_form) == ("float", False)
    assert facts.axes == len(shape) - 2


def test_stored_bytes_are_those_of_the_packed_weights(place: Callable[..., Placed]):
    bits = {"a": 8, "b": 4, "c": 2}
    placed = place(CHAIN, {name: LayerChoice(width, 8) for name, width in bits.items()}, **CHAIN_WEIGHTS)
    stored = stored_bytes(placed.built, placed.graph)
    weights = 16 * 16 * 9
    for name, width in bits.items():
        assert weights * width / 8 <= stored[name] <= weights * width / 8 + 16 * 8 + 200
    assert sum(stored.values()) < placed.built.size_bytes


# --- a whole run ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(study_folder: Path, tmp_path: Path) -> Run:
    from slimfront.search.loop import search
    from slimfront.studies.study import load_study

    return search(load_study(study_folder), trials=3, run_dir=tmp_path / "run")


def test_explain_gives_plain_data_whose_times_add_up(run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("slimfront.studies.explain.MOST_ROUNDS", 5)
    trial = next(trial for trial in run.trials if trial.candidate.layers)
    explained = run.explain(trial.number)
    assert json.loads(json.dumps(explained, allow_nan=False)) == explained
    assert (explained["trial"], explained["speedup"]) == (trial.number, trial.value("speedup"))
    assert {layer["name"] for layer in explained["layers"]} == {"conv0", "conv1", "conv2"}
    for end, overhead in (("reference_ms", "reference_overhead_ms"), ("candidate_ms", "overhead_ms")):
        rows = [*explained["layers"], *explained["between"]]
        assert sum(row[end] for row in rows) + explained[overhead] == pytest.approx(explained[end])
    assert sum(row["share"] for row in rows) == pytest.approx(1.0)
    slowest = [layer["candidate_ms"] for layer in explained["layers"]]
    assert slowest == sorted(slowest, reverse=True)
    assert explained["advice"].endswith(".")
    for layer in explained["layers"]:
        assert layer["why"]
        assert layer["multiply_adds"] == layer["reference_multiply_adds"]
        assert layer["kernel"] == ("integer" if trial.candidate.choice(layer["name"]).integer else "float")
        assert layer["kernels"]


def test_multiply_adds_are_those_of_the_channels_that_stay(run: Run, monkeypatch: pytest.MonkeyPatch):
    from slimfront.studies import explain

    monkeypatch.setattr(explain, "MOST_ROUNDS", 5)
    study = run.load()
    built = study.builder.build(Candidate({}, {"conv0": 0.5}))
    trial = replace(run.reference, number=7, candidate=Candidate({}, {"conv0": 0.5}), sha256=built.sha256)
    layers = {layer["name"]: layer for layer in explain.explain(run, trial)["layers"]}
    left = {name: layer["multiply_adds"] / layer["reference_multiply_adds"] for name, layer in layers.items()}
    assert left == {"conv0": 0.5, "conv1": 0.5, "conv2": 1.0}


def test_a_failed_trial_says_its_reason(run: Run):
    failed = replace(run.reference, number=5, state="failed", reason="an output has NaN")
    with pytest.raises(InputError, match=r"trial 5 .* failed \(an output has NaN\)"):
        run.explain(failed)


def test_a_run_whose_study_is_gone_says_so(run: Run, study_folder: Path):
    (study_folder / "study.toml").unlink()
    with pytest.raises(InputError, match=r"study"):
        run.explain(1)


@pytest.mark.parametrize("bits", [8, 32])
def test_a_layer_in_phases_takes_the_upsampling_up(bits, place):
    """Its product reads the small image: fewer multiply-adds, and no time is left for an upsampling."""
    native = place(ENLARGED, dict.fromkeys("abc", LayerChoice(8, bits)), **CHAIN_WEIGHTS)
    phases = {**dict.fromkeys("ac", LayerChoice(8, bits)), "b": LayerChoice(8, bits, form="phases")}
    found = place(ENLARGED, phases, **CHAIN_WEIGHTS)
    assert len(native.kernels) > 3 and {"Resize", "Upsample", "Concat"} & native.of("op")
    assert not {"Resize", "Upsample"} & found.of("op")
    products = [kernel for kernel in found.kernels if kernel.is_product]
    assert len(products) == 3 and found.of("layer") == set("abc")
    narrow = formed(found.graph, {"b": "phases"})
    measured = Measured(found.kernels, found.places, np.ones(len(found.kernels)), 0.0)
    facts = layer_facts(found.graph, narrow, found.built.candidate, make_space(found.graph), measured, measured)
    facts = {fact.name: fact for fact in facts}
    assert facts["b"].multiply_adds * 9 == facts["b"].reference_multiply_adds * 4
    assert facts["b"].kernel == ("integer" if bits == 8 else "float") and facts["b"].candidate_ms > 0
    assert facts["a"].multiply_adds == facts["a"].reference_multiply_adds
