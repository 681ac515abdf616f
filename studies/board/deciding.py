"""What people decide on the board: notes, the shortlist, shipping; and blind judgements. All of it writes into the run."""

from __future__ import annotations

import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dash import MATCH, Input, Output, State, ctx, html, no_update

from ...spaces.errors import InputError, SlimfrontError
from ..pick import choice_notes
from ..review import Note, Review, Side, now
from ..ship import ship, shipped_notes
from ..ship import shipped as shipped_row
from .callbacks import trouble
from .judge import Asked, disagreements, judged, summary
from .pages import question_view, results_view
from .parts import choose_button, of_trial, table

if TYPE_CHECKING:
    from dash import Dash

    from .boarded import Boarded, Boards

SAID = 2  # notes of every shipping: on what is being done
BUNDLES = "bundles"  # in a run's folder
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}")
SIDES: dict[str, Side] = {"judge-left": "left", "judge-right": "right", "judge-neither": "neither"}


def decide(app: Dash, boards: Boards) -> None:
    """Register what is decided."""
    _shortlist(app, boards)
    _ship(app, boards)
    _judge(app, boards)


def _shortlist(app: Dash, boards: Boards) -> None:
    @app.callback(
        Output(of_trial("drop", MATCH), "hidden"),
        Output(of_trial("add", MATCH), "children"),
        Input(of_trial("add", MATCH), "n_clicks"),
        Input(of_trial("drop", MATCH), "n_clicks"),
        State("note", "value"),
        State("who", "value"),
        State("run", "data"),
        prevent_initial_call=True,
    )
    def said(add: int | None, drop: int | None, text: str, who: str, index: int) -> Any:
        if not (add or drop):
            return no_update, no_update
        boarded, listed, number = boards[index], ctx.triggered_id["type"] == "add", ctx.triggered_id["trial"]
        key = boarded.followed.trial(number).candidate.key
        note = Note(who=who or "", when=now(), trial=number, key=key, shortlisted=listed, text=text or "")
        boarded.review.add(note)
        return not listed, "keep the note" if listed else "put it on the shortlist"

    @app.callback(
        Output("shortlist", "children"),
        Input("reviewed", "data"),
        State("run", "data"),
        prevent_initial_call=True,
    )
    def shown(_: int, index: int) -> Any:
        return review_view(boards[index].review)


def _ship(app: Dash, boards: Boards) -> None:
    @app.callback(
        Output(of_trial("shipped", MATCH), "children"),
        Input(of_trial("ship", MATCH), "n_clicks"),
        State("bundle", "value"),
        State("why", "value"),
        State("who", "value"),
        State("run", "data"),
        running=[(Output(of_trial("ship", MATCH), "disabled"), True, False)],
        prevent_initial_call=True,
    )
    def shipped(clicks: int | None, name: str, why: str, who: str, index: int) -> Any:
        if not clicks:
            return no_update
        followed = boards[index].followed
        try:
            folder = bundle_folder(followed.folder, name or "")
            run, notes = followed.read_again(), list[str]()
            trial = run.trial(ctx.triggered_id["trial"])
            ship(run, trial, folder, notes.append, why or "", who or "")
            notes = [*choice_notes(run, trial), *shipped_notes(trial, shipped_row(folder)), *notes[SAID:]]
        except SlimfrontError as error:
            return trouble(error)
        told: list[Any] = [
            "shipped to ",
            html.Code(str(folder)),
            "; check it anywhere with ",
            html.Code("slimfront verify"),
        ]
        return [html.P(told), *(html.P(note, className="note") for note in notes)]


def bundle_folder(run: Path, name: str) -> Path:
    """Return the folder of a bundle of this name, inside the run's.

    Raises:
        InputError: a name that could lead elsewhere.
    """
    if not NAME.fullmatch(name) or name.endswith((".", " ")):
        raise InputError(
            f"a bundle's name is made of letters, digits, spaces, dots, dashes and underscores, and begins with a letter or a "
            f"digit, but got {name!r}"
        )
    return run / BUNDLES / name


def review_view(review: Review) -> Any:
    """Return the shortlist and the decisions."""
    try:
        notes, decisions = review.shortlist, review.decisions
    except InputError as error:
        return trouble(error)
    shown: list[Any] = []
    if notes:
        rows = [
            html.Tr(
                [
                    html.Td(choose_button(note.trial, "shortlist")),
                    html.Td(note.text or "–", className="text"),
                    html.Td(f"{note.who or 'somebody'}, {note.when[:10]}", className="text"),
                ]
            )
            for note in notes
        ]
        shown.append(table(["trial", "note", "by"], rows, "Shortlist", ("note", "by")))
    if decisions:
        rows = [
            html.Tr(
                [
                    html.Td(choose_button(one.trial, f"decision-{place}")),
                    html.Td(one.text or "–", className="text"),
                    html.Td(f"{one.who or 'somebody'}, {one.when[:10]}", className="text"),
                    html.Td(", ".join(map(str, one.against)) or "–"),
                    html.Td(html.Code(one.bundle), className="text"),
                ]
            )
            for place, one in enumerate(decisions)
        ]
        shown.append(html.H3("Shipped"))
        shown.append(
            table(["trial", "why", "by", "beside trials", "bundle"], rows, "Decisions", ("why", "by", "bundle"))
        )
    return shown or html.P("Nothing yet: select a candidate, and put it on the shortlist.", className="note")


def _judge(app: Dash, boards: Boards) -> None:
    @app.callback(Output("session", "data"), Input("run", "data"), State("session", "data"))
    def session(_: int, known: str | None) -> Any:
        return no_update if known else secrets.token_hex(8)

    @app.callback(
        Output("judged", "data"),
        Output("judge-why", "value"),
        *(Input(side, "n_clicks") for side in SIDES),
        State("judge-why", "value"),
        State("who", "value"),
        State("session", "data"),
        State("asked", "data"),
        State("run", "data"),
        prevent_initial_call=True,
    )
    def answered(*given: Any) -> Any:
        *clicks, why, who, session_, count, index = given
        if not any(clicks) or not session_ or count is None:
            return no_update, no_update
        boarded, better = boards[index], SIDES[str(ctx.triggered_id)]
        kept = boarded.sessions.answer(session_, count, better, who or "", why or "", boarded.review)
        return (count + 1, "") if kept else (no_update, no_update)

    @app.callback(
        Output("question", "children"),
        Output("asked", "data"),
        Output("judge-count", "children"),
        *(Output(side, "disabled") for side in SIDES),
        Input("judged", "data"),
        Input("session", "data"),
        State("run", "data"),
    )
    def asked(_: int, session_: str | None, index: int) -> Any:
        boarded, off = boards[index], (True,) * len(SIDES)
        if not session_:
            return [], None, "", *off
        try:
            found = question(boarded, session_)
            if found is None:
                return [], None, "All pairs of all images are judged. Thank you.", *off
            trial = boarded.followed.trial(found.question.left)
            height, width = boarded.albums.of(trial).pictures.shape[1:3]
        except SlimfrontError as error:
            return trouble(error), None, "", *off
        count, image = found.count, found.question.image
        text = (
            f"{count} judged in this session; {len(found.keys)} candidates, each pair on {boarded.albums.count} images"
        )
        view = question_view(index, session_, count, image, (height, width))
        return view, count, text, *((False,) * len(SIDES))

    @app.callback(
        Output("results", "children"),
        Input("open-results", "n_clicks"),
        Input("judged", "data"),
        State("run", "data"),
        prevent_initial_call=True,
    )
    def results(clicks: int | None, _: int, index: int) -> Any:
        return results_of(boards[index]) if clicks else no_update


def question(boarded: Boarded, session: str) -> Asked | None:
    """Return what a session is asked; None where all is judged."""
    followed, review = boarded.followed, boarded.review
    front = [followed.trial(number) for number in followed.front]
    listed = [followed.trial(note.trial) for note in review.shortlist if note.trial in set(followed.numbers)]
    trials = judged(followed.run.reference, listed, front)
    keys = {trial.number: trial.candidate.key for trial in trials}
    return boarded.sessions.ask(session, keys, boarded.albums.count, review)


def results_of(boarded: Boarded) -> Any:
    """Return what people prefer of a run's candidates."""
    followed, review = boarded.followed, boarded.review
    trials = {trial.candidate.key: trial for trial in followed.trials()}
    numbers = {key: trial.number for key, trial in trials.items()}
    readings = boarded.preferences
    try:
        psnr = {key: boarded.albums.of(trials[key]).psnr_db for key in readings if key in trials}
    except SlimfrontError as error:
        return trouble(error)
    means = {numbers[key]: float(values.mean()) for key, values in psnr.items()}
    return results_view(
        summary(readings, numbers),
        means,
        disagreements(review.judgements, psnr),
        numbers,
        followed.run.reference.number,
    )
