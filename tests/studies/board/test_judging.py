"""Blind judging: in the browser, what is asked next, and what comes of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slimfront.studies.board.callbacks import unlike_psnr
from slimfront.studies.board.judge import Sessions, disagreements, next_question
from slimfront.studies.review import Judgement, Note, Review, now
from slimfront.studies.run import Run


def judgement(image: int, left: str, right: str, better: str, session: str = "s") -> Judgement:
    return Judgement(who="", when=now(), session=session, image=image, left=left, right=right, better=better)


@pytest.mark.parametrize("width", [1280, 390])
def test_a_session_is_judged_with_buttons_and_keys(
    run_folder: Path, serve: Callable, open_page: Callable, keep: Callable, width: int
):
    run = Run(run_folder)
    listed = [trial for trial in run.front_trials() if trial.number][:1]
    Review(run_folder).add(Note(who="", when=now(), trial=listed[0].number, key=listed[0].candidate.key))
    page = open_page(serve(run_folder, judge=True), width)
    assert page.url.endswith("/judge/0")
    page.wait_for_selector("#stage img")
    page.wait_for_function(
        "Array.from(document.querySelectorAll('#stage img')).every(i => i.complete && i.naturalWidth > 0)"
    )
    keep(page, f"judging-{width}")
    shown = page.inner_text("#page")
    assert f"trial {listed[0].number}" not in shown and "reference" not in shown.split("What people prefer")[0]
    page.fill("#judge-why", "sharper <b>")
    page.click("#judge-left")
    page.wait_for_function("document.querySelector('#judge-count')?.textContent.startsWith('1 judged')")
    page.locator("h1").click()
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('#judge-count')?.textContent.startsWith('2 judged')")
    page.reload()
    page.wait_for_function("document.querySelector('#judge-count')?.textContent.startsWith('2 judged')")
    page.click("#judge-right")
    page.wait_for_function("document.querySelector('#judge-count')?.textContent.startsWith('All pairs')")
    assert page.is_disabled("#judge-left")
    page.click("#open-results")
    page.wait_for_selector("#results table")
    said = Review(run_folder).judgements
    assert [one.better for one in said] == ["left", "neither", "right"]
    assert said[0].text == "sharper <b>"
    assert {one.image for one in said} == {0, 1, 2}
    assert all({one.left, one.right} == {run.reference.candidate.key, listed[0].candidate.key} for one in said)


def test_each_pair_is_asked_once_on_each_image_and_evenly():
    done: list[tuple[int, int, int]] = []
    sides = set()
    while (asked := next_question([0, 3, 5], 4, done, "seed")) is not None:
        done.append((asked.image, asked.left, asked.right))
        sides.add(asked.left < asked.right)
        counts = [sum({a, b} == set(pair) for _, a, b in done) for pair in itertools.combinations([0, 3, 5], 2)]
        assert max(counts) - min(counts) <= 1
    assert len({(image, *sorted(pair)) for image, *pair in done}) == len(done) == 12
    assert sides == {True, False}


def test_a_question_is_asked_again_until_it_is_answered():
    assert next_question([0, 1], 5, [], "a") == next_question([0, 1], 5, [], "a")
    assert len({next_question([0, 1], 50, [], str(seed)) for seed in range(20)}) > 5


def test_there_is_nothing_to_ask_of_one_candidate():
    assert next_question([0], 5, [], "a") is None


def test_where_people_prefer_what_psnr_does_not_is_pointed_out():
    psnr = {"a": np.array([30.0, 30.0]), "b": np.array([29.0, 31.0])}
    said = [judgement(0, "b", "a", "left"), judgement(1, "b", "a", "left"), judgement(0, "a", "b", "neither")]
    (found,) = disagreements(said, psnr)
    assert (found.image, found.preferred, found.other, found.votes) == (0, "b", "a", 1)
    assert found.lost_db == pytest.approx(1.0)


def test_people_who_contradict_each_other_disagree_with_nobody():
    said = [judgement(0, "b", "a", "left"), judgement(0, "b", "a", "right", "other")]
    assert disagreements(said, {"a": np.array([30.0]), "b": np.array([29.0])}) == []


def test_a_question_is_answered_once_and_of_those_that_were_shown(tmp_path: Path):
    sessions, review = Sessions(), Review(tmp_path)
    trials = {0: "r", 3: "a"}
    first = sessions.ask("s", trials, 2, review)
    assert first is not None and first.count == 0
    assert sessions.ask("s", {0: "r", 7: "new"}, 2, review) == first  # the front has changed meanwhile
    assert sessions.answer("s", 0, "left", "Ada", "", review)
    assert not sessions.answer("s", 0, "left", "Ada", "", review)
    second = sessions.ask("s", {0: "r", 7: "new"}, 2, review)
    assert second is not None and second.count == 1 and set(second.keys) == {0, 3}
    assert not sessions.answer("other", 1, "left", "Ada", "", review)
    assert [{one.left, one.right} for one in review.judgements] == [{"r", "a"}]


def test_an_image_is_marked_where_people_prefer_what_psnr_does_not():
    said = [judgement(image, "a", "b", "left") for image in range(3)]
    psnr = {
        "a": np.array([30.0, 31.0, 29.95]),
        "b": np.array([31.0, 30.0, 30.0]),
    }  # the last differ by less than is seen
    assert unlike_psnr(said, psnr, ("trial 1", "the reference")) == {0: "people prefer trial 1"}
    assert unlike_psnr(said, {"a": psnr["a"]}, ("trial 1", "trial 1")) == {}
