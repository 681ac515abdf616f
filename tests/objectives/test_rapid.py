"""Sums over nodes say what the predictor says, thousands of times faster; how far they are off is known."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from slimfront.objectives import calibration
from slimfront.objectives import rapid as rapid_module
from slimfront.objectives.calibration import calibrate, draw
from slimfront.objectives.node_features import MEGA, NodeFeatures, structures
from slimfront.objectives.predictor import Predictor
from slimfront.objectives.rapid import LEAST_LEARNED, RapidPredictor
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.forms import valid_forms
from slimfront.spaces.groups import fitting
from slimfront.spaces.rules import ONNX_RUNTIME
from slimfront.spaces.space import make_space

from .machines import Machine

ALL = "abcde"


@pytest.fixture(scope="module")
def learned(residual_model, pictures):
    """A predictor that was calibrated, and sums that were learned from it."""
    from .machines import study_parts

    builder, space, feed = study_parts(residual_model, pictures(4, 1))
    predictor = Predictor(builder, Machine("rapid"))
    rapid = RapidPredictor(predictor)
    ticks = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(ticks)))  # a second is a round, or a candidate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "time", clock)
        patch.setattr(rapid_module, "time", clock)
        calibrate(predictor, space, feed, seconds=10)
        rapid.learn(space, seconds=120)
    return rapid, space


def test_candidates_that_were_not_learned_from_are_predicted_as_by_their_kernels(learned):
    rapid, space = learned
    assert len(rapid.predictor.samples) >= LEAST_LEARNED
    random = np.random.default_rng(9)
    drawn = [fitting(rapid.graph, draw(space, random)) for _ in range(90)]
    asked = [candidate for candidate in drawn if not rapid.predictor.knows(candidate)][:30]
    assert len(asked) == 30
    found = rapid.predict(asked)
    exact = np.array([rapid.predictor.predict(candidate).speedup for candidate in asked])
    missed = np.log(found.speedup / exact)
    assert np.sqrt(np.mean(missed**2)) < 0.08  # kernels, and where they change with the widths, are the processor's
    assert np.corrcoef(found.speedup, exact)[0, 1] > 0.98
    assert np.mean((found.low <= exact) & (exact <= found.high)) >= 0.9


def test_the_error_is_what_the_sums_really_miss(learned):
    rapid, space = learned
    random = np.random.default_rng(11)
    asked = [draw(space, random) for _ in range(30)]
    exact = [rapid.predictor.predict(candidate).speedup for candidate in asked]
    missed = float(np.sqrt(np.mean(np.log(rapid.predict(asked).speedup / exact) ** 2)))
    assert 0.3 * missed < rapid.error < 3 * missed


def test_intervals_hold_what_the_sums_miss_beside_what_the_predictor_does(learned):
    rapid, _ = learned
    candidate = Candidate(dict.fromkeys(ALL, LayerChoice(4, 8)), {"b": 0.5})
    found, exact = rapid.predict([candidate]), rapid.predictor.predict(candidate)
    assert found.low[0] < found.speedup[0] < found.high[0]
    assert np.log(found.high[0] / found.low[0]) > 0.8 * np.log(exact.high / exact.low)


def test_one_and_many_give_the_same(learned):
    rapid, space = learned
    random = np.random.default_rng(3)
    asked = [draw(space, random) for _ in range(20)]
    together = rapid.predict(asked).speedup
    assert np.allclose(together, [rapid.predict([candidate]).speedup[0] for candidate in asked])


def test_more_integers_and_fewer_channels_are_faster(learned):
    rapid, _ = learned
    none = Candidate()
    some = Candidate(dict.fromkeys("bc", LayerChoice(8, 8)))
    every = Candidate(dict.fromkeys(ALL, LayerChoice(8, 8)))
    narrow = Candidate(dict.fromkeys(ALL, LayerChoice(8, 8)), {"b": 0.75})
    speedups = rapid.predict([none, some, every, narrow]).speedup
    assert speedups.tolist() == sorted(speedups)
    assert speedups[0] == pytest.approx(1.0, abs=0.05)


def test_structures_name_what_decides_the_kernels(learned):
    rapid, _ = learned
    found = structures(
        rapid.graph, [Candidate({"a": LayerChoice(4, 8), "c": LayerChoice(4)}, {"b": 0.5})], ONNX_RUNTIME
    )
    assert found.integer.tolist() == [[name == "a" for name in rapid.graph.layers]]
    assert found.removed.sum() == 16 and found.forms == [()]
    for wrong in (Candidate({"z": LayerChoice(8, 8)}), Candidate(groups={"z": 0.5})):
        with pytest.raises(InputError, match="z"):
            rapid.predict([wrong])


def test_a_layer_without_an_integer_kernel_and_a_wrong_form_are_told(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,4,8,8] x) => (float[n,c,h,w] y) {'
        " [k] y = ConvTranspose<group=2, strides=[2,2]>(x, w) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w"))
    onnx.save(model, tmp_path / "model.onnx")
    graph = capture_onnx(tmp_path / "model.onnx")
    with pytest.raises(BuildError, match="no integer kernel"):
        structures(graph, [Candidate({"k": LayerChoice(8, 8)})], ONNX_RUNTIME)
    with pytest.raises(InputError, match="phases"):
        structures(graph, [Candidate({"k": LayerChoice(8, 32, form="phases")})], ONNX_RUNTIME)


BRANCHES = (
    '<ir_version: 8, opset_import: ["": 21]> g (float[1,3,16,16] x) => (float[n,c,h,w] y) <float[4] f = {1, 1, 2, 2}> {'
    "[a] p = Conv<pads=[1,1,1,1]>(x, wa) [c] q = Conv(p, wc) [d] r = Conv(q, wc)"
    ' u = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(r, , f)'
    " [b] s = Conv<pads=[1,1,1,1]>(u, wb) [e] t = Conv(u, we) v = Add(s, t) g = GlobalAveragePool(v) h = Flatten(g)"
    " [m] i = MatMul(h, wm) j = Reshape(i, k) l = Mul(v, j) [o] y = Conv(l, wo) }"
)


@pytest.fixture
def branches(tmp_path, pictures):
    """A predictor that met candidates of a network with an upsampling that two layers read, shared weights and a product."""
    model, random = onnx.parser.parse_model(BRANCHES), np.random.default_rng(0)
    shapes = {
        "wa": (16, 3, 3, 3),
        "wc": (16, 16, 1, 1),
        "wb": (16, 16, 3, 3),
        "we": (16, 16, 1, 1),
        "wo": (3, 16, 1, 1),
    }
    for name, size in (shapes | {"wm": (16, 16)}).items():
        weight = random.standard_normal(size).astype(np.float32)
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(weight / np.float32(np.sqrt(np.prod(size[1:]))), name)
        )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 16, 1, 1]), "k"))
    onnx.save(model, tmp_path / "model.onnx")
    builder = Builder(capture_onnx(tmp_path / "model.onnx"), {"x": pictures(4, 1)}, rounding="plain")
    return Predictor(builder, Machine("branches"))


def test_forms_shared_weights_products_and_neighbours_of_neighbours_are_told_apart(branches):
    random = np.random.default_rng(0)
    assert valid_forms(branches.builder.graph, branches.builder.graph.layers["b"]) == ("native", "phases")

    def drawn(form):
        bits = {name: 8 if random.random() < 0.5 else 32 for name in branches.builder.graph.layers}
        return Candidate({name: LayerChoice(8, b, form=form if name == "b" else "native") for name, b in bits.items()})

    for _ in range(30):
        for form in ("native", "phases"):
            branches.kernels(drawn(form))
    rapid = RapidPredictor(branches)
    asked = [drawn(form) for _ in range(15) for form in ("native", "phases")]
    exact = np.array([branches.predict(candidate).speedup for candidate in asked])
    assert np.sqrt(np.mean(np.log(rapid.predict(asked).speedup / exact) ** 2)) < 0.1


def test_what_was_never_learned_is_predicted_by_its_kernels(branches):
    """Nothing was met in integers, nor in phases: sums over nodes know nothing of it, and say so."""
    for bits in (8, 32):
        branches.kernels(Candidate({"a": LayerChoice(bits, 32)}))
    rapid = RapidPredictor(branches)
    asked = [Candidate({"c": LayerChoice(8, 8)}), Candidate({"b": LayerChoice(8, 32, form="phases")}), Candidate()]
    found = rapid.predict_structures(structures(rapid.graph, asked, ONNX_RUNTIME)).speedup
    assert np.isnan(found).tolist() == [True, True, False]
    exact = [branches.predict(candidate) for candidate in asked[:2]]
    told = rapid.predict(asked)
    assert told.speedup[:2].tolist() == [each.speedup for each in exact]
    assert told.low[:2].tolist() == [each.low for each in exact] and told.high[:2].tolist() == [
        each.high for each in exact
    ]


def test_a_depthwise_layer_takes_time_with_its_channels_not_with_their_square(tmp_path):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,3,16,16] x) => (float[n,c,h,w] y) {'
        "[a] p = Conv(x, wa) [d] q = Conv<group=16, pads=[1,1,1,1]>(p, wd) [b] y = Conv(q, wb) }"
    )
    for name, size in {"wa": (16, 3, 1, 1), "wd": (16, 1, 3, 3), "wb": (3, 16, 1, 1)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(size, np.float32), name))
    onnx.save(model, tmp_path / "model.onnx")
    graph = capture_onnx(tmp_path / "model.onnx")
    candidates = [Candidate(), Candidate(groups={"a": 0.5})]
    features = NodeFeatures(graph, {}, ONNX_RUNTIME)
    whole, half = features.of(structures(graph, candidates, ONNX_RUNTIME))[features.names.index("d")]
    work = 9 * 256 / MEGA
    assert {16 * work, 8 * work} == {whole[np.isclose(whole, 16 * work)][0], half[np.isclose(half, 8 * work)][0]}
    assert not np.isclose(half, 4 * work).any()


def test_a_small_space_is_learned_as_a_whole(parts, ticking):
    """Four kinds of candidates: the sums are what the kernels say, and nobody waits for more."""
    builder, _, feed = parts
    held = {name: {"weight_bits": 8, "activation_bits": 32 if name in "ab" else 8} for name in "abcd"}
    space = make_space(builder.graph, weight_bits=(8,), fixed=held)
    predictor = Predictor(builder, Machine("small"))
    calibrate(predictor, make_space(builder.graph, weight_bits=(8,)), feed, seconds=2)
    rapid = RapidPredictor(predictor)
    rapid.learn(space, seconds=1e6)
    asked = [sample.candidate for sample in predictor.samples.values()]
    exact = [predictor.predict(candidate).speedup for candidate in asked]
    assert rapid.predict(asked).speedup == pytest.approx(exact, rel=0.1)


def test_no_candidates_are_no_predictions(learned):
    assert len(learned[0].predict([]).speedup) == 0
