"""Calibration: what it profiles, when it ends, and how well the predictor knows a machine with known times behind it."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.objectives import calibration
from slimfront.objectives.calibration import calibrate, draw
from slimfront.objectives.predictor import Predictor
from slimfront.objectives.protocol import Reading
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import BuildError
from slimfront.spaces.space import make_space

from .machines import Machine, speedup

pytestmark = pytest.mark.usefixtures("ticking")


def test_a_calibrated_predictor_knows_candidates_that_it_has_not_met(parts, tmp_path):
    """Predictions lie within a few percent of the truth, and 90 % intervals cover about what they say."""
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("held out"))
    count = calibrate(predictor, space, feed, seconds=14)
    assert 18 <= count <= 3 * 14 and predictor.calibrated
    random = np.random.default_rng(123)
    errors, covered = [], 0
    for _ in range(40):
        candidate = draw(space, random)
        found, true = predictor.predict(candidate), speedup(predictor, candidate, tmp_path)
        errors.append(abs(np.log(found.speedup / true)))
        covered += found.low <= true <= found.high
        assert found.low <= found.speedup <= found.high
    assert np.median(errors) < 0.02 and np.quantile(errors, 0.9) < 0.05
    assert covered >= 32
    assert predictor.error is not None and predictor.error < 0.2


def test_the_way_from_a_kernel_to_the_next_is_learned_from_whole_models(parts, tmp_path):
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("links", link_ms=0.004))
    calibrate(predictor, space, feed, seconds=5)
    random = np.random.default_rng(7)
    drawn = list(dict.fromkeys(draw(space, random) for _ in range(30)))
    truths = {candidate: speedup(predictor, candidate, tmp_path) for candidate in drawn}
    shown, held = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]

    def error():
        return np.mean([abs(np.log(predictor.predict(candidate).speedup / truths[candidate])) for candidate in held])

    before = error()
    for candidate in shown:
        true = truths[candidate]
        predictor.learn(candidate, Reading(true, "x", 0.99 * true, 1.01 * true))
    assert error() < 0.75 * before


def test_a_machine_that_drifts_does_not_move_the_table(parts):
    """Each profile's times are divided by how much slower the reference ran in turn with it."""
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("drift"))
    calibrate(predictor, space, feed, seconds=5)
    keys = list(predictor.kernels(Candidate()))
    spreads = [np.std(np.log(predictor.times.kernels[key].ms)) for key in keys]
    assert np.median(spreads) < 0.04, "the machine itself moved by 20 %"


def test_those_are_profiled_first_that_are_known_least(parts):
    builder, space, feed = parts
    predictor = Predictor(builder, Machine("least sure"))
    calibrate(predictor, space, feed, seconds=2)
    drawn = [draw(space, np.random.default_rng(seed)) for seed in range(12)]
    chosen = calibration._least_sure(predictor, [*drawn, Candidate(), *drawn])
    spreads = [prediction.spread for _, prediction in chosen]
    others = [predictor.predict(c).spread for c in drawn if c not in [candidate for candidate, _ in chosen]]
    assert len(chosen) == calibration.AT_ONCE and spreads == sorted(spreads, reverse=True)
    assert spreads[-1] >= max(others, default=0.0)
    assert Candidate() not in [candidate for candidate, _ in chosen]


def test_a_second_calibration_starts_from_what_the_first_one_learned(parts):
    builder, space, feed = parts
    first = Predictor(builder, Machine("twice"))
    calibrate(first, space, feed, seconds=7)
    again = Predictor(builder, Machine("twice"))
    assert again.outcomes == first.outcomes
    calibrate(again, space, feed, seconds=2)
    missed = [abs(outcome.missed or 0.0) for outcome in again.outcomes[len(first.outcomes) :]]
    assert missed and max(missed) < 0.1, "its very first predictions are close"


def test_a_space_whose_candidates_all_run_the_kernels_of_the_reference_is_left_at_once(parts):
    builder, _, feed = parts
    machine = Machine("nothing to learn")
    space = make_space(builder.graph, weight_bits=(16, 32), activation_bits=(32,))
    assert calibrate(Predictor(builder, machine), space, feed, seconds=1e6) == 0
    assert machine.profiled == 0


def test_candidates_that_cannot_be_built_are_left_out(parts, monkeypatch):
    builder, space, feed = parts
    skeleton = builder.skeleton

    def broken(candidate):
        if candidate.choice("a").integer:
            raise BuildError("no kernel for it")
        return skeleton(candidate)

    monkeypatch.setattr(builder, "skeleton", broken)
    predictor = Predictor(builder, Machine("broken"))
    assert calibrate(predictor, space, feed, seconds=3) > 0


def test_draws_reach_from_all_float_to_all_integer_and_from_whole_to_pruned(parts):
    _, space, _ = parts
    random = np.random.default_rng(0)
    drawn = [draw(space, random) for _ in range(60)]
    assert all(space.contains(candidate) for candidate in drawn)
    integer = [sum(choice.integer for choice in candidate.layers.values()) for candidate in drawn]
    assert min(integer) == 0 and max(integer) == len(space.choices)
    assert {len(candidate.groups) for candidate in drawn} >= {0, len(space.pruned)}
    assert Candidate({"a": LayerChoice(8, 8)}).layers["a"] in space.choices["a"]


def test_progress_is_told_up_to_the_end(parts):
    builder, space, feed = parts
    told = []
    calibrate(Predictor(builder, Machine("progress")), space, feed, 3, lambda what, part: told.append((what, part)))
    assert told and all(what == "latency predictor" and 0.0 < part <= 1.0 for what, part in told)
    assert [part for _, part in told] == sorted(part for _, part in told)
