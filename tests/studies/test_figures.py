"""The three views of a front are pure functions of a frame."""

from __future__ import annotations

import pandas as pd
import pytest

from slimfront.studies.figures import COLUMNS, RING_TRACE, SYMBOLS, VIEWS, front_figures, size_ticks


@pytest.fixture
def frame() -> pd.DataFrame:
    rows = [
        (0, "reference", "reference", True, 4e6, 1.0, 1.0, 1.0, 30.0),
        (1, "uniform", "uniform 8/8", True, 1e6, 3.0, 2.9, 3.2, 29.9),
        (2, "search", "<b>", False, 2e6, 2.0, None, None, 29.0),
        (3, "search", "", True, 5e5, 3.5, 3.4, 3.6, 27.0),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_shows_every_candidate_once(frame: pd.DataFrame, view: str):
    figure = front_figures(frame)[view]
    dominated, front, ring = figure.data
    assert list(dominated.customdata) == [2]
    assert list(front.customdata) == [0, 1, 3]
    assert len(ring.x) == 0
    assert figure.data[RING_TRACE] is ring
    x, y = VIEWS[view]
    assert list(front.x) == frame[frame["on_front"]][x].tolist()
    assert list(front.y) == frame[frame["on_front"]][y].tolist()
    assert list(front.marker.symbol) == [SYMBOLS[kind] for kind in ("reference", "uniform", "search")]


def test_bars_reach_to_the_ends_of_the_interval(frame: pd.DataFrame):
    bars = front_figures(frame)["size-speed"].data[1].error_y
    assert list(bars.array) == pytest.approx([0.0, 0.2, 0.1])
    assert list(bars.arrayminus) == pytest.approx([0.0, 0.1, 0.1])


def test_hover_texts_are_escaped(frame: pd.DataFrame):
    assert "&lt;b&gt;" in front_figures(frame)["size-speed"].data[0].hovertext[0]


def test_figures_do_not_change_the_frame(frame: pd.DataFrame):
    before = frame.copy()
    front_figures(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_an_empty_frame_gives_empty_figures(frame: pd.DataFrame):
    assert all(len(figure.data[1].x) == 0 for figure in front_figures(frame.iloc[:0]).values())


def test_size_ticks_are_round_and_cover_the_sizes():
    ticks = size_ticks([3.6e5, 5.6e6])
    assert ticks == [2e5, 5e5, 1e6, 2e6, 5e6, 1e7]
