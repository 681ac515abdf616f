"""The additive model knows what a form costs and saves before any candidate with it was measured."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from slimfront.search.additive import AdditiveModel
from slimfront.search.grid import Grid
from slimfront.search.layout import Layout
from slimfront.search.proposers import Task
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.offers import FormOffer, Offer
from slimfront.spaces.space import Space

NATIVE = (LayerChoice(4, 8), LayerChoice(8, 8), LayerChoice(8, 32))
FORMED = tuple(replace(choice, form="phases") for choice in NATIVE)
LAYERS = ("first", "up", "last")


def fitted() -> tuple[AdditiveModel, Grid]:
    """Return a model of three alike layers, fitted to candidates in the native form alone."""
    choices = dict.fromkeys(LAYERS, NATIVE) | {"up": (*NATIVE, *FORMED)}
    space = Space(choices, offers={"up": Offer(forms={"phases": FormOffer(16 / 9, {8: 0.5})})})
    grid = Grid(space)
    layout = Layout(grid, Task(space, dict.fromkeys(LAYERS, 10_000), dict.fromkeys(LAYERS, 10**6)))
    candidates = [Candidate(dict(zip(LAYERS, row, strict=True))) for row in itertools.product(NATIVE, repeat=3)]
    vectors = np.stack([grid.encode(candidate) for candidate in candidates])
    points = []
    for candidate in candidates:
        chosen = [candidate.choice(name) for name in LAYERS]
        size = sum(choice.weight_bits for choice in chosen) / 96
        time = 0.1 + 0.3 * sum(0.3 if choice.integer else 1.0 for choice in chosen)
        points.append((size, time, 0.01))
    return AdditiveModel(layout, vectors, np.array(points)), grid


def predicted(model: AdditiveModel, grid: Grid, choice: LayerChoice) -> np.ndarray:
    layers = dict.fromkeys(LAYERS, LayerChoice(8, 8)) | {"up": choice}
    return model.predict(np.stack([grid.encode(Candidate(layers))]))[0]


def test_a_form_is_predicted_to_be_larger_and_faster():
    model, grid = fitted()
    native, formed = (predicted(model, grid, LayerChoice(8, 8, form=form)) for form in ("native", "phases"))
    assert np.isclose(formed[0] - native[0], 7 / 9 * 8 / 96, rtol=0.1)
    assert native[1] - formed[1] > 0.2 * (native[1] - 0.1) / 3
    in_float = [predicted(model, grid, LayerChoice(8, 32, form=form))[1] for form in ("native", "phases")]
    assert np.isclose(*in_float)  # nothing was measured of it there


def test_a_sweep_takes_the_form_where_time_counts_and_not_where_size_does():
    model, grid = fitted()
    found = model.sweep(np.random.default_rng(0), 200, np.zeros((1, 3), np.int64))
    forms = {grid.decode(vector).choice("up").form for vector in found}
    assert forms == {"native", "phases"}
