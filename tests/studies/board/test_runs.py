"""Several runs on one board, and what cannot be shown: a clear message, and the rest all the same."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.board.attainment import attained, best
from slimfront.studies.board.boarded import Boarded, found_runs
from slimfront.studies.board.followed import Followed
from slimfront.studies.frame import run_frame
from slimfront.studies.run import Run
from slimfront.studies.run_folder import RECORDS_FILE


@pytest.fixture
def newer(run_folder: Path) -> Path:
    """A run that a newer version has made."""
    path = run_folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"version": 99}), encoding="utf-8")
    return run_folder


def test_the_start_page_lists_runs_and_compares_their_fronts(
    finished_run: Path, newer: Path, tmp_path: Path, serve: Callable, open_page: Callable, keep: Callable
):
    other = Path(shutil.copytree(finished_run, tmp_path / "other"))
    page = open_page(serve(finished_run, other, newer))
    page.wait_for_selector("table")
    text = page.inner_text("#page")
    assert "another version of slimfront (run version 99)" in text
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length === 3")
    page.wait_for_function("document.querySelector('.js-plotly-plot').data?.length === 2")
    assert f"{Run(finished_run).hypervolume():.3f}" in text
    keep(page, "runs")
    page.get_by_role("link", name="other").click()
    page.wait_for_function("document.body.dataset.candidates > 0")
    assert page.url.endswith("/run/1")


def test_a_board_of_nothing_that_can_be_shown_says_why(newer: Path, serve: Callable):
    with pytest.raises(InputError, match="another version"):
        serve(newer)


def test_runs_of_one_name_are_told_apart(finished_run: Path, tmp_path: Path, serve: Callable, open_page: Callable):
    other = Path(shutil.copytree(finished_run, tmp_path / finished_run.name))
    page = open_page(serve(finished_run, other))
    page.wait_for_function("document.querySelector('.js-plotly-plot')?.data?.length === 2")
    assert str(other) in page.inner_text("#page") and str(finished_run) in page.inner_text("#page")


def test_a_run_that_was_begun_anew_is_told_of(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from slimfront.studies.board import followed as module

    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    followed, path = Followed(run_folder), run_folder / RECORDS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    followed.look()
    assert "is gone" in (followed.trouble or "")
    path.write_bytes(b"".join(lines[:2]))
    followed.look()
    assert "begun anew" in (followed.trouble or "")


def test_a_run_is_followed_in_a_database(study_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from slimfront.search.loop import search
    from slimfront.studies.board import followed as module

    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    run = search(study_folder, 3, tmp_path / "run", storage=url)
    followed = Followed(tmp_path / "run")
    assert followed.numbers == [trial.number for trial in run.trials if trial.measured]
    version = followed.version
    run = search(study_folder, 5, tmp_path / "run", storage=url)
    news = followed.news(version)
    assert news is not None and {3, 4} & set(news["rows"]["trial"])
    assert followed.front == [trial.number for trial in run.front_trials()]


def test_a_folder_of_runs_is_all_of_them(finished_run: Path, tmp_path: Path):
    for name in ("b", "a"):
        shutil.copytree(finished_run, tmp_path / name)
    (tmp_path / "notes").mkdir()
    assert found_runs([tmp_path, tmp_path / "a"]) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError, match="neither a run nor a folder of runs"):
        found_runs([tmp_path / "notes"])


def test_a_run_is_followed_record_by_record(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from slimfront.studies.board import followed as module

    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    path = run_folder / RECORDS_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"")
    followed, known, versions = Followed(run_folder), {}, [0]
    assert followed.news(0) is None and not followed.has_reference
    for line in lines:
        with path.open("ab") as file:  # in two parts, as one may be seen that is being written
            file.write(line[:20])
            file.flush()
            followed.look()
            file.write(line[20:])
        news = followed.news(versions[-1])
        if news is not None:
            known |= dict(zip(news["rows"]["trial"], news["rows"]["size_bytes"], strict=True))
            versions.append(news["version"])
    run = Run(run_folder)
    shown = {trial.number for trial in run.trials if trial.measured or (trial.predicted and trial.judged)}
    assert set(known) == shown
    assert followed.front == [trial.number for trial in run.front_trials()]
    assert followed.news(versions[-1]) is None
    assert len(followed.news(versions[-2])["rows"]["trial"]) < len(shown)  # what has changed, not everything
    frame, whole = followed.frame().set_index("trial"), run_frame(run).set_index("trial")
    for name in ("size_bytes", "speedup", "psnr_db", "on_front"):
        assert frame.loc[whole.index, name].tolist() == pytest.approx(whole[name].tolist(), nan_ok=True)


def test_a_page_follows_a_search_without_reloading(run_folder: Path, serve: Callable, open_page: Callable):
    path = run_folder / RECORDS_FILE
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]) + lines[len(lines) // 2][:15])
    page = open_page(serve(run_folder))
    page.wait_for_function("document.body.dataset.candidates > 0")
    before = int(page.evaluate("document.body.dataset.candidates"))
    page.evaluate("window.stays = true")
    threading.Timer(0.5, lambda: path.write_bytes(whole)).start()
    page.wait_for_function(f"document.body.dataset.candidates > {before}")
    assert page.evaluate("window.stays") is True
    drawn = "document.querySelector('#size-speed-plot canvas').points.length"
    page.wait_for_function(f"{drawn} == document.body.dataset.candidates")


def test_a_page_that_was_open_before_anything_was_measured_shows_it(
    run_folder: Path, serve: Callable, open_page: Callable
):
    path = run_folder / RECORDS_FILE
    whole = path.read_bytes()
    path.write_bytes(b"")
    page = open_page(serve(run_folder))
    page.wait_for_function("document.querySelector('#page')?.textContent.includes('nothing is measured yet')")
    path.write_bytes(whole)
    page.wait_for_selector("#table button")


def test_without_its_study_a_run_is_shown_without_pictures(run_folder: Path, serve: Callable, open_page: Callable):
    shutil.rmtree(run_folder / "study")
    page = open_page(serve(run_folder))
    page.wait_for_selector("#table button")
    page.locator("#table button").first.click()
    page.wait_for_function("document.querySelector('#pictures')?.textContent.includes('there are no pictures')")
    assert "Trial" in page.inner_text("#candidate h2")
    page.wait_for_selector("#candidate .strip i")


def test_a_run_whose_records_vanish_keeps_what_was_read(run_folder: Path, monkeypatch: pytest.MonkeyPatch):
    from slimfront.studies.board import followed as module

    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)
    boarded = Boarded(run_folder)
    count = len(boarded.followed.numbers)
    (run_folder / RECORDS_FILE).unlink()
    (run_folder / RECORDS_FILE).mkdir()
    boarded.followed.look()
    assert "cannot read" in (boarded.followed.trouble or "")
    assert len(boarded.followed.numbers) == count


def test_what_runs_attain_is_the_best_speedup_within_a_drop(finished_run: Path):
    frame = run_frame(Run(finished_run))
    rows = frame[(frame["drop_db"] <= 1.0) & (frame["size_bytes"] <= frame["size_bytes"].max())]
    assert best(frame, 1.0, 1.0) == rows["speedup"].max()
    assert best(frame, 1.0, 1e-6) is None
    heads, found = attained({"one": frame})
    assert len(heads) == len(found["one"])


def test_what_runs_of_one_study_attain_together():
    def frame(*speedups: float) -> pd.DataFrame:
        rows = [{"state": "measured", "kind": "reference", "size_bytes": 4e6, "drop_db": 0.0, "speedup": 1.0}]
        return pd.DataFrame(rows + [rows[0] | {"kind": "search", "speedup": speedup} for speedup in speedups])

    frames = {"a": frame(3.0), "b": frame(2.0), "c": frame(5.0), "other": frame(9.0)}
    heads, found = attained(frames, {"a": "s", "b": "s", "c": "s", "other": "t"})
    assert heads[0] == "0.1 dB"
    assert [found[name][0] for name in ("half of 3 runs of s", "all of 3 runs of s")] == ["3.00×", "2.00×"]
    assert not [name for name in found if "runs of t" in name]
    assert found["all of 3 runs of s"][-1] == "–"  # none has a tenth of the size


def test_runs_that_cannot_be_compared_are_pointed_out(
    finished_run: Path, run_folder: Path, serve: Callable, open_page: Callable
):
    one, two = (json.loads((run / "run.json").read_text(encoding="utf-8")) for run in (finished_run, run_folder))
    two["study"]["digest"] = "0" * len(one["study"]["digest"])
    (run_folder / "run.json").write_text(json.dumps(two), encoding="utf-8")
    page = open_page(serve(finished_run, run_folder))
    page.wait_for_selector("#runs table")
    text = page.inner_text("#runs")
    assert "of 2 studies" in text and "ONNX Runtime" in text and "2 machines" not in text


def test_a_page_of_a_board_that_was_stopped_is_told_all_anew(run_folder: Path):
    before = Followed(run_folder)
    version = before.version
    assert before.news(version) is None
    time.sleep(0.01)
    after = Followed(run_folder)
    news = after.news(version)
    assert news is not None and news["from"] == 0 and len(news["rows"]["trial"]) == len(after.numbers)
    assert after.news(after.version) is None and after.news(after.version + 10**6)["from"] == 0


def test_without_targets_the_reference_has_no_quality_and_no_place_in_its_views(
    untargeted_run: Path, serve: Callable, open_page: Callable
):
    page = open_page(serve(untargeted_run))
    page.wait_for_function("document.body.dataset.candidates > 0")
    page.wait_for_function("[...document.querySelectorAll('.views .plot')].every(plot => plot.ruled)")
    shown = {
        view: page.evaluate(f"document.querySelector('#{view}-plot canvas').points.map(({{ row }}) => row.trial)")
        for view in ("size-speed", "size-quality")
    }
    assert 0 in shown["size-speed"] and 0 not in shown["size-quality"]
    assert set(shown["size-quality"]) == set(shown["size-speed"]) - {0}
    page.fill("#go", "0")
    page.keyboard.press("Enter")
    page.wait_for_function("document.querySelector('#candidate h2')?.textContent.startsWith('Trial 0')")
