"""What is written for people and programs: numbers, JSON, progress."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from slimfront.spaces.candidate import Candidate
from slimfront.studies import texts
from slimfront.studies.screen import Screen, plain
from slimfront.studies.search_bar import standing_view
from slimfront.studies.standing import Doing, Standing
from slimfront.studies.trial import Trial


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (812_345, "812 kB"), (1_350_000, "1.35 MB"), (2.5e9, "2.50 GB")],
)
def test_sizes(size: float, text: str):
    assert texts.size_text(size) == text


@pytest.mark.parametrize(("value", "text"), [(0.4123, "0.41 ms"), (12.34, "12.3 ms"), (1240, "1.24 s"), (None, "–")])
def test_times(value: float | None, text: str):
    assert texts.time_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(-0.421, "−0.42"), (0.3, "+0.30"), (-0.001, "0.00"), (float("nan"), "–")])
def test_changes_have_a_true_sign(value: float, text: str):
    assert texts.number_text(value, sign=True) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (65, "1 min 05 s"), (4330, "1 h 12 min")]
)
def test_durations(seconds: float, text: str):
    assert texts.seconds_text(seconds) == text


def test_plain_data_has_no_nan():
    data = plain({"a": float("inf"), "b": [np.float32(0.5), np.nan], "c": (np.int64(3), True, None, "x")})
    assert json.dumps(data, allow_nan=False) == '{"a": null, "b": [0.5, null], "c": [3, true, null, "x"]}'


def test_progress_goes_to_standard_error_as_plain_lines(capsys: pytest.CaptureFixture[str]):
    with Screen(as_json=False, quiet=False).search() as progress:
        progress.prepare("statistics", 0.1)
        progress.prepare("statistics", 0.5)
        progress.note("careful [bold]now[/bold]")
        progress.step(3, 45, 0.5, 65.0, Trial(2, Candidate(), "failed", reason="it does not run"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "statistics",
        "careful [bold]now[/bold]",
        "3/45  trial 2: failed: it does not run  hypervolume 0.500  1 min 05 s left",
    ]


def at_work(nodes: int = 1) -> Standing:
    doing = [
        Doing(f"node{n}", stage, (2 * n + k,), 10.0 * n + k)
        for n in range(nodes)
        for k, stage in enumerate(["quality", "build"])
    ]
    return Standing(2 * nodes + 1, tuple(doing), 3, 41.6)


def test_workers_are_told_of_in_a_line_now_and_then(capsys: pytest.CaptureFixture[str]):
    with Screen(as_json=False, quiet=False).search() as progress:
        progress.standing(at_work())
        progress.standing(at_work())
    assert capsys.readouterr().err.splitlines() == [
        "3 workers: build 1, quality 1; 3 wait to be timed; 42 candidates a minute"
    ]


def test_on_a_terminal_the_nodes_stand_in_a_table_the_slowest_first():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(standing_view(at_work(20)))
    lines = console.export_text().splitlines()
    assert lines[0].split() == ["node", "at", "trials", "for"]
    assert lines[1].split() == ["node19", "build,", "quality", "39,", "38", "191", "s"]
    assert lines[13].split() == ["…", "8", "more"]
    assert "build 20, quality 20" in lines[14]


def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]):
    screen = Screen(as_json=True, quiet=True)
    screen.note("a warning")
    screen.hint("a hint")
    with screen.search() as progress:
        progress.prepare("statistics", 0.1)
        progress.note("careful")
        progress.step(1, 2, 0.0, None, Trial(0, Candidate(), "failed"))
        progress.standing(at_work())
    assert capsys.readouterr() == ("", "")
