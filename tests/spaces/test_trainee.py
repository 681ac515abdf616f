"""A candidate in PyTorch gives what its file gives, and what was trained builds what it gave."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from slimfront.spaces.build import Builder, NoHoldings
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError, InputError
from slimfront.spaces.fake_quantise import rounded_tensor, rounded_weight
from slimfront.spaces.repaired import FloatLayer, RoundedLayer
from slimfront.spaces.rounding import Grid
from slimfront.spaces.trained import Trained, content_id

ALL = "abcde"
CHOICES = {
    "4 bits": LayerChoice(4),
    "2 bits": LayerChoice(2),
    "5 bits": LayerChoice(5),
    "16 bits": LayerChoice(16),
    "4 bits, sparse": LayerChoice(4, sparsity=0.75),
    "2 bits, a few zeros": LayerChoice(2, sparsity=0.25),
    "float, sparse": LayerChoice(32, sparsity=0.5),
    "8 bits in integers": LayerChoice(8, 8),
    "4 bits in integers": LayerChoice(4, 8),
}
GROUPS = {"whole": {}, "pruned": {"b": 0.5}}


class Held(NoHoldings):
    """Trained weights at hand."""

    def __init__(self, known):
        self.known = known

    def trained(self, weights):
        return self.known[weights]


@pytest.fixture(scope="module")
def builder(residual_model, pictures):
    return Builder(capture_onnx(residual_model), {"x": pictures(4, 1)})


@pytest.fixture(scope="module")
def image(pictures):
    return pictures(1, 7)


def outputs(builder: Builder, candidate: Candidate, image: np.ndarray) -> np.ndarray:
    return onnxruntime.InferenceSession(builder.build(candidate).to_bytes()).run(None, {"x": image})[0]


def tolerance(builder: Builder, candidate: Candidate) -> float:
    """In integer kernels biases and sums are rounded as well: a few steps of 255."""
    integer = any(choice.integer for choice in candidate.layers.values())
    return 4 / 255 if integer else 1e-4


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_it_gives_what_the_file_gives(builder, image, choice, groups):
    candidate = Candidate(dict.fromkeys(ALL, choice), groups)
    wanted = outputs(builder, candidate, image)
    with torch.no_grad():
        found = builder.to_torch(candidate)(torch.from_numpy(image)).numpy()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < tolerance(builder, candidate) * np.ptp(wanted)


@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_what_was_trained_builds_what_it_gave(builder, image, monkeypatch, choice, groups):
    candidate = Candidate(dict.fromkeys(ALL, choice), groups)
    student = builder.to_torch(candidate)
    torch.manual_seed(0)
    with torch.no_grad():  # as if it had been trained
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * parameter.abs().mean() * torch.randn(parameter.shape)
        wanted = student(torch.from_numpy(image)).numpy()
    data = student.trained().to_bytes()
    assert data == student.trained().to_bytes()
    monkeypatch.setattr(builder, "holdings", Held({content_id(data): Trained.from_bytes(data)}))
    trained = replace(candidate, weights=content_id(data))
    found = outputs(builder, trained, image)
    assert np.abs(found - wanted).max() < tolerance(builder, candidate) * np.ptp(wanted)
    assert np.abs(found - outputs(builder, candidate, image)).max() > 1e-3 * np.ptp(wanted), "it was changed"
    if choice.sparsity and choice.rounded:
        zeros, before = (
            sum(int((layer.codes == 0).sum()) for layer in each.layers.values())
            for each in (student.trained(), builder.to_torch(candidate).trained())
        )
        assert zeros >= before, "what sparsity has removed stays away"
    assert builder.build(trained).size_bytes <= 1.02 * builder.build(candidate).size_bytes


@pytest.mark.parametrize("layer", ALL)
def test_what_is_read_in_float_as_well_is_not_rounded_there(builder, image, layer):
    """The sum reads the same tensor as layer b: only one of the two reads integers."""
    candidate = Candidate({layer: LayerChoice(8, 8)})
    wanted = outputs(builder, candidate, image)
    with torch.no_grad():
        found = builder.to_torch(candidate)(torch.from_numpy(image)).numpy()
    rounding = np.sqrt(np.mean((outputs(builder, Candidate(), image) - wanted) ** 2))
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 0.2 * rounding


def test_trained_weights_of_another_candidate_are_refused(builder, monkeypatch):
    found = builder.to_torch(Candidate(dict.fromkeys(ALL, LayerChoice(4)))).trained()
    weights = "sha256:" + "0" * 64
    monkeypatch.setattr(builder, "holdings", Held({weights: found}))
    builder.build(Candidate(dict.fromkeys(ALL, LayerChoice(4)), weights=weights))
    for other in (
        Candidate(dict.fromkeys(ALL, LayerChoice(2)), weights=weights),
        Candidate(dict.fromkeys("abcd", LayerChoice(4)), weights=weights),
        Candidate(dict.fromkeys(ALL, LayerChoice(4)), {"b": 0.5}, weights=weights),
    ):
        with pytest.raises(BuildError, match=r"another candidate's: those of layer '\w' do not fit"):
            builder.build(other)


def test_trained_weights_that_are_nowhere_are_told_of(builder):
    with pytest.raises(BuildError, match="are not at hand"):
        builder.build(Candidate({"a": LayerChoice(4)}, weights="sha256:" + "0" * 64))
    with pytest.raises(InputError, match="64 hexadecimal digits"):
        Candidate({"a": LayerChoice(4)}, weights="sha256:abc")
    with pytest.raises(InputError, match="must be a text"):
        Candidate.from_json({"weights": 7})


def test_trained_weights_are_part_of_a_candidate():
    plain = Candidate({"a": LayerChoice(4)})
    trained = replace(plain, weights="sha256:" + "1" * 64)
    assert trained != plain
    assert Candidate.from_json(trained.to_json()) == trained
    assert Candidate.from_canonical(trained.to_json(), "").weights == trained.weights
    assert "weights" not in plain.to_json()


WEIGHTS = arrays(np.float32, (2, 3), elements=st.floats(-4, 4, width=32))
SCALES = arrays(np.float32, (2, 1), elements=st.floats(0.0625, 2, width=32))


@given(WEIGHTS, SCALES, st.sampled_from([2, 3, 4, 6, 8]), st.data())
def test_weights_are_rounded_to_the_nearest_code(weights, scale, bits, data):
    grid = Grid(bits)
    zero = data.draw(st.sampled_from(grid.zeros))
    found = rounded_weight(torch.from_numpy(weights), torch.from_numpy(scale), torch.tensor(zero), grid).numpy()
    codes = np.arange(grid.lowest, grid.highest + 1) * grid.step - zero
    nearest = np.abs(weights[..., None] / scale[..., None] - codes).min(axis=-1)
    assert np.abs(found / scale - weights / scale) == pytest.approx(nearest, abs=1e-3)


def test_gradients_are_those_of_learned_step_sizes():
    """Esser et al., equations 3 and 5: of the step -x/s + round(x/s) inside the grid, its end outside; of x 1 and 0."""
    x, s = torch.tensor([0.3, 0.8, 5.0, -5.0], requires_grad=True), torch.tensor(0.5, requires_grad=True)
    rounded_tensor(x, s, 3).sum().backward()
    inside = (x / s).abs() < 3
    wanted = (torch.round(x / s) - x / s)[inside].sum() + torch.round(x / s)[2] - x[2] / s - 3
    assert s.grad.item() == pytest.approx(wanted.item(), abs=1e-5)
    assert x.grad.tolist() == [1.0, 1.0, 1.0, 0.0]


@given(st.data())
def test_trained_weights_are_read_as_they_were_written(data):
    names = st.text(min_size=1, max_size=8)
    floats = st.floats(-2, 2, width=32)
    layers = data.draw(
        st.dictionaries(
            names,
            st.one_of(
                st.builds(
                    FloatLayer, arrays(np.float32, (2, 2), elements=floats), arrays(np.float32, 2, elements=floats)
                ),
                st.builds(
                    RoundedLayer,
                    arrays(np.int8, (2, 2)),
                    arrays(np.float32, 2, elements=floats),
                    arrays(np.int16, 2),
                    arrays(np.float32, 2, elements=floats),
                ),
            ),
            max_size=3,
        )
    )
    grids = data.draw(st.dictionaries(names, st.tuples(st.floats(1e-6, 1e3), st.integers(0, 255)), max_size=3))
    known = Trained(layers, grids)
    again = Trained.from_bytes(known.to_bytes())
    assert again.grids == dict(grids)
    assert again.layers.keys() == layers.keys()
    for name, layer in layers.items():
        assert type(again.layers[name]) is type(layer)
        for field, array in vars(layer).items():
            assert np.array_equal(getattr(again.layers[name], field), array)
    assert again.to_bytes() == known.to_bytes()


def test_something_else_is_no_trained_weights():
    with pytest.raises(InputError, match="no trained weights"):
        Trained.from_bytes(b"not at all")
