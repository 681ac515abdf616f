"""Candidates with pruning ratios: what is built, that repair helps, and that bits and ratios go together."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.spaces.groups import channel_groups, fitting
from slimfront.spaces.session import infer, open_session


@pytest.fixture(scope="module")
def builder(capture, weight, noise) -> Builder:
    """A residual network: a trunk of 16 channels, 32 inside its block, a grouped convolution, a transposed one."""
    graph = capture(
        "(float[1,3,12,12] x) => (float[n,c,h,w] y) {\n"
        "[enter] a = Conv<pads=[1,1,1,1]>(x, w0, b0)\n t = Relu(a)\n"
        "[inside] b = Conv<pads=[1,1,1,1]>(t, w1, b1)\n r = Relu(b)\n [back] c = Conv<pads=[1,1,1,1]>(r, w2)\n"
        "s = Add(t, c)\n [wide] d = Conv<group=2,pads=[1,1,1,1]>(s, w3)\n l = LeakyRelu(d)\n"
        "[leave] y = ConvTranspose<strides=[2,2]>(l, w4, b4) }",
        w0=weight(16, 3, 3, 3), b0=weight(16), w1=weight(32, 16, 3, 3), b1=weight(32), w2=weight(16, 32, 3, 3),
        w3=weight(24, 8, 3, 3), w4=weight(24, 3, 3, 3), b4=weight(3),
    )  # fmt: skip
    return Builder(graph, {"x": noise(6, 3, 12, 12)})


def output(builder: Builder, candidate: Candidate, **options: str) -> np.ndarray:
    other = Builder(builder.graph, builder.calibration, **options) if options else builder
    return infer(open_session(other.build(candidate).to_bytes()), builder.calibration, 1)


def error(builder: Builder, candidate: Candidate, **options: str) -> float:
    return float(np.square(output(builder, candidate, **options) - output(builder, Candidate())).mean())


def everywhere(builder: Builder, ratio: float, choice: LayerChoice | None = None, repair: str = "static") -> Candidate:
    layers = dict.fromkeys(builder.graph.layers, choice) if choice else {}
    return Candidate(layers, dict.fromkeys(channel_groups(builder.graph).groups, ratio), repair=repair)


def test_the_file_holds_the_channels_that_the_ratio_leaves(builder):
    model = onnx.load_from_string(builder.build(Candidate(groups={"inside": 0.25, "enter": 0.5})).to_bytes())
    onnx.checker.check_model(model, full_check=True)
    shapes = {tuple(tensor.dims) for tensor in model.graph.initializer if len(tensor.dims) == 4}
    assert {(8, 3, 3, 3), (24, 8, 3, 3), (8, 24, 3, 3), (24, 4, 3, 3), (24, 3, 3, 3)} == shapes


@pytest.mark.parametrize(
    "choice", [None, LayerChoice(16), LayerChoice(4), LayerChoice(8, 8), LayerChoice(3, 8)], ids=str
)
@pytest.mark.parametrize("repair", ["static", "sequential"])
def test_bits_and_ratios_go_together(builder, choice, repair):
    """A pruned network at some bits is at most a little worse than the float one that is pruned as much."""
    pruned = error(builder, everywhere(builder, 0.5, repair=repair))
    choice = choice and LayerChoice(choice.weight_bits, choice.activation_bits)
    candidate = everywhere(builder, 0.5, choice, repair)
    layers = {name: c if name != "leave" else LayerChoice(c.weight_bits, 32) for name, c in candidate.layers.items()}
    found = error(builder, Candidate(layers, candidate.groups, repair=repair))
    rounded = error(builder, Candidate(layers))
    assert found < 2 * (pruned + rounded) + 1e-9
    size = len(builder.build(Candidate(layers, candidate.groups)).to_bytes())
    assert size < len(builder.build(Candidate(layers)).to_bytes())


def test_repair_lowers_the_error_of_plain_removal_and_the_order_matters(builder, monkeypatch):
    from slimfront.spaces import repair, repaired
    from slimfront.spaces.refit import refit

    candidate = everywhere(builder, 0.5)
    least = error(builder, candidate)
    magnitude = error(builder, candidate, importance="magnitude")
    monkeypatch.setattr(repaired, "refit", lambda rows, gram, kept, **more: refit(rows, gram, kept, ridge=1e12, **more))
    monkeypatch.setattr(repair, "REFIT_VERSION", "plain")
    plain = error(Builder(builder.graph, builder.calibration), candidate)
    assert least < 0.7 * plain
    assert least < magnitude


def test_sequential_repair_takes_in_what_was_removed_before(builder):
    static, sequential = (
        error(builder, everywhere(builder, 0.5, repair=repair)) for repair in ("static", "sequential")
    )
    assert sequential < static


def test_the_same_candidate_gives_the_same_bytes_whatever_was_built_before(builder):
    candidate = everywhere(builder, 0.25, LayerChoice(4))
    first = builder.build(candidate).to_bytes()
    builder.build(everywhere(builder, 0.5, LayerChoice(2)))
    again = Builder(builder.graph, builder.calibration)
    assert builder.build(candidate).to_bytes() == again.build(candidate).to_bytes() == first


def test_ratios_that_keep_the_same_channels_are_one_candidate(builder):
    first, second, none = (fitting(builder.graph, Candidate(groups={"inside": r})) for r in (0.25, 0.26, 0.01))
    assert first.key == second.key and first.groups == {"inside": 0.25}
    assert none == Candidate()


def test_a_group_that_does_not_exist_or_is_frozen_is_told_with_its_op(builder):
    with pytest.raises(InputError, match=r"no channel group 'insde'.*did you mean 'inside'"):
        builder.build(Candidate(groups={"insde": 0.5}))
    with pytest.raises(InputError, match="'leave' cannot be removed: they are the output of the model"):
        builder.build(Candidate(groups={"leave": 0.5}))


def test_unrounded_layers_that_lose_nothing_keep_their_weights(builder):
    built = builder.build(Candidate(groups={"inside": 0.5}))
    weights = [value.const_value.numpy() for value in built.model.graph.initializers.values()]
    untouched = builder.equalised.weight(builder.equalised.layers["leave"])
    assert any(array.shape == untouched.shape and np.array_equal(array, untouched) for array in weights)
