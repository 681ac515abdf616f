"""Further objectives on the board: a view, a colour, an axis and a budget of each, and a candidate's readings."""

from __future__ import annotations

import json
from dataclasses import asdict
from html.parser import HTMLParser

import numpy as np
import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.board.budgets import END, answer, budgets, limits_at
from slimfront.studies.export import export
from slimfront.studies.frame import run_frame
from slimfront.studies.limits import Bound, Limits
from slimfront.studies.run import Run
from slimfront.studies.study import Study


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_model, pictures) -> Run:
    """A run whose further objectives are a constraint, on the front, and shown alone; no test writes into it."""
    from slimfront.search.loop import search

    def bulk(subject):
        return subject.model.path.stat().st_size / 1000.0

    evaluation = {"x": pictures(10, 2), "group": np.arange(10) % 2}
    objectives = {
        "diversity": {"neighbours": 1, "front": True},
        "texture": True,
        "worst_group": {"max_drop": 40.0},
        "bulk": {"function": bulk, "maximise": False, "title": "bulk <b>", "unit": "kB"},
    }
    study = Study(tiny_model, pictures(4, 1), evaluation, objectives=objectives, sampler="random")
    return search(study, trials=8, run_dir=tmp_path_factory.mktemp("further") / "run")


def test_the_frame_has_their_readings_and_no_number_of_the_reference_against_itself(run):
    frame = run_frame(run).set_index("trial")
    names = ["coverage", "recall", "texture_db", "gradient_similarity", "worst_group_db", "bulk"]
    assert list(frame.columns[-len(names) :]) == names
    reference = frame.loc[run.reference.number]
    assert np.isnan(reference["texture_db"])
    assert np.isnan(reference["worst_group_db"])
    assert (reference["coverage"], reference["gradient_similarity"]) == (1.0, 1.0)
    other = run.front_trials()[0]
    assert frame.loc[other.number, "bulk"] == other.value("bulk")


def test_each_has_a_budget_in_its_own_units_that_keeps_what_it_says(run):
    frame = run_frame(run)
    spent = {budget.key: budget for budget in budgets(frame, False, run.criteria)}
    assert list(spent)[4:] == ["min_coverage", "min_texture_db", "min_worst_group_db", "max_bulk"]
    bulk, texture = spent["max_bulk"], spent["min_texture_db"]
    assert (bulk.low, bulk.high, bulk.free, texture.free) == (frame["bulk"].min(), frame["bulk"].max(), END, 0)
    assert (bulk.text(END), texture.text(0)) == ("any", "any")
    placed = {key: budget.free for key, budget in spent.items()} | {"max_bulk": 40}
    limit = bulk.value(40)
    assert bulk.text(40) == f"at most {limit:.3f} kB"
    assert limits_at(list(spent.values()), placed) == Limits(bounds=(Bound("bulk", "max", limit, "kB"),))
    question = {"budgets": json.dumps([asdict(budget) for budget in spent.values()]), "ranges": "{}"}
    left = answer(frame, question | {key: str(position) for key, position in placed.items()})
    assert left["left"].startswith(f"{(frame['bulk'] <= limit).sum()} of {len(frame)} candidates fit")
    with pytest.raises(InputError, match="no budgets of a page are told"):
        answer(frame, {**question, "budgets": json.dumps([asdict(bulk) | {"reading": "nothing"}]), "max_bulk": "1"})


def test_a_table_file_has_a_column_of_each(run, tmp_path):
    import pandas as pd

    export(run, all=True, csv=tmp_path / "trials.csv")
    table = pd.read_csv(tmp_path / "trials.csv").set_index("trial")
    assert table["bulk"].to_dict() == pytest.approx({t.number: t.value("bulk") for t in run.trials})
    assert table.loc[0, "coverage"] == 1.0


def test_it_is_all_there_in_a_browser(run, serve, open_page, keep):
    page = open_page(serve(run.folder))
    page.wait_for_function("document.body.dataset.candidates > 0")
    page.wait_for_function("[...document.querySelectorAll('.views .plot')].every(plot => plot.ruled)")
    shown = page.evaluate(
        "[...document.querySelectorAll('.views .plot')].map(plot => [plot.dataset.x, plot.dataset.y])"
    )
    assert shown[3:] == [["size_bytes", one.value] for one in run.criteria]
    script = "document.querySelector('#size-bulk-plot canvas').points.map(({ row, y }) => [row.trial, y])"
    assert dict(page.evaluate(script)) == pytest.approx({t.number: t.value("bulk") for t in run.trials}, rel=1e-4)
    page.select_option("#colour-choice", "coverage")
    page.wait_for_selector("#colour-legend .ramp")
    page.focus("#max_bulk")
    page.keyboard.press("Home")
    page.wait_for_function("document.getElementById('left').textContent.startsWith('1 of ')")
    assert page.inner_text("#max_bulk-text").startswith("at most ")
    number = run.front_trials()[0].number
    page.click(f"#table [aria-label='select trial {number}']")
    page.wait_for_selector("#candidate .numbers")
    told = page.inner_text("#candidate .numbers")
    assert "bulk <b>" in told
    assert "the worst of 2)" in told
    keep(page, "further")


def test_the_report_takes_no_title_for_markup(run, tmp_path):
    from slimfront.studies.report import report

    report(run, tmp_path / "report.html")

    class Bold(HTMLParser):
        texts: tuple[str, ...] = ()
        inside = False

        def handle_starttag(self, tag, attrs):
            self.inside = tag == "b"

        def handle_data(self, data):
            self.texts += (data,) if "bulk <b>" in data else ()
            assert not (self.inside and data.startswith(("bulk", ";")))

    parser = Bold()
    parser.feed((tmp_path / "report.html").read_text().split("<script", 1)[0])
    assert parser.texts
