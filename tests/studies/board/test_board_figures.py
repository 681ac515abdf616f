"""The board's figures and budgets are pure functions of frames: values, not pixels."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.spaces.sensitivity import Sensitivity
from slimfront.studies.board import figures
from slimfront.studies.board.albums import TILES, worst_tile
from slimfront.studies.board.budgets import END, Budget, answer, bits, budgets, fitting
from slimfront.studies.board.candidate import differences
from slimfront.studies.board.costs import layer_errors, parts
from slimfront.studies.board.parameters import column, parameter_names, shape_of
from slimfront.studies.figures import VIEWS
from slimfront.studies.frame import as_frame
from slimfront.studies.limits import Limits
from slimfront.studies.strip import Network, cells

NETWORK = Network(("a", "b"), {"a": {"g": 1.0}})


def row(trial: int, size: float, speedup: float, psnr: float, **more: object) -> dict:
    known = {
        "kind": "search",
        "label": "",
        "on_front": True,
        "speedup_low": 0.9 * speedup,
        "speedup_high": 1.1 * speedup,
    }
    found = {"trial": trial, "size_bytes": size, "speedup": speedup, "psnr_db": psnr, "latency_ms": 40.0 / speedup}
    return known | found | {"state": "measured", "drop_db": 30.0 - psnr, "base": "reference", "feasible": True} | more


@pytest.fixture
def frame() -> pd.DataFrame:
    return as_frame(
        [row(0, 4e6, 1.0, 30.0, kind="reference"), row(1, 1e6, 3.0, 29.5), row(2, 5e5, 4.0, 28.0, on_front=False)]
    )


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_begins_with_its_axes_and_no_points(frame: pd.DataFrame, name: str):
    figure = figures.empty_view(frame, name)
    assert [len(trace.x) for trace in figure.data] == [0]
    assert figure.layout.xaxis.title.text and figure.layout.yaxis.title.text


def test_parallel_axes_begin_with_their_titles():
    (lines,) = figures.parallel_figure({"size": "size, bytes", "psnr": "PSNR"}).data
    assert [dimension["label"] for dimension in lines.dimensions] == ["size, bytes", "PSNR"]


def question(frame: pd.DataFrame, ranges: str = "{}", **positions: object) -> dict[str, str]:
    spent = budgets(frame, True)
    placed = {budget.key: str(positions.get(budget.key, budget.free)) for budget in spent}
    return {"budgets": json.dumps([asdict(budget) for budget in spent]), "ranges": ranges} | placed


def test_a_page_is_told_what_fits_its_budgets(frame: pd.DataFrame):
    told = answer(frame, question(frame, max_drop=50))
    assert told["bits"] == bits([0, 1, 2], np.array([True, True, False]))
    assert told["texts"]["max_drop"] == "at most 1.00 dB" and told["texts"]["max_size"] == "any"
    assert told["left"].startswith("2 of 3 candidates fit, 2 of them on the front; the smallest 1.00 MB (trial 1)")
    assert answer(frame, question(frame, '{"size_bytes": [[1, 2]]}'))["left"] == "none of 3 candidates fits"


@pytest.mark.parametrize(
    "wrong",
    [
        {"budgets": "[{}]"},
        {"budgets": "5"},
        {"max_size": "much"},
        {"max_size": "inf"},
        {"ranges": '{"nothing": [[0, 1]]}'},
        {"ranges": '{"size_bytes": [0]}'},
        {"ranges": "["},
    ],
)
def test_a_question_that_no_page_asks_is_refused(frame: pd.DataFrame, wrong: dict[str, str]):
    with pytest.raises(InputError, match="open the page again"):
        answer(frame, question(frame) | wrong)


def test_times_of_the_fastest_layers_are_one_bar_and_names_are_text():
    rows = [{"name": f"<b>{i}", "reference_ms": 2.0, "candidate_ms": 1.0} for i in range(20)]
    reference, candidate = figures.time_figure(rows, most=5).data
    assert list(reference.y) == ["15 others", *(f"&lt;b&gt;{i}" for i in reversed(range(5)))]
    assert sum(candidate.x) == pytest.approx(20.0) and sum(reference.x) == pytest.approx(40.0)


def test_fronts_of_runs_lie_over_one_another_each_in_its_colour(frame: pd.DataFrame):
    figure = figures.fronts_figure({"<i>one": frame, "two": frame.iloc[:1]}, "size-quality")
    assert [trace.name for trace in figure.data] == ["&lt;i&gt;one", "two"]
    assert [list(trace.x) for trace in figure.data] == [[4e6, 1e6], [4e6]]
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert not figures.fronts_figure({}, "size-quality").data


def test_sliders_reach_from_the_least_to_the_most(frame: pd.DataFrame):
    found = {budget.key: budget for budget in budgets(frame, True)}
    assert found["max_size"].value(0) == pytest.approx(5e5, rel=0.01) and found["max_size"].value(END) is None
    assert found["min_speedup"].value(END) == pytest.approx(4.0) and found["min_speedup"].value(0) is None
    assert found["max_drop"].value(END // 2) == pytest.approx(1.0)
    assert found["max_size"].text(END) == "any" and found["max_size"].text(0) == "at most 500 kB"
    assert found["max_latency"].text(0) == "at most 10.0 ms"


def test_a_slider_over_one_value_is_no_limit():
    assert Budget("max_size", "Size", 5.0, 5.0, END).value(3) is None


limit = st.none() | st.floats(0.1, 50.0)


@given(max_size=limit, max_latency=limit, min_psnr=limit, max_drop=limit, min_speedup=limit, data=st.data())
def test_what_fits_is_what_breaks_no_limit(max_size, max_latency, min_psnr, max_drop, min_speedup, data):
    limits = Limits(max_size, max_latency, min_psnr, max_drop, min_speedup)
    values = data.draw(st.lists(st.tuples(*[st.floats(0.1, 50.0)] * 5), min_size=1, max_size=8))
    names = ("size_bytes", "latency_ms", "psnr_db", "drop_db", "speedup")
    kept = limits.kept(**{name: np.array([one[i] for one in values]) for i, name in enumerate(names)})
    assert kept.tolist() == [limits.violation(**dict(zip(names, one, strict=True))) == 0.0 for one in values]


def test_ranges_of_an_axis_choose_beside_limits(frame: pd.DataFrame):
    assert fitting(frame, Limits(), {}).tolist() == [True, True, True]
    assert fitting(frame, Limits(max_size=2e6), {}).tolist() == [False, True, True]
    assert fitting(frame, Limits(max_size=2e6), {"psnr_db": [[27.0, 28.5], [29.9, 31.0]]}).tolist() == [
        False,
        False,
        True,
    ]


@given(st.dictionaries(st.integers(0, 300), st.booleans(), min_size=1))
def test_bits_stand_at_the_places_of_the_trials(kept: dict[int, bool]):
    packed = base64.b64decode(bits(list(kept), np.array(list(kept.values()))))
    assert {number: bool(packed[number >> 3] >> (number & 7) & 1) for number in kept} == kept


def test_ten_thousand_bits_are_less_than_two_kilobytes():
    assert len(bits(range(10_000), np.ones(10_000, bool))) < 2000


def test_parameters_are_columns():
    one = Candidate({"a": LayerChoice(4, 8)}, {"g": 0.25})
    assert shape_of(one, NETWORK) == {"bits": 18.0, "integer": 0.5, "pruned": 0.25}
    assert shape_of(Candidate(), NETWORK) == {"bits": 32.0, "integer": 0.0, "pruned": 0.0}
    assert set(parameter_names([NETWORK])) >= {"layer:a", "layer:b", "group:g", "bits"}
    trials = [type("Trial", (), {"candidate": candidate})() for candidate in (one, Candidate())]
    for name, wanted in (("layer:a", [4.0, 32.0]), ("group:g", [0.25, 0.0]), ("bits", [18.0, 32.0])):
        assert column(name, trials, lambda _: NETWORK) == wanted
    assert np.isnan(column("layer:z", trials, lambda _: NETWORK)).all()


def test_the_error_of_a_group_is_divided_among_the_layers_that_lose_channels():
    network = Network(("a", "b", "c"), {"a": {"g": 1.0}, "b": {"g": 0.5}})
    found = Sensitivity({"a": {4: 3.0}, "c": {8: 1.0}}, {"c": {0.5: 2.0}}, {"g": {0.25: 4.0}})
    candidate = Candidate({"a": LayerChoice(4, 8), "c": LayerChoice(8, 32, 0.5)}, {"g": 0.25})
    errors = layer_errors(candidate, network, found)
    assert errors == {"a": 5.0, "b": 2.0, "c": 3.0}
    assert parts(errors) == {"a": 0.5, "b": 0.2, "c": 0.3} and parts({"a": 0.0}) == {}
    first, second, _ = cells(candidate, network, parts(errors))
    assert (first.cost, second.cost) == (1.0, pytest.approx(0.4))
    assert first.title.endswith("50.0% of the predicted error")
    assert [cell.cost for cell in cells(candidate, network)] == [None] * 3


def test_what_differs_is_told_layer_by_layer_and_group_by_group():
    one, other = (
        Candidate({"a": LayerChoice(4, 8)}, {"g": 0.25}),
        Candidate({"a": LayerChoice(4, 8)}, repair="sequential"),
    )
    told = {name: (first, second) for name, first, second in differences(one, other, NETWORK)}
    assert "a" not in told and told["g"] == ("25% of its channels removed", "0% of its channels removed")
    assert differences(one, one, NETWORK) == []


def test_the_worst_tile_is_where_the_pictures_differ_most():
    one = np.zeros((64, 96, 3), np.uint8)
    other = one.copy()
    other[30, 50] = 200  # in the third row and fifth column of tiles of 12 pixels
    tile = worst_tile(one, other)
    side = 96 // TILES
    assert (tile.top * 64, tile.left * 96) == (24, 48)
    assert (tile.height * 64, tile.width * 96) == (side, side)


@given(st.integers(4, 40), st.integers(4, 40), st.integers(0, 2**32))
def test_a_tile_lies_in_the_picture_and_none_other_differs_more(height: int, width: int, seed: int):
    one, other = np.random.default_rng(seed).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    tile = worst_tile(one, other)
    assert (
        tile.top >= 0 and tile.top + tile.height <= 1 + 1e-9 and tile.left >= 0 and tile.left + tile.width <= 1 + 1e-9
    )
    side = -(-max(height, width) // TILES)
    gap = np.square(one.astype(float) - other).mean(axis=2)
    means = [gap[y : y + side, x : x + side].mean() for y in range(0, height, side) for x in range(0, width, side)]
    top, left = round(tile.top * height), round(tile.left * width)
    assert gap[top : top + side, left : left + side].mean() == pytest.approx(max(means))
