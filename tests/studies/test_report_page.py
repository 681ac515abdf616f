"""The report: one page, nothing loaded from elsewhere, all texts escaped, its views linked in a real browser."""

from __future__ import annotations

import html.parser
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.report import report
from slimfront.studies.run import Run

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NASTY = '<img src=x onerror="alert(1)">&amp; name'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Run:
    from slimfront.search.loop import search
    from slimfront.studies.study import Study

    study = Study(tiny_model, pictures(4, 1), (pictures(3, 2), pictures(3, 3)), name=NASTY.replace("/", ""))
    return search(study, trials=9, run_dir=tmp_path_factory.mktemp("report") / "run", sampler="random")


@pytest.fixture(scope="module")
def page(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    assert report(run, path) == []
    return path


class Reader(html.parser.HTMLParser):
    """Collects tags with their attributes, and the texts outside of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def read(page: Path) -> Reader:
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    return reader


def test_nothing_is_loaded_from_elsewhere(read: Reader):
    for tag, attributes in read.tags:
        assert tag not in ("link", "iframe", "object", "embed")
        assert "src" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        if tag == "a":
            assert (attributes["href"] or "").startswith("#")


def test_texts_are_escaped(read: Reader, run: Run):
    assert run.study_name in read.texts
    assert not any(attributes.get("onerror") for _, attributes in read.tags)


def test_page_is_small_enough(page: Path):
    assert page.stat().st_size < 10_000_000


def data_of(page: Path) -> dict:
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found is not None
    return json.loads(found[1], parse_constant=lambda name: pytest.fail(name))


def test_figures_table_and_pictures_show_the_front(page: Path, read: Reader, run: Run):
    front = {trial.number for trial in run.front_trials()}
    data = data_of(page)
    for figure in data["figures"].values():
        assert set(figure["data"][1]["customdata"]) == front
    assert set(map(int, data["points"])) == {trial.number for trial in run.trials if trial.measured}
    rows = {int(a["data-trial"] or 0) for tag, a in read.tags if tag == "tr" and "data-trial" in a}
    assert rows == {trial.number for trial in run.trials}
    cards = {int(a["data-trial"] or 0) for tag, a in read.tags if tag == "article"}
    assert cards == front - {run.reference.number}
    tiles = [a["data-tile"] for tag, a in read.tags if tag == "img"]
    assert len(tiles) == 9 * len(cards)
    assert set(tiles) == set(data["tiles"])
    cells = [a for tag, a in read.tags if tag == "i" and str(a.get("title", "")).startswith("conv")]
    assert len(cells) == 3 * len(cards)


@pytest.mark.skipif(BROWSER is None, reason="there is no browser")
def test_choosing_a_candidate_marks_it_everywhere(page: Path, run: Run, tmp_path: Path):
    chosen = next(trial.number for trial in run.front_trials() if trial.number != run.reference.number)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--virtual-time-budget=8000", "--dump-dom"]
    command = [str(BROWSER), *flags, f"--user-data-dir={tmp_path}", f"{page.as_uri()}#trial-{chosen}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    reader = Reader()
    reader.feed(done.stdout)
    selected = [attributes for _, attributes in reader.tags if "selected" in (attributes.get("class") or "").split()]
    assert [attributes["data-trial"] for attributes in selected] == [str(chosen)] * 2
    assert all(attributes["src"] for tag, attributes in reader.tags if tag == "img")
    plots = done.stdout.count('class="scatterlayer')
    assert plots == 4  # three views, and the hypervolume over the evaluations


def test_a_study_that_is_gone_costs_the_pictures_only(run: Run, tmp_path: Path):
    shutil.copytree(run.folder, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "study")
    [note] = report(Run(tmp_path / "run"), tmp_path / "report.html")
    assert "no pictures" in note
    assert "<article" in (tmp_path / "report.html").read_text()


def test_a_page_that_cannot_be_written_is_one_clear_line(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match="cannot write"):
        report(run, tmp_path / "no folder" / "report.html")


def test_outputs_that_are_no_pictures_are_said(tmp_path: Path):
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from slimfront.search.loop import search
    from slimfront.studies.study import Study

    weight = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "linear")],
        "flat",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), tmp_path / "m.onnx")
    values = np.random.default_rng(1).random((8, 8), np.float32)
    study = Study(tmp_path / "m.onnx", values[:4], values[4:], activation_bits=(32,))
    flat = search(study, trials=3, run_dir=tmp_path / "run", sampler="random")
    [note] = report(flat, tmp_path / "report.html")
    assert "no pictures" in note


def contrast(one: str, other: str) -> float:
    """WCAG 2.2: (L1 + 0.05) / (L2 + 0.05) of the relative luminances."""

    def luminance(color: str) -> float:
        parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_colours_have_enough_contrast():
    from slimfront.studies import figures
    from slimfront.studies.page import STYLE

    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", STYLE))
    for text in ("ink", "muted", "accent"):
        for ground in ("#ffffff", colours["soft"], colours["mark"]):
            assert contrast(colours[text], ground) >= 4.5
    for ground, text in re.findall(r"\.strip \.b\d+ \{ background: (#[0-9a-f]{6});(?: color: (#fff);)?", STYLE):
        assert contrast(ground, "#ffffff" if text else colours["ink"]) >= 4.5
    assert contrast(figures.GREY, "#ffffff") >= 3.0
    assert contrast(figures.ACCENT, "#ffffff") >= 4.5


def test_each_candidate_of_the_front_gets_the_command_that_explains_it(run: Run, read: Reader):
    commands = [text for text in read.texts if text.startswith("slimfront explain ")]
    numbers = [trial.number for trial in run.front_trials() if trial.number != run.reference.number]
    assert [int(command.rsplit("--trial ", 1)[1]) for command in commands] == numbers
    assert all(str(run.folder) in command for command in commands)
