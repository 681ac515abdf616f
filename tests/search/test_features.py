"""Inner features as a part of what is learned."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch

from slimfront.search.features import FeatureDistillation, Features
from slimfront.search.polish import lesson_of
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.graph import Graph
from slimfront.spaces.session import open_session
from slimfront.studies.study import Study


@pytest.fixture
def study(residual_model, pictures):
    return Study(residual_model, pictures(4, 1), pictures(3, 2), training={"features": 0.1}, pruning_ratios=[0.0, 0.5])


def tensors(graph: Graph, names: list[str], inputs: np.ndarray) -> list[np.ndarray]:
    """Return tensors of a graph, by ONNX Runtime."""
    model = graph.with_outputs(names)
    session = open_session(Graph(model, {"x": (1, 3, 16, 16)}).to_bytes())
    return session.run(names, {"x": inputs})


def test_the_error_is_that_of_the_channels_that_stay(study, pictures):
    candidate = study.builder.fitting(Candidate({}, dict.fromkeys(study.space.ratios, 0.5)))
    study.prepare([candidate])
    whole, removed = study.builder.graph_of(candidate), study.builder.removed(candidate)
    features = Features(whole, removed)
    assert features.names == ["p", "q", "t", "v"]
    trainee = study.builder.to_torch(candidate)
    feed = {"x": torch.from_numpy(pictures(1, 7))}
    with torch.no_grad():
        found = trainee.values(feed)
        error = float(features.error(feed, found))
    errors = []
    for name, wanted in zip(features.names, tensors(whole, features.names, pictures(1, 7)), strict=True):
        gone = removed.get((name, 1), np.zeros(0, int))
        assert len(gone)
        wanted = np.delete(wanted, gone, 1)
        errors.append(np.square(found[name].numpy() - wanted).mean() / wanted.var())
    assert error == pytest.approx(np.mean(errors), rel=1e-3)
    assert error > 1e-3


def test_of_a_candidate_that_is_whole_it_is_next_to_nothing(study, pictures):
    candidate = Candidate(dict.fromkeys(study.graph.layers, LayerChoice(8)))
    study.prepare([candidate])
    lesson = lesson_of(study, candidate)
    assert isinstance(lesson, FeatureDistillation)
    feed = {"x": torch.from_numpy(pictures(1, 7))}
    with torch.no_grad():
        found = lesson.module.values(feed)
        assert float(lesson.features.error(feed, found)) < 1e-3
        random = [np.random.default_rng(3) for _ in range(3)]
        drawn = lesson.examples.draw(random[0])
        alone = lesson.measure(lesson.module(**drawn[0]), *drawn[1:])
        whole = lesson.loss(random[1])
        error = lesson.features.error(drawn[0], lesson.module.values(drawn[0]))
    assert float(whole) == pytest.approx(float(alone + 0.1 * error), rel=1e-5)


def test_its_gradient_reaches_the_inner_layers_alone(study):
    layers = dict.fromkeys(study.graph.layers, LayerChoice(8, 8))
    candidate = study.builder.fitting(Candidate(layers, dict.fromkeys(study.space.ratios, 0.5)))
    study.prepare([candidate])
    lesson = lesson_of(study, candidate)
    lesson.measure = lambda found, wanted, target=None: found.sum() * 0.0
    lesson.loss(np.random.default_rng(0)).backward()
    slopes = {layer.layer.name: layer.weight.grad for layer in lesson.module.layers.values()}
    assert {name for name, slope in slopes.items() if slope is not None and slope.any()} == set("abcd")


def test_what_is_constant_is_compared_with_nothing(study, pictures):
    candidate = Candidate(dict.fromkeys(study.graph.layers, LayerChoice(8)))
    study.prepare([candidate])
    features = Features(study.builder.graph_of(candidate), {})
    feed = {"x": torch.from_numpy(pictures(1, 7))}
    with torch.no_grad():
        found = study.builder.to_torch(candidate).values(feed)
        before = float(features.error(feed, found))
        whole = features.whole.values
        features.whole.values = lambda feed: {**whole(feed), "t": torch.ones(1, 1, 1, 1)}
        after = float(features.error(feed, {**found, "t": torch.zeros(1, 1, 1, 1)}))
    assert 0.0 < after < 2.0 * before + 1e-6


def test_it_goes_to_another_process(study, pictures):
    candidate = Candidate(dict.fromkeys(study.graph.layers, LayerChoice(4)))
    study.prepare([candidate])
    lesson = lesson_of(study, candidate)
    again = pickle.loads(pickle.dumps(lesson))
    errors = [float(each.loss(np.random.default_rng(1)).detach()) for each in (lesson, again)]
    assert errors[0] == errors[1]
