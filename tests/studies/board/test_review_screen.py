"""The review screen in a real browser: the front is looked at, budgets are moved, pictures are compared, one is shipped."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from slimfront.studies.neighbours import neighbours
from slimfront.studies.review import Review
from slimfront.studies.run import Run
from slimfront.studies.verify import verify

from ...verified import failed

POINTS = "document.querySelector('#size-speed-plot canvas').points"
OPACITIES = f"{POINTS}.map(point => point.opacity)"
WIDTHS = pytest.mark.parametrize("width", [1280, 390])


def ready(page) -> None:
    """Wait until the front is drawn, with its axes."""
    page.wait_for_function("document.body.dataset.candidates > 0")
    page.wait_for_function("[...document.querySelectorAll('.views .plot')].every(plot => plot.ruled)")


def slide(page, name: str, value: int) -> None:
    """Move a slider with the keys, as far as it goes."""
    page.focus(f"#{name}")
    page.keyboard.press("Home" if value == 0 else "End")


def points(page, view: str) -> dict[int, tuple[float, float, float]]:
    """Return what a view shows: by trial, x, y and opacity."""
    script = """view => document.querySelector(`#${view}-plot canvas`).points.map(({ row, x, y, opacity }) =>
        [row.trial, x, y, opacity])"""
    return {trial: (x, y, opacity) for trial, x, y, opacity in page.evaluate(script, view)}


def place(page, number: int) -> tuple[float, float]:
    """Return where on the page a trial's point lies in the first view."""
    page.locator("#size-speed-plot").scroll_into_view_if_needed()
    script = f"""number => {{
        const box = document.querySelector('#size-speed-plot canvas').getBoundingClientRect();
        const point = {POINTS}.find(({{ row }}) => row.trial === number);
        return [box.x + point.left, box.y + point.top];
    }}"""
    x, y = page.evaluate(script, number)
    return x, y


def choose(page, number: int) -> None:
    page.click(f"#table [aria-label='select trial {number}']")
    page.wait_for_selector("#stage")
    page.wait_for_function(
        "Array.from(document.querySelectorAll('#stage img')).every(i => i.complete && i.naturalWidth > 0)"
    )


def part(kind: str) -> str:
    """Return the selector of a part of the section of the trial that is shown."""
    return f"#candidate [id*='\"{kind}\"']"


def compressed(run: Path) -> int:
    """Return a member of the front that is not the reference."""
    return next(trial.number for trial in Run(run).front_trials() if trial.number)


@WIDTHS
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
    assert page.evaluate("document.querySelector('#size-speed-plot canvas').rings.map(row => row.trial)") == [number, 0]
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


def test_two_fingers_zoom_the_pictures(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run), 390)
    ready(page)
    choose(page, compressed(finished_run))
    pane = page.locator("#stage .pane").first
    pane.scroll_into_view_if_needed()
    box = pane.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, apart: float) -> None:
        places = [{"x": x - apart, "y": y, "id": 1}, {"x": x + apart, "y": y, "id": 2}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [] if kind == "touchEnd" else places})

    for kind, apart in (("touchStart", 20), ("touchMove", 30), ("touchMove", 50), ("touchEnd", 0)):
        fingers(kind, apart)
    page.wait_for_function("Number(document.querySelector('#stage').dataset.zoom) > 2.4")
    assert float(page.get_attribute("#stage", "data-zoom")) == pytest.approx(2.5, rel=0.02)


@WIDTHS
def test_budgets_grey_out_what_does_not_fit(finished_run: Path, serve: Callable, open_page: Callable, width: int):
    page = open_page(serve(finished_run), width)
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


@WIDTHS
def test_ranges_drawn_on_parallel_axes_choose_candidates(
    finished_run: Path, serve: Callable, open_page: Callable, keep: Callable, width: int
):
    page = open_page(serve(finished_run), width)
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
    keep(page, f"parallel-{width}")


def test_ranges_can_be_typed_and_a_candidate_that_lacks_a_number_has_no_line(
    finished_run: Path, serve: Callable, open_page: Callable
):
    page = open_page(serve(finished_run))
    ready(page)
    page.click("#open-parallel")
    lines = "document.querySelector('#parallel .js-plotly-plot')?.data?.[0]?.dimensions[0].values"
    page.wait_for_function(f"{lines}?.length > 0")
    measured = [trial for trial in Run(finished_run).trials if trial.measured]
    assert page.evaluate(f"{lines}.length") == len(measured)
    middle = sorted(trial.value("size_bytes") for trial in measured)[len(measured) // 2]
    page.fill("#size_bytes-high", str(int(middle)))
    page.keyboard.press("Enter")
    page.wait_for_function(f"({OPACITIES}).some(opacity => opacity < 1)")
    for number, (size, _, opacity) in points(page, "size-speed").items():
        assert (opacity == 1) == (size <= middle or number == 0)
    page.fill("#size_bytes-high", "")
    page.keyboard.press("Enter")
    page.wait_for_function(f"({OPACITIES}).every(opacity => opacity === 1)")


def test_a_point_tells_of_its_candidate_and_a_click_selects_it(
    finished_run: Path, serve: Callable, open_page: Callable
):
    page = open_page(serve(finished_run))
    ready(page)
    dominated = {trial.number for trial in Run(finished_run).trials if trial.measured} - {
        trial.number for trial in Run(finished_run).front_trials()
    }
    for number in (compressed(finished_run), *sorted(dominated)[-1:]):
        page.mouse.move(*place(page, number))
        page.wait_for_function(
            f"document.querySelector('#size-speed-plot .told').textContent.startsWith('trial {number}')"
        )
        page.mouse.click(*place(page, number))
        page.wait_for_function(f"document.querySelector('#candidate h2')?.textContent.startsWith('Trial {number}')")


AXES = "document.querySelector('#size-quality .js-plotly-plot')._fullLayout"


def axes(page) -> tuple[list[float], list[float]]:
    """Return the ends of both axes of the second view, whose points and axes must lie alike."""
    found = page.evaluate(f"[{AXES}.xaxis.range, {AXES}.yaxis.range]")
    canvas = "document.querySelector('#size-quality-plot canvas')"
    shown = page.evaluate(f"{canvas}.points.map(({{ x, y, left, top }}) => [x, y, left, top])")
    box = page.evaluate(f"[{canvas}.clientWidth, {canvas}.clientHeight]")
    (low, high), (bottom, top) = found
    for x, y, left, down in shown:
        assert left == pytest.approx(box[0] * (math.log10(x) - low) / (high - low), abs=1.0)
        assert down == pytest.approx(box[1] * (top - y) / (top - bottom), abs=1.0)
    return found[0], found[1]


def drag(page, across: tuple[float, float], down: tuple[float, float]) -> None:
    """Draw a box over the second view, in parts of its width and height."""
    page.locator("#size-quality-plot").scroll_into_view_if_needed()
    box = page.locator("#size-quality-plot canvas").bounding_box()
    page.mouse.move(box["x"] + across[0] * box["width"], box["y"] + down[0] * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + across[1] * box["width"], box["y"] + down[1] * box["height"], steps=6)
    page.mouse.up()
    page.wait_for_timeout(800)


def test_a_view_is_zoomed_along_one_axis_or_both_and_shows_all_again(
    finished_run: Path, serve: Callable, open_page: Callable
):
    page = open_page(serve(finished_run))
    ready(page)
    x, y = axes(page)
    drag(page, (0.3, 0.7), (0.5, 0.51))  # a flat box: along x alone
    zoomed, kept = axes(page)
    assert x[0] < zoomed[0] < zoomed[1] < x[1] and kept == pytest.approx(y)
    drag(page, (0.2, 0.8), (0.2, 0.8))
    both, upright = axes(page)
    assert zoomed[0] < both[0] and y[0] < upright[0] < upright[1] < y[1]
    assert page.inner_text("#candidate") == ""  # a drag selects nothing
    page.locator("#size-quality-plot canvas").dblclick(force=True, position={"x": 5, "y": 5})
    page.wait_for_timeout(800)
    assert axes(page) == (pytest.approx(x), pytest.approx(y))


def test_news_leave_a_zoomed_axis_as_it_is(run_folder: Path, serve: Callable, open_page: Callable):
    path = run_folder / "records.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: len(lines) // 2]))
    page = open_page(serve(run_folder))
    ready(page)
    before = int(page.evaluate("document.body.dataset.candidates"))
    drag(page, (0.3, 0.7), (0.5, 0.51))
    zoomed, _ = axes(page)
    with path.open("ab") as file:
        file.write(b"".join(lines[len(lines) // 2 :]))
    page.wait_for_function(f"document.body.dataset.candidates > {before}")
    page.wait_for_timeout(500)
    assert axes(page)[0] == pytest.approx(zoomed)


@pytest.mark.parametrize("scale", [1, 2])
def test_points_are_painted_where_they_lie(finished_run: Path, serve: Callable, browser, scale: int):
    context = browser.new_context(viewport={"width": 390, "height": 900}, device_scale_factor=scale, has_touch=True)
    page = context.new_page()
    page.goto(serve(finished_run))
    ready(page)
    painted = """([left, top]) => {
        const canvas = document.querySelector('#size-quality-plot canvas'), scale = canvas.width / canvas.clientWidth;
        return [...canvas.getContext('2d').getImageData(Math.round(left * scale), Math.round(top * scale), 1, 1).data];
    }"""
    shown = page.evaluate(
        "document.querySelector('#size-quality-plot canvas').points.map(({ row, left, top }) => [row.trial, left, top])"
    )
    for number, left, top in shown:
        *colour, opacity = page.evaluate(painted, [left, top])
        known = {(11, 107, 116), (28, 36, 48), (138, 148, 159)}  # of the front, the reference and the others
        assert opacity > 200 and tuple(colour) in known, number
    assert page.evaluate(painted, [1, 1])[3] == 0
    number, left, top = shown[-1]
    page.locator("#size-quality-plot").scroll_into_view_if_needed()
    box = page.locator("#size-quality-plot canvas").bounding_box()
    page.touchscreen.tap(box["x"] + left, box["y"] + top)
    page.wait_for_function("document.querySelector('#candidate h2')")
    context.close()


def test_views_are_saved_as_pictures(finished_run: Path, serve: Callable, open_page: Callable, tmp_path: Path):
    page = open_page(serve(finished_run))
    ready(page)
    for kind, begin in (("svg", b"<svg"), ("png", b"\x89PNG")):
        with page.expect_download() as waited:
            page.click(f"#save-{kind}")
        waited.value.save_as(tmp_path / "view")
        assert (tmp_path / "view").read_bytes().startswith(begin)
        if kind == "svg":
            drawn = (tmp_path / "view").read_text(encoding="utf-8")
            assert drawn.count('class="point"') >= len(points(page, "size-speed"))


def test_points_are_coloured_by_a_parameter(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    page.select_option("#colour-choice", label="weight bits of conv1")
    page.wait_for_selector("#colour-legend .ramp")
    page.wait_for_function(f"{POINTS}.every(point => point.color.startsWith('rgb'))")
    run = Run(finished_run)
    colours = dict(page.evaluate(f"{POINTS}.map(({{ row, color }}) => [row.trial, color])"))
    bits = {number: run.any_trial(number).candidate.choice("conv1").weight_bits for number in colours}
    assert len(set(bits.values())) > 1
    assert {(colours[one] == colours[two]) == (bits[one] == bits[two]) for one in bits for two in bits} == {True}
    low, high = page.inner_text("#colour-legend").split()
    assert (float(low), float(high)) == (min(bits.values()), max(bits.values()))
    page.select_option("#colour-choice", label="base")
    page.wait_for_function("document.querySelector('#colour-legend').textContent.trim() === 'reference'")


def test_the_view_in_three_dimensions_shows_all(finished_run: Path, serve: Callable, open_page: Callable):
    page = open_page(serve(finished_run))
    ready(page)
    page.click("#open-space")
    page.wait_for_function(
        "document.querySelector('#space .js-plotly-plot')?.data?.reduce((n, trace) => n + trace.x.length, 0)"
        " == document.body.dataset.candidates"
    )


@WIDTHS
def test_a_candidate_is_shortlisted_and_shipped_with_its_reason(
    run_folder: Path, serve: Callable, open_page: Callable, keep: Callable, width: int
):
    page = open_page(serve(run_folder), width)
    ready(page)
    number = compressed(run_folder)
    choose(page, number)
    page.fill("#who", "Ada <b>")
    page.keyboard.press("Tab")
    page.fill("#note", "<script>document.title='note'</script> small enough")
    page.click(part("add"))
    page.wait_for_selector("#shortlist table")
    assert "<script>" in page.inner_text("#shortlist")
    page.fill("#why", "the smallest that keeps <i>edges</i>")
    page.fill("#bundle", "../outside")
    page.click(part("ship"))
    page.wait_for_selector(f"{part('shipped')} .trouble")
    assert not (run_folder.parent / "outside").exists()
    page.fill("#bundle", "first")
    page.click(part("ship"))
    page.wait_for_selector(f"{part('shipped')} code", timeout=180_000)
    bundle = run_folder / "bundles" / "first"
    assert not failed(verify(bundle))
    decision = Review(run_folder).decisions[0]
    assert (decision.trial, decision.who, decision.text) == (number, "Ada <b>", "the smallest that keeps <i>edges</i>")
    run = Run(run_folder)
    assert decision.against == tuple(one.trial.number for one in neighbours(run, run.any_trial(number)))
    card = (bundle / "card.md").read_text(encoding="utf-8")
    assert "keeps \\<i\\>edges" in card and not re.search(r"(?<!\\)<\w", card)  # the study's name has markup, too
    assert json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))["decision"]["who"] == "Ada <b>"
    page.wait_for_function("document.querySelector('#shortlist').textContent.includes('Shipped')")
    assert page.title() == "slimfront board"  # no markup was run
    keep(page, f"shipped-{width}")


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


@WIDTHS
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
    page.click(part("measure"))
    page.wait_for_selector(f"{part('times')} table")
    text = page.inner_text(part("times"))
    assert f"Trial {number}" in text and all(name in text for name in ("conv0", "conv1", "conv2"))
    titles = page.eval_on_selector_all(f"{part('layers')} .strip i", "cells => cells.map(cell => cell.title)")
    parts = [float(re.search(r"([0-9.]+)% of the predicted error", title).group(1)) for title in titles]
    assert sum(parts) == pytest.approx(100.0, abs=0.2)
    assert "its part of the predicted error" in page.inner_text(part("layers"))


def test_what_was_begun_for_one_candidate_is_not_shown_of_another(
    run_folder: Path, serve: Callable, open_page: Callable
):
    page = open_page(serve(run_folder))
    ready(page)
    first = compressed(run_folder)
    other = next(trial.number for trial in Run(run_folder).front_trials() if trial.number != first)
    choose(page, first)
    page.fill("#bundle", "first")
    page.click(part("ship"))
    page.click(part("measure"))
    measure = page.locator(part("measure"))
    page.click(f"#table [aria-label='select trial {other}']")
    named = f"document.querySelector('#candidate h2').textContent.startsWith('Trial {other}')"
    page.wait_for_function(named, timeout=5_000)
    assert measure.is_enabled()
    strip = page.inner_html(f"{part('layers')} .strip")
    page.wait_for_function(
        "document.querySelector('#shortlist').textContent.includes('Shipped')", timeout=180_000
    )  # it goes on
    page.wait_for_timeout(1000)
    assert Review(run_folder).decisions[0].trial == first
    assert page.inner_text(part("shipped")) == "" and page.inner_html(f"{part('layers')} .strip") == strip
    assert page.is_enabled(part("ship")) and page.is_enabled(part("measure"))


def test_two_pages_of_one_run_see_what_is_said_on_either(run_folder: Path, serve: Callable, open_page: Callable):
    address = serve(run_folder)
    one, two = open_page(address), open_page(address, 390)
    for page in (one, two):
        ready(page)
    number = compressed(run_folder)
    choose(one, number)
    one.fill("#note", "looks good")
    one.click(part("add"))
    two.wait_for_function("document.querySelector('#shortlist')?.textContent.includes('looks good')")
    assert two.inner_text("#candidate") == ""  # what is selected is each page's own
    slide(two, "max_size", 0)
    two.wait_for_function(f"({OPACITIES}).some(opacity => opacity < 1)")
    assert one.evaluate(f"({OPACITIES}).every(opacity => opacity === 1)")
