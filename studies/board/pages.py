"""The board's pages: the frame around each, the list of runs, and the blind judging of pictures."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dash import dcc, html

from ...spaces.errors import SlimfrontError
from ..figures import VIEWS
from ..sections import VIEW_TITLES
from ..texts import MISSING, number_text, runtime_text
from . import figures
from .attainment import attained
from .parts import GRAPH, aria, table
from .run_page import TICK_MS, run_page, state_text

if TYPE_CHECKING:
    from ..run import Run
    from .boarded import Boarded, Boards
    from .judge import Disagreement


PLACE = re.compile("[0-9]{1,6}")  # of a run


def frame(who: str) -> Any:
    """Return what is on every page; ``who`` is probably there."""
    return html.Div(
        [
            dcc.Location(id="place"),
            html.Header(
                [
                    dcc.Link("slimfront", href="/", className="brand"),
                    html.Div(
                        [
                            html.Label("You are", htmlFor="who"),
                            dcc.Input(id="who", value=who, persistence=True, maxLength=200, debounce=True),
                        ],
                        className="who",
                    ),
                ]
            ),
            html.P(id="problem", className="trouble", role="alert", hidden=True),
            html.Main(id="page"),
        ]
    )


def page(boards: Boards, path: str) -> list[Any]:
    """Return the page at a path."""
    kind, _, rest = (path or "/").strip("/").partition("/")
    try:
        if kind == "" and len(boards.runs) > 1:
            return runs_page(boards)
        if kind == "":
            return one_run(boards, 0)
        if kind == "run" and PLACE.fullmatch(rest):
            return one_run(boards, int(rest))
        if kind == "judge" and PLACE.fullmatch(rest):
            return judge_page(boards[int(rest)], int(rest))
    except SlimfrontError as error:
        return [html.H1("This cannot be shown"), html.P(str(error), className="trouble", role="alert")]
    return [html.H1("There is no such page"), dcc.Link("to the start", href="/")]


def one_run(boards: Boards, index: int) -> list[Any]:
    """Return the review screen of a run."""
    followed = boards[index].followed
    return [
        html.H1(followed.run.study_name),
        html.P(state_text(followed), className="note", role="status")
        if followed.frame().empty
        else html.P(id="state", className="note", role="status"),  # the page says it (assets/views.js)
        *run_page(followed, index),
    ]


def runs_page(boards: Boards) -> list[Any]:
    """Return the list of runs, which follows them, and their fronts over one another."""
    return [html.H1("Runs"), dcc.Interval(id="runs-tick", interval=TICK_MS), html.Div(runs_view(boards), id="runs")]


def runs_state(boards: Boards) -> list[Any]:
    """Return what a list of runs depends on, as plain data."""
    boards.look()
    return [
        [run.trouble] if run.trouble is not None else [run.followed.version, run.followed.running]
        for run in boards.runs
    ]


def runs_view(boards: Boards) -> list[Any]:
    """Return the list of runs, with the fronts of those that have one over one another."""
    boards.look()
    able = [(index, run) for index, run in enumerate(boards.runs) if run.trouble is None and run.followed.has_reference]
    names = {index: _name(boards, index) for index, _ in able}
    fronts = {names[index]: run.followed.frame().query("on_front") for index, run in able}
    rows = [_run_row(boards, index, run) for index, run in enumerate(boards.runs)]
    shown: list[Any] = [
        dcc.Store(id="runs-state", data=runs_state(boards)),
        table(
            ["run", "study", "timed on", "candidates", "on the front", "hypervolume", ""],
            rows,
            "Runs",
            ("study", "timed on"),
        ),
    ]
    if len(able) > 1:
        shown += [html.H2("Fronts"), *_unlike([run for _, run in able]), _fronts(fronts)]
        shown += [html.H2("What each attains"), *_attained(able, names)]
    return shown


def _name(boards: Boards, index: int) -> str:
    """Return what a run is called among others: its folder's name, or the whole path where others have the same."""
    run = boards.runs[index]
    alike = [other for other in boards.runs if other.folder.name == run.folder.name]
    name = str(run.folder) if len(alike) > 1 else run.folder.name
    return f"{name} ({run.name})" if name != run.name else name


def _run_row(boards: Boards, index: int, run: Boarded) -> Any:
    cells: list[Any]
    if run.trouble is not None:
        cells = [_name(boards, index), run.name, html.P(run.trouble, className="trouble"), "", "", "", ""]
    else:
        followed = run.followed
        cells = [
            dcc.Link(_name(boards, index), href=f"/run/{index}"),
            run.name,
            _machine(followed.run),
            f"{len(followed.numbers):,}",
            str(len(followed.front)),
            number_text(followed.hypervolume, 3),
            "a search is running" if followed.running else "",
        ]
    return html.Tr([html.Td(cell, className="text" if place < 3 else "") for place, cell in enumerate(cells)])


def _machine(run: Run) -> str:
    """Return what a run's speeds were measured on."""
    known = run.environment
    if not known:
        return MISSING
    threads = f"{known['threads']} thread" + ("s" if known["threads"] != 1 else "")
    return f"{known['cpu']}, {threads}, {runtime_text(known)}"


def _unlike(runs: Sequence[Boarded]) -> list[Any]:
    """Say what of the runs cannot be compared."""
    studies = len({run.followed.run.digest for run in runs})
    machines = len({_machine(run.followed.run) for run in runs})
    notes = []
    if studies > 1:
        notes.append(f"These runs are of {studies} studies: bytes and decibels of one are not those of another.")
    if machines > 1:
        notes.append(f"They were timed on {machines} machines: speedups of one are not those of another.")
    return [html.P(" ".join(notes), className="note")] if notes else []


def _fronts(fronts: dict[str, Any]) -> Any:
    views = [
        html.Figure(
            [
                html.Figcaption([VIEW_TITLES[name][0], html.Span(VIEW_TITLES[name][1])]),
                html.Div(dcc.Graph(figure=figures.fronts_figure(fronts, name), config=GRAPH), className="plot"),
            ]
        )
        for name in VIEWS
    ]
    return html.Div(views, className="views")


def _attained(able: Sequence[tuple[int, Boarded]], names: dict[int, str]) -> list[Any]:
    """Return how fast a candidate each run has within a size and a drop."""
    studies = {names[index]: _study(run, [other for _, other in able]) for index, run in able}
    goals, found = attained({names[index]: run.followed.frame() for index, run in able}, studies)
    rows = [html.Tr([html.Th(name, scope="row"), *(html.Td(text) for text in texts)]) for name, texts in found.items()]
    return [
        html.P("The highest speedup within a drop, at any size and at a tenth of the reference's.", className="note"),
        table(["run", *goals], rows, "What each run attains"),
    ]


def _study(run: Boarded, among: Sequence[Boarded]) -> str:
    """Return what a run's study is called among others: its name, with a part of its digest where another has the same."""
    digests = {other.followed.run.digest for other in among if other.name == run.name}
    return run.name if len(digests) == 1 else f"{run.name} ({run.followed.run.digest[:6]})"


def judge_page(boarded: Boarded, index: int) -> list[Any]:
    """Return the page where pictures are judged blind."""
    return [
        html.H1(["Which picture is better? ", html.Small(boarded.name)]),
        html.P(
            "The same image from two candidates, in random order; which is which is not told. The arrow keys answer, too.",
            className="note",
        ),
        dcc.Store(id="run", data=index),
        dcc.Store(id="session", storage_type="session"),
        dcc.Store(id="judged", data=0),
        dcc.Store(id="asked"),
        html.Div(id="question"),
        html.Div(
            [
                html.Button("◀ left", id="judge-left"),
                html.Button("no difference", id="judge-neither"),
                html.Button("right ▶", id="judge-right"),
            ],
            className="row judge",
        ),
        html.Label("Why (optional)", htmlFor="judge-why"),
        dcc.Textarea(id="judge-why", maxLength=2000, rows=2),
        html.P(id="judge-count", role="status", className="note"),
        html.Details([html.Summary("What people prefer", id="open-results"), html.Div(id="results")]),
        html.P(dcc.Link("back to the front", href=f"/run/{index}")),
    ]


def question_view(index: int, session: str, count: int, image: int, shape: tuple[int, int]) -> Any:
    """Return the two pictures of a question; their addresses tell nothing of the candidates."""
    height, width = shape
    style = {"aspectRatio": f"{width} / {height}", "maxWidth": f"{max(2 * width, 360)}px"}
    panes = [
        html.Figure(
            [
                html.Div(
                    html.Img(
                        src=f"/judge/{index}/{session}/{count}/{side}.webp",
                        alt=f"the {side} picture of image {image + 1}",
                        className="zoomed",
                        draggable="false",
                    ),
                    className="pane",
                    style=style,
                    tabIndex="0",
                    role="group",
                    **aria(label=f"{side} picture: arrows move, plus and minus zoom, 0 shows all"),
                ),
                html.Figcaption(side),
            ]
        )
        for side in ("left", "right")
    ]
    return html.Div(html.Div(panes, className="panes"), className="stage", id="stage")


def results_view(
    rows: Sequence[tuple[int, Any]],
    psnr: dict[int, float],
    apart: Sequence[Disagreement],
    numbers: dict[str, int],
    reference: int,
) -> list[Any]:
    """Return what people prefer, beside PSNR, and where both disagree."""
    if not rows:
        return [html.P("nothing was judged yet")]
    body = [
        html.Tr(
            [
                html.Td(f"trial {number}" if number != reference else "the reference"),
                html.Td(f"{reading.value:.0%}"),
                html.Td(f"{reading.low:.0%} to {reading.high:.0%}"),
                html.Td(f"{number_text(psnr.get(number))} dB"),
            ]
        )
        for number, reading in rows
    ]
    heads = ["", "preferred to the reference", "95 %", "PSNR"]
    told = [
        html.Li(
            f"image {one.image + 1}: people prefer trial {numbers[one.preferred]} to trial {numbers[one.other]}, whose PSNR "
            f"is {number_text(one.lost_db)} dB higher"
        )
        for one in apart
        if one.preferred in numbers and one.other in numbers
    ]
    return [
        table(heads, body, "What people prefer"),
        *([html.H3("Where people and PSNR disagree"), html.Ul(told)] if told else []),
    ]
