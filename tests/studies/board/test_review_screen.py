"""The review screen in a real browser: the front is looked at, budgets are moved, pictures are compared, one is shipped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from slimfront.studies.review import Review
from slimfront.studies.run import Run
from slimfront.studies.verify import verify

OPACITIES = """document.querySelector('#size-speed .js-plotly-plot').data.slice(0, 3)
    .filter(trace => trace.x.length).flatMap(trace => [trace.marker.opacity].flat())"""


def ready(page) -> None:
    """Wait until the front is drawn."""
    page.wait_for_selector("#speed-quality .js-plotly-plot")
    page.wait_for_function("document.body.dataset.candidates > 0")
    page.wait_for_function(
        "document.querySelector('#size-speed .js-plotly-plot')?.data?.slice(0, 3).some(trace => trace.x.length > 0)"
    )


def slide(page, name: str, value: int) -> None:
    """Move a slider with the keys, as far as it goes."""
    page.focus(f"#{name}")
    page.keyboard.press("Home" if value == 0 else "End")


def points(page, view: str) -> dict[int, tuple[float, float, float]]:
    """Return what a view shows: by trial, x, y and opacity."""
    script = """view => document.querySelector(`#${view} .js-plotly-plot`).data.slice(0, 3).flatMap(trace =>
        Array.from(trace.customdata).map((trial, i) =>
            [trial, trace.x[i], trace.y[i], [trace.marker.opacity].flat()[i] ?? trace.marker.opacity]))"""
    found = page.evaluate(script, view)
    return {trial: (x, y, opacity) for trial, x, y, opacity in found}


def choose(page, number: int) -> None:
    page.click(f"#table [aria-label='select trial {number}']")
    page.wait_for_selector("#stage")
    page.wait_for_function(
        "Array.from(document.querySelectorAll('#stage img')).every(i => i.complete && i.naturalWidth > 0)"
    )


def compressed(run: Path) -> int:
    """Return a member of the front that is not the reference."""
    return next(trial.number for trial in Run(run).front_trials() if trial.number)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_candidate_is_looked_at_and_compared(
    finished_run: Path, serve: Callable, open_page: Callable, keep: Callable, width: int
):
    page = open_page(serve(finished_run), width)
    ready(page)
    run = Run(finished_run)
    shown = points(page, "size-speed")
    measured = {trial.number: trial for trial in run.trials if trial.measured}
    assert set(shown) >= set(measured)
    for number, trial in measured.items():
        assert shown[number][:2] == pytest.approx((trial.value("size_bytes"), trial.value("speedup")), rel=1e-5)
    number = compressed(finished_run)
    choose(page, number)
    assert f"Trial {number}" in page.inner_text("#candidate h2")
    ring = page.evaluate("document.querySelector('#size-speed .js-plotly-plot').data[3].x.slice()")
    assert measured[number].value("size_bytes") in [pytest.approx(x, rel=1e-5) for x in ring]
    page.focus("#split")
    page.keyboard.press("Home")
    assert page.evaluate("document.querySelector('#stage').style.getPropertyValue('--split')") == "0%"
    page.click("[data-act=tile]")
    zoomed = float(page.get_attribute("#stage", "data-zoom"))
    assert zoomed >= 2.0
    page.click("[data-act=in]")
    assert float(page.get_attribute("#stage", "data-zoom")) == pytest.approx(1.3 * zoomed, rel=0.01)
    box = page.locator("#stage .pane").first.bounding_box()
    page.locator("#stage .pane").first.scroll_into_view_if_needed()
    box = page.locator("#stage .pane").first.bounding_box()
    before = page.evaluate("document.querySelector('#stage').style.getPropertyValue('--x')")
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 90, box["y"] + 60)
    page.mouse.up()
    assert page.evaluate("document.querySelector('#stage').style.getPropertyValue('--x')") != before
    transforms = page.evaluate(
        "Array.from(document.querySelectorAll('#stage img')).map(i => getComputedStyle(i).transform)"
    )
    assert len(transforms) == 3 and len(set(transforms)) == 1  # both pictures and their difference move together
    page.click("[data-act=whole]")
    assert page.get_attribute("#stage", "data-zoom") == "1.00"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    keep(page, f"candidate-{width}")


def test_budgets_grey_out_what_does_not_fit(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    slide(page, "max_size", 0)
    page.wait_for_function("document.querySelector('#max_size-text').textContent.startsWith('at most')")
    page.wait_for_function("/^(\\d+|none) of/.test(document.querySelector('#left').textContent)")
    smallest = min(trial.value("size_bytes") for trial in Run(finished_run).trials if trial.measured)
    page.wait_for_function(f"({OPACITIES}).some(opacity => opacity < 1)")
    shown = points(page, "size-speed")
    faint = {number for number, (_, _, opacity) in shown.items() if opacity < 1}
    assert faint == {number for number, (size, _, _) in shown.items() if size > 1.01 * smallest and number}
    page.click("#free")
    page.wait_for_function("document.querySelector('#max_size-text').textContent === 'any'")
    page.wait_for_function(f"({OPACITIES}).every(opacity => opacity === 1)")


def test_ranges_drawn_on_parallel_axes_choose_candidates(
    finished_run: Path, serve: Callable, open_page: Callable, keep: Callable
):
    page = open_page(serve(finished_run))
    ready(page)
    page.click("#open-parallel")
    page.wait_for_function(
        "document.querySelector('#parallel .js-plotly-plot')?.data?.[0].dimensions[0].values?.length > 0"
    )
    axis = page.locator("#parallel .axis-brush").first
    axis.scroll_into_view_if_needed()
    box = axis.bounding_box()
    x = box["x"] + box["width"] / 2
    page.mouse.move(x, box["y"] + 0.97 * box["height"])
    page.mouse.down()
    page.mouse.move(x, box["y"] + 0.6 * box["height"], steps=8)
    page.mouse.up()
    page.wait_for_function(f"({OPACITIES}).some(opacity => opacity < 1)")
    shown = [(size, opacity) for number, (size, _, opacity) in points(page, "size-speed").items() if number]
    kept, left_out = ([size for size, opacity in shown if (opacity == 1) is whole] for whole in (True, False))
    assert kept and left_out  # a range of sizes was drawn
    assert not [size for size in left_out if min(kept) <= size <= max(kept)]
    keep(page, "parallel")


def test_points_are_coloured_by_a_parameter(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    page.select_option("#colour-choice", label="weight bits of conv1")
    page.wait_for_function("document.querySelector('#colour-legend').textContent.includes('yellow')")
    page.wait_for_function(
        "Array.isArray(document.querySelector('#size-speed .js-plotly-plot').data[2].marker.colorscale)"
    )
    run = Run(finished_run)
    script = """document.querySelector('#size-speed .js-plotly-plot').data.slice(0, 3).flatMap(trace =>
        Array.from(trace.customdata).map((trial, i) => [trial, trace.marker.color[i]]))"""
    for number, value in page.evaluate(script):
        assert value == run.any_trial(number).candidate.choice("conv1").weight_bits


def test_the_view_in_three_dimensions_shows_all(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    page.click("#open-space")
    page.wait_for_function(
        "document.querySelector('#space .js-plotly-plot')?.data?.reduce((n, trace) => n + trace.x.length, 0)"
        " == document.body.dataset.candidates"
    )


def test_a_candidate_is_shortlisted_and_shipped_with_its_reason(
    run_folder: Path, serve: Callable, open_page: Callable, keep: Callable
):
    page = open_page(serve(run_folder))
    ready(page)
    number = compressed(run_folder)
    choose(page, number)
    page.fill("#who", "Ada <b>")
    page.keyboard.press("Tab")
    page.fill("#note", "<script>document.title='note'</script> small enough")
    page.click("#shortlist-add")
    page.wait_for_selector("#shortlist table")
    assert "<script>" in page.inner_text("#shortlist")
    page.fill("#why", "the smallest that keeps <i>edges</i>")
    page.fill("#bundle", "../outside")
    page.click("#ship")
    page.wait_for_selector("#shipped .trouble")
    assert not (run_folder.parent / "outside").exists()
    page.fill("#bundle", "first")
    page.click("#ship")
    page.wait_for_selector("#shipped code", timeout=180_000)
    bundle = run_folder / "bundles" / "first"
    assert verify(bundle)["holds"]
    decision = Review(run_folder).decisions[0]
    assert (decision.trial, decision.who, decision.text) == (number, "Ada <b>", "the smallest that keeps <i>edges</i>")
    assert decision.against
    card = (bundle / "card.md").read_text(encoding="utf-8")
    assert "keeps \\<i\\>edges" in card and not re.search(r"(?<!\\)<\w", card)  # the study's name has markup, too
    assert json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["decision"]["who"] == "Ada <b>"
    page.wait_for_function("document.querySelector('#shortlist').textContent.includes('Shipped')")
    assert page.title() == "slimfront board"  # no markup was run
    keep(page, "shipped")


def test_all_is_reached_with_the_keyboard_alone(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    page.keyboard.press("Tab")
    reached: set[str] = set()
    for _ in range(60):
        reached.add(
            page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label') || ''")
        )
        if page.evaluate("document.activeElement.closest('#table') && document.activeElement.tagName === 'BUTTON'"):
            break
        page.keyboard.press("Tab")
    assert {"max_size", "max_latency", "min_speedup", "max_drop", "colour-choice", "open-space"} <= reached
    page.keyboard.press("Enter")
    page.wait_for_selector("#stage")
    page.focus("#stage .pane")
    page.keyboard.press("+")
    assert page.get_attribute("#stage", "data-zoom") == "1.30"
    page.keyboard.press("0")
    assert page.get_attribute("#stage", "data-zoom") == "1.00"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('#stage') !== null")


@pytest.mark.parametrize("width", [1280, 390])
def test_contrast_and_labels_meet_wcag_aa(finished_run: Path, serve: Callable, open_page: Callable, width: int):
    from axe_playwright_python.sync_playwright import Axe

    page = open_page(serve(finished_run), width)
    ready(page)
    choose(page, compressed(finished_run))
    page.click("#open-parallel")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]})
    told = [(rule["id"], node["html"][:200]) for rule in found.response["violations"] for node in rule["nodes"]]
    assert told == []


def test_any_trial_is_selected_by_its_number(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    number = max(points(page, "size-speed"))
    page.fill("#go", str(number))
    page.keyboard.press("Enter")
    page.wait_for_function(f"document.querySelector('#candidate h2')?.textContent.startsWith('Trial {number}')")


def test_where_the_time_goes_is_measured_when_it_is_asked_for(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    number = compressed(finished_run)
    choose(page, number)
    page.click("#measure")
    page.wait_for_selector("#times table")
    text = page.inner_text("#times")
    assert f"Trial {number}" in text and all(name in text for name in ("conv0", "conv1", "conv2"))
