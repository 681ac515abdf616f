"""A candidate on the board: its numbers, pictures, layers, neighbours, and how it differs from another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from dash import dcc, html

from ...spaces.candidate import Candidate
from .. import architecture
from ..criteria import further
from ..review import MOST_TEXT
from ..strip import Cell, Network, cells, choice_text, summary_text
from ..texts import (
    change_text,
    interval_text,
    number_text,
    ratio_text,
    reading_text,
    size_text,
    student_text,
    time_text,
)
from .costs import parts
from .parts import aria, choice, choose_button, of_trial, table

if TYPE_CHECKING:
    from ...objectives.protocol import Reading
    from ..review import Note
    from ..trial import Trial
    from .boarded import Boarded
    from .followed import Followed

COSTS_KEY = "; the bar over a cell: its part of the predicted error, beside that of the costliest layer"


def candidate_section(boarded: Boarded, trial: Trial) -> list[Any]:
    """Return what is shown of a candidate; its pictures, and what differs from another, come when they are made."""
    followed, review = boarded.followed, boarded.review
    network = followed.network(trial.candidate.base)
    preference = boarded.preferences.get(trial.candidate.key)
    return [
        html.H2([f"Trial {trial.number}", html.Small(f" {trial.label}" if trial.label else "")]),
        _numbers(followed, trial, preference),
        *_drawing(trial.candidate),
        html.Div(
            layers(trial.candidate, network, boarded.layer_errors(trial.candidate)), id=of_trial("layers", trial.number)
        ),
        _compare_row(followed, trial, review.shortlist),
        dcc.Loading(html.Div(id="pictures"), delay_show=300, color="#0b6b74"),
        html.Div(id="differences"),
        *_neighbours(followed, trial),
        html.H3("Where the time goes"),
        html.Button("measure it now, in some twenty seconds", id=of_trial("measure", trial.number)),
        dcc.Loading(html.Div(id=of_trial("times", trial.number)), delay_show=300, color="#0b6b74"),
        *_decide(trial, review.notes.get(trial.candidate.key)),
    ]


def _decide(trial: Trial, note: Note | None) -> list[Any]:
    listed = note is not None and note.shortlisted
    return [
        html.H3("Decide"),
        html.Label("Note", htmlFor="note"),
        dcc.Textarea(id="note", value=note.text if note else "", maxLength=MOST_TEXT, rows=2),
        html.Div(
            [
                html.Button("keep the note" if listed else "put it on the shortlist", id=of_trial("add", trial.number)),
                html.Button("take it off the shortlist", id=of_trial("drop", trial.number), hidden=not listed),
            ],
            className="row",
        ),
        html.Label("Why this one", htmlFor="why"),
        dcc.Textarea(id="why", maxLength=MOST_TEXT, rows=2),
        html.Div(
            [
                html.Label("Bundle", htmlFor="bundle"),
                dcc.Input(id="bundle", value=f"trial-{trial.number}", maxLength=100),
                html.Button("ship", id=of_trial("ship", trial.number), className="main"),
            ],
            className="row",
        ),
        html.P("Measured again in a fresh process, and kept in the run's folder under bundles/.", className="note"),
        dcc.Loading(html.Div(id=of_trial("shipped", trial.number), role="status"), delay_show=300, color="#0b6b74"),
    ]


def _numbers(followed: Followed, trial: Trial, preference: Reading | None) -> Any:
    row, reference = trial.row(), followed.run.reference.row()
    speed, timed = trial.speedup, trial.measured
    how = interval_text(speed.low, speed.high) if timed else "predicted, not timed"
    facts = [
        (size_text(row["size_bytes"]), f"{ratio_text(reference['size_bytes'], row['size_bytes'])} smaller"),
        (f"{number_text(speed.value)}×", f"{how}, {time_text(trial.latency_ms)}"),
        (
            f"{number_text(row['psnr_db'])} dB",
            change_text(reference, row) if followed.run.has_target else "against the reference's output",
        ),
        (number_text(row["ssim"], 4), "SSIM"),
    ]
    facts += [
        (reading_text(reading.value, reading.unit), words)
        for words, reading in further(followed.run.criteria, trial.stages)
    ]
    if preference is not None:
        facts.append(
            (f"{preference.value:.0%}", f"{preference.low:.0%} to {preference.high:.0%}, preferred to the reference")
        )
    return html.Ul([html.Li([html.B(value), " ", html.Span(words)]) for value, words in facts], className="numbers")


def _drawing(candidate: Candidate) -> list[Any]:
    if not candidate.student:
        return []
    drawn = architecture.drawing_svg(candidate.student)
    text = student_text(candidate.student)
    if drawn is None:
        return [html.P(text)]
    return [
        html.Figure(
            [html.Img(src=f"data:image/svg+xml,{quote(drawn)}", alt=text), html.Figcaption(text)], className="student"
        )
    ]


def layers(candidate: Candidate, network: Network, errors: Mapping[str, float]) -> list[Any]:
    """Return the strip of a candidate with what each layer costs, where that is known (`costs.layer_errors`), and its key."""
    text = summary_text(candidate, network)
    key = COSTS_KEY if any(errors.values()) else ""
    shown = [
        html.I(cell.bits, className=cell.classes, title=cell.title, style=_style(cell))
        for cell in cells(candidate, network, parts(errors))
    ]
    return [
        html.Div(shown, className="strip", role="img", **aria(label=text)),
        html.P(text + _repair(candidate) + key, className="note"),
    ]


def _style(cell: Cell) -> dict[str, str]:
    cost = {} if cell.cost is None else {"--cost": f"{cell.cost:.1%}"}
    return {"--kept": f"{cell.kept:.1%}"} | cost


def _repair(candidate: Candidate) -> str:
    if candidate.weights:
        return ", trained"
    return f", {candidate.repair} repair" if candidate.repaired else ""


def _neighbours(followed: Followed, trial: Trial) -> list[Any]:
    rows = [
        html.Tr(
            [
                html.Th(one.title, scope="row"),
                html.Td(choose_button(one.trial.number, "neighbours")),
                html.Td(one.gains, className="text"),
                html.Td(one.costs, className="text"),
            ]
        )
        for one in followed.neighbours(trial)
    ]
    if not rows:
        return []
    return [
        html.H3("Neighbours on the front"),
        table(["", "trial", "gains", "costs"], rows, "Neighbours on the front", ("gains", "costs")),
    ]


def differences_section(followed: Followed, trial: Trial, other: Trial) -> list[Any]:
    """Return where the configurations of two candidates differ; nothing where the other is the reference."""
    if other.number == trial.number or followed.is_reference(other):
        return []
    rows = [
        html.Tr([html.Th(name, scope="row"), html.Td(one, className="text"), html.Td(two, className="text")])
        for name, one, two in differences(trial.candidate, other.candidate, followed.network(trial.candidate.base))
    ]
    title = f"What differs from trial {other.number}"
    if not rows:
        return [html.H3(title), html.P("nothing: the configurations are alike")]
    heads = [f"trial {trial.number}", f"trial {other.number}"]
    return [html.H3(title), table(["", *heads], rows, title, heads)]


def differences(one: Candidate, other: Candidate, network: Network) -> list[tuple[str, str, str]]:
    """Return in what two candidates differ: a name, and what each has; of different bases only these are told."""
    if one.base != other.base:
        return [("base", _base(one), _base(other))]
    rows = []
    for layer in network.layers:
        two = [choice_text(candidate.choice(layer)) for candidate in (one, other)]
        rows.append((layer, *two))
    for group in network.groups:
        rows.append((group, *(f"{candidate.ratio(group):.0%} of its channels removed" for candidate in (one, other))))
    rows.append(("repair", one.repair, other.repair))
    rows.append(("weights", *("trained" if candidate.weights else "repaired" for candidate in (one, other))))
    return [(name, first, second) for name, first, second in rows if first != second]


def _base(candidate: Candidate) -> str:
    return student_text(candidate.student) if candidate.student else "the reference's network"


def _compare_row(followed: Followed, trial: Trial, shortlisted: Sequence[Note]) -> Any:
    """Return what chooses the candidate that a candidate is compared with."""
    near = [one.trial.number for one in followed.neighbours(trial)]
    listed = [note.trial for note in shortlisted]
    first = followed.run.reference.number
    numbers = [n for n in dict.fromkeys([first, *listed, *near, *followed.front]) if n != trial.number or n == first]
    names = {n: f"trial {n}, on the shortlist" for n in listed} | {first: "the reference"}
    options = {str(number): names.get(number, f"trial {number}") for number in numbers}
    return html.Div(
        [html.Label("Compare with", htmlFor="beside-choice"), choice("beside-choice", options, store="beside")],
        className="row",
    )
