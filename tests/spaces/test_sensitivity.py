"""Sensitivities: what one layer or group costs at the output, predicted from one run of each."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.sensitivity import sensitivity
from slimfront.spaces.session import infer, open_session
from slimfront.spaces.space import make_space


@pytest.fixture(scope="module")
def builder(capture, weight, noise) -> Builder:
    graph = capture(
        "(float[1,3,16,16] x) => (float[n,c,h,w] y) { [a] p = Conv<pads=[1,1,1,1]>(x, w0)\n q = Relu(p)\n"
        "[b] r = Conv<pads=[1,1,1,1]>(q, w1)\n s = Relu(r)\n [c] y = Conv<pads=[1,1,1,1]>(s, w2) }",
        w0=weight(32, 3, 3, 3), w1=weight(64, 32, 3, 3), w2=weight(3, 64, 3, 3),
    )  # fmt: skip
    return Builder(graph, {"x": noise(8, 3, 16, 16)})


@pytest.fixture(scope="module")
def measured(builder):
    reference = infer(open_session(builder.build(Candidate()).to_bytes()), builder.calibration, 1)

    def error(candidate: Candidate) -> float:
        output = infer(open_session(builder.build(candidate).to_bytes()), builder.calibration, 1)
        return float(np.square(output - reference).mean())

    return error


def test_predicted_errors_are_near_the_measured_ones(builder, measured):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25, 0.5), sparsities=(0.0, 0.5))
    found = sensitivity(builder, space)
    for name in builder.graph.layers:
        for bits in (2, 4, 6):
            ratio = found.bits[name][bits] / measured(Candidate({name: LayerChoice(bits)}))
            assert 0.6 < ratio < 1.7, (name, bits)
    for name, ratios in space.ratios.items():
        for value in [value for value in ratios if value]:
            assert 0.5 < found.ratios[name][value] / measured(Candidate(groups={name: value})) < 2, (name, value)


def test_errors_add_up(builder, measured):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25, 0.5))
    found = sensitivity(builder, space)
    candidate = Candidate({"a": LayerChoice(4), "b": LayerChoice(3), "c": LayerChoice(4)}, {"b": 0.25})
    total = sum(found.error(axis.name, axis.of(candidate)) for axis in space.axes)
    assert 0.5 < total / measured(candidate) < 2


def test_what_is_not_compressed_costs_nothing(builder):
    space = make_space(builder.graph, pruning_ratios=(0.0, 0.25))
    found = sensitivity(builder, space)
    assert all(found.error(axis.name, axis.of(Candidate())) == 0 for axis in space.axes)
