"""Which ways of running a layer pay: decided from times, measured once for a machine and a kind of layer."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slimfront.objectives import layer_speed
from slimfront.objectives.layer_speed import WayTime, layer_offers
from slimfront.objectives.runtimes import make_target
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.offers import Offer
from slimfront.spaces.single import single_layer

from . import packed

NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """Convolutions "first" and "second", alike; upsampling; "up"; a product "mix" of the width."""
    random = np.random.default_rng(0)
    shapes = {"w1": (16, 16, 3, 3), "w2": (16, 16, 3, 3), "w3": (16, 16, 3, 3), "w4": (24, 10)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "w2"], ["b"], "second", pads=[1] * 4),
        helper.make_node("Resize", ["b", "", "f"], ["u"], "resize", **NEAREST),
        helper.make_node("Conv", ["u", "w3"], ["c"], "up", pads=[1] * 4),
        helper.make_node("MatMul", ["c", "w4"], ["y"], "mix"),
    ]
    made = helper.make_graph(
        nodes,
        "kinds",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 12, 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 24, 10])],
        [
            *(numpy_helper.from_array(random.random(shape, np.float32), name) for name, shape in shapes.items()),
            numpy_helper.from_array(np.float32([1, 1, 2, 2]), "f"),
        ],
    )
    path = tmp_path_factory.mktemp("speed") / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return capture_onnx(path, None)


def test_layers_of_a_kind_are_cut_out_alike(graph):
    digests = {name: single_layer(graph, layer).digest for name, layer in graph.layers.items()}
    assert digests["first"] == digests["second"] and len(set(digests.values())) == 3
    up = single_layer(graph, graph.layers["up"])
    assert up.inputs[0].shape == (1, 16, 12, 12) and up.outputs[0].shape == (1, 16, 24, 24)


def test_a_large_image_is_measured_in_a_smaller_one(graph, monkeypatch):
    from slimfront.spaces import single

    monkeypatch.setattr(single, "MOST_WORK", 1e5)
    monkeypatch.setattr(single, "LEAST_SIDE", 4)
    assert single_layer(graph, graph.layers["first"]).inputs[0].shape == (1, 16, 6, 6)


def test_real_kernels_are_timed_in_every_way(graph):
    ways = layer_speed._times(single_layer(graph, graph.layers["up"]), OnnxRuntime())
    assert set(ways) == {(form, bits) for form in ("native", "phases") for bits in (8, 32)}
    assert all(way.core > 0 for way in ways.values())
    assert all(ways[form, 8].entering > 0 and ways[form, 8].leaving > 0 for form in ("native", "phases"))
    product = layer_speed._times(single_layer(graph, graph.layers["mix"]), OnnxRuntime())
    assert set(product) == {("native", 8), ("native", 32), ("dynamic", 8)} and product["native", 8].entering > 0


@pytest.mark.parametrize("runtime", packed.RUNTIMES)
def test_a_layer_is_timed_in_the_ways_that_a_runtime_s_files_store(graph, runtime):
    for module in packed.MODULES[runtime]:
        pytest.importorskip(module)
    target = make_target(runtime)
    ways = layer_speed._times(single_layer(graph, graph.layers["first"]), target)
    assert set(ways) == {("native", 8), ("native", 32)} and all(way.core > 0 for way in ways.values())


FEED = {"x": np.zeros((1, 16, 12, 12), np.float32)}


def decided(monkeypatch, graph, times, whole=(1.1, 1.1)) -> dict[str, Offer]:
    """Return the offers where every layer takes these times: (core, entering, leaving) by (form, bits).

    The whole model takes ``whole`` times as long with slower layers in integers, beside integer and beside float layers.
    """
    asked = []

    def measured(single, *_):
        asked.append(single.digest)
        layer = next(iter(single.layers.values()))
        forms = OnnxRuntime().rules.forms(single, layer)
        return {way: WayTime(*time) for way, time in times.items() if way[0] in forms}

    monkeypatch.setattr(layer_speed, "_times", measured)
    monkeypatch.setattr(layer_speed, "_whole_ratios", lambda *_: list(whole))
    machine = f"machine {times} {whole}"
    offers = layer_offers(graph, OnnxRuntime(machine), FEED)
    assert layer_offers(graph, OnnxRuntime(machine), FEED) == offers
    assert len(asked) == len(set(asked)) == 3  # each kind of layer once, however often it is asked
    return offers


@pytest.mark.parametrize(
    ("integer", "plain", "faster"),
    [(0.5, 0.7, {8: 0.5, 32: 0.7}), (0.5, 0.97, {8: 0.5}), (1.3, 0.9, {32: 0.9}), (0.96, 1.0, {})],
)
def test_a_form_is_offered_where_it_is_clearly_faster(integer, plain, faster, graph, monkeypatch):
    native = {("native", 8): (1.0, 0.1, 0.1), ("native", 32): (1.0, 0.1, 0.1)}
    offers = decided(
        monkeypatch, graph, native | {("phases", 8): (integer, 0.1, 0.1), ("phases", 32): (plain, 0.1, 0.1)}
    )
    assert set(offers) == ({"up"} if faster else set())
    if faster:
        assert offers["up"].integer
        assert offers["up"].forms["phases"].times == pytest.approx(faster)
        assert offers["up"].forms["phases"].size == pytest.approx(16 / 9)


@pytest.mark.parametrize(
    ("integer", "pays"),
    [
        ((0.5, 0.1, 0.1), True),
        ((1.05, 0.5, 0.5), True),  # slower between float neighbours, faster between integer ones
        ((3.0, 0.1, 0.1), False),
        ((1.15, 0.01, 0.01), False),
        ((1.05, 0.0, 0.0), True),  # not clearly slower
    ],
)
def test_integers_are_not_offered_where_they_are_slower_between_any_neighbours(integer, pays, graph, monkeypatch):
    times = {(form, 8): integer for form in ("native", "phases")}
    times |= {(form, 32): (1.0, 0.0, 0.0) for form in ("native", "phases")}
    offers = decided(monkeypatch, graph, times)
    assert set(offers) == (set() if pays else set(graph.layers))
    assert all(not offer.integer for offer in offers.values())


@pytest.mark.parametrize(("whole", "pays"), [((1.2, 1.01), False), ((0.99, 1.2), True), ((1.2, 0.99), True)])
def test_the_whole_model_has_to_confirm_that_integers_are_slower(whole, pays, graph, monkeypatch):
    times = {(form, 8): (2.0, 0.1, 0.1) for form in ("native", "phases")}
    times |= {(form, 32): (1.0, 0.0, 0.0) for form in ("native", "phases")}
    offers = decided(monkeypatch, graph, times, whole)
    assert set(offers) == (set() if pays else set(graph.layers))


def test_the_whole_model_is_really_run_and_a_form_stays_where_integers_are_offered_again(graph, monkeypatch):
    ratios = layer_speed._whole_ratios(graph, ["second"], ["first", "up"], FEED, OnnxRuntime())
    assert len(ratios) == 2 and all(0 < ratio < np.inf for ratio in ratios)
    times = {("native", 8): (2.0, 0.1, 0.1), ("native", 32): (1.0, 0.0, 0.0)}
    times |= {("phases", 8): (1.5, 0.1, 0.1), ("phases", 32): (0.5, 0.0, 0.0)}
    offers = decided(monkeypatch, graph, times, whole=(0.9, 0.9))
    assert offers["up"].integer and set(offers["up"].forms) == {"phases"} and set(offers) == {"up"}


def test_what_the_whole_model_cannot_tell_is_not_held_against_integers(graph, monkeypatch):
    from slimfront.spaces.errors import BuildError

    def fails(*_, **__):
        raise BuildError("no such kernel")

    times = {(form, bits): (2.0 if bits == 8 else 1.0, 0.0, 0.0) for form in ("native", "phases") for bits in (8, 32)}
    monkeypatch.setattr(layer_speed, "_times", lambda single, *_: {
        way: WayTime(*time) for way, time in times.items()
        if way[0] in OnnxRuntime().rules.forms(single, next(iter(single.layers.values())))
    })  # fmt: skip
    monkeypatch.setattr(layer_speed, "_whole_ratios", fails)
    assert layer_offers(graph, OnnxRuntime("a machine where the whole model fails"), FEED) == {}
    monkeypatch.setattr(layer_speed, "_whole_ratios", lambda *_: pytest.fail("that it fails is known"))
    assert layer_offers(graph, OnnxRuntime("a machine where the whole model fails"), FEED) == {}


def test_a_layer_that_does_not_run_takes_no_part_in_the_whole_model(graph, monkeypatch):
    from slimfront.spaces.errors import BuildError

    def measured(single, *_):
        layer = next(iter(single.layers.values()))
        if layer.op == "MatMul":
            raise BuildError("no such kernel")
        ways = [(form, bits) for form in ("native", "phases") for bits in (8, 32)]
        return {way: WayTime(2.0 if way[1] == 8 and layer.channels == 16 else 1.0, 0.0, 0.0) for way in ways}

    asked = []
    monkeypatch.setattr(layer_speed, "_times", measured)
    monkeypatch.setattr(
        layer_speed, "_whole_ratios", lambda _, names, others, *__: asked.append((names, others)) or [2, 2]
    )
    offers = layer_offers(graph, OnnxRuntime("a machine without a kernel for mix"), FEED)
    assert asked == [(["first", "second", "up"], [])] and "mix" not in offers


def test_a_layer_that_does_not_run_is_left_as_it_is(graph, monkeypatch):
    from slimfront.spaces.errors import BuildError

    def fails(*_):
        raise BuildError("no such kernel")

    monkeypatch.setattr(layer_speed, "_times", fails)
    assert layer_offers(graph, OnnxRuntime("a machine that fails"), FEED) == {}


@pytest.mark.parametrize(
    ("dynamic", "calibrated", "offered"),
    [(0.5, (0.5, 0.1, 0.1), 0.5), (0.5, (0.4, 0.0, 0.05), None), (0.97, (2.0, 0.1, 0.1), None)],
)
def test_grids_found_at_each_inference_are_offered_where_they_beat_float_and_calibrated_ones(
    dynamic, calibrated, offered, graph, monkeypatch
):
    times = {("native", 8): calibrated, ("native", 32): (1.0, 0.0, 0.0), ("dynamic", 8): (dynamic, 0.0, 0.0)}
    offers = decided(monkeypatch, graph, times)
    assert ("mix" in offers and "dynamic" in offers["mix"].forms) == (offered is not None)
    if offered is not None:
        assert (
            offers["mix"].forms["dynamic"].times == pytest.approx({8: offered})
            and offers["mix"].forms["dynamic"].size == 1.0
        )


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_a_recurrent_layer_is_cut_out_and_timed(op, tmp_path):
    gates = {"LSTM": 4, "GRU": 3}[op]
    random = np.random.default_rng(0)
    made = helper.make_graph(
        [helper.make_node(op, ["x", "w", "r"], ["", "y"], "core", hidden_size=16)],
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 2, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 16])],
        [
            numpy_helper.from_array(random.random((1, 16 * gates, width), np.float32) - 0.5, name)
            for name, width in (("w", 8), ("r", 16))
        ],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    graph = capture_onnx(path)
    times = layer_speed._times(single_layer(graph, graph.layers["core"]), OnnxRuntime())
    assert set(times) == {("native", 32)} | ({("dynamic", 8)} if op == "LSTM" else set())
    assert all(way.core > 0 for way in times.values())
