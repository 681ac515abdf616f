"""The review screen of one run: front, budgets, parameters, candidate, decision."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dash import dcc, html

from ..criteria import readings_of
from ..figures import views_with
from ..sections import view_titles
from ..texts import (
    MISSING,
    change_text,
    interval_text,
    number_text,
    preference_text,
    ratio_text,
    reading_text,
    size_text,
)
from . import figures
from .budgets import END, budgets
from .parameters import SHAPES, parameter_names
from .parts import GRAPH, aria, choice, choose_button, data, table

if TYPE_CHECKING:
    from ...objectives.protocol import Reading
    from .boarded import Boarded
    from .followed import Followed

TICK_MS = 2000  # from one look for news to the next
PARALLEL = {"size_bytes": "size, bytes", "speedup": "speedup, ×", "psnr_db": "PSNR, dB"} | SHAPES
MOST_ROWS = 100  # of the table
PLAIN = "plain"  # no colours


def run_page(followed: Followed, index: int) -> list[Any]:
    """Return the page of a run that is known by an index."""
    frame = followed.frame()
    if frame.empty:
        return [
            dcc.Store(id="run", data=index),
            dcc.Interval(id="wait", interval=TICK_MS),
            html.P("nothing is measured yet; the page shows it as soon as it is", id="waited"),
        ]
    return [
        _stores(index),
        *_budgets(followed, frame),
        *_figures(followed, frame),
        *_more(followed, frame),
        *_review(index),
    ]


def state_text(followed: Followed) -> str:
    """Return how the run stands."""
    if followed.trouble:
        return f"its records cannot be read just now: {followed.trouble}"
    if not followed.has_reference:
        return "nothing is measured yet"
    text = f"{len(followed.numbers):,} candidates, {len(followed.front)} on the front"
    text += f", hypervolume {followed.hypervolume:.3f}"
    text += "; a search is running" if followed.running else ""
    return text + (f"; {followed.without_study}" if followed.study is None else "")


def _stores(index: int) -> Any:
    return html.Div(
        [
            dcc.Store(id="run", data=index),
            dcc.Store(id="selected"),
            *(
                dcc.Store(id=name)
                for name in (
                    "image",
                    "beside",
                    "front",
                    "reviewed",
                    "done",
                    "marked",
                    "saved-png",
                    "saved-svg",
                )
            ),
        ]
    )


def _budgets(followed: Followed, frame: Any) -> list[Any]:
    spent = budgets(frame, followed.run.has_target, followed.run.criteria)
    sliders = [
        html.Div(
            [
                html.Label(
                    [html.Span(budget.name), html.Output(id=f"{budget.key}-text", htmlFor=budget.key)],
                    htmlFor=budget.key,
                ),
                dcc.Input(id=budget.key, type="range", min=0, max=END, step=1, value=budget.free),
            ],
            className="slider",
        )
        for budget in spent
    ]
    return [
        html.Section(
            [
                html.H2("Budget", id="budget-title"),
                html.Div(
                    sliders,
                    id="budgets",
                    className="sliders",
                    **data(budgets=json.dumps([asdict(budget) for budget in spent])),
                ),
                html.P(id="left", className="left", role="status"),
                html.Div(
                    [
                        html.Button("no limits", id="free", className="quiet"),
                        html.Label("Look at trial", htmlFor="go"),
                        dcc.Input(id="go", type="number", min=0, step=1, debounce=True),
                    ],
                    className="row",
                ),
            ],
            **aria(labelledby="budget-title"),
        )
    ]


def _figures(followed: Followed, frame: Any) -> list[Any]:
    views, criteria = [], followed.run.criteria
    axes = views_with(criteria)
    for name, (title, better) in view_titles(criteria).items():
        figure = figures.empty_view(frame, name, criteria)
        margin = json.dumps(figure.layout.margin.to_plotly_json())
        graph = dcc.Graph(id=name, figure=figure, config=GRAPH)
        x, y = axes[name]
        plot = html.Div(graph, id=f"{name}-plot", className="plot", **data(margin=margin, view=name, x=x, y=y))
        views.append(html.Figure([html.Figcaption([title, html.Span(better)]), plot]))
    titles = json.dumps({one.value: one.title for one in criteria})
    return [html.Section([html.H2("Front"), html.Div(views, className="views", **data(further=titles))])]


def _more(followed: Followed, frame: Any) -> list[Any]:
    names = parameter_names([followed.network(base) for base in sorted(set(frame["base"]))])
    options = {
        PLAIN: "front and dominated",
        "base": "base",
        "ssim": "SSIM",
        "worst_psnr_db": "worst image's PSNR",
        **{name: about.title for name, about in readings_of(followed.run.criteria).items()},
    } | names
    parallel = PARALLEL | {
        one.value: f"{one.title}, {one.about.unit}".removesuffix(", ") for one in followed.run.criteria
    }
    return [
        html.Div(
            [
                html.Label("Colour", htmlFor="colour-choice"),
                choice("colour-choice", options),
                html.Span(id="colour-legend", className="note"),
                html.Span(
                    [
                        html.Button("save as PNG", id="save-png", className="quiet"),
                        html.Button("save as SVG", id="save-svg", className="quiet"),
                    ],
                    className="push",
                ),
            ],
            className="row",
        ),
        dcc.Store(id="space-figure", data=figures.space_figure().to_plotly_json()),
        dcc.Store(id="parallel-figure", data=figures.parallel_figure(parallel).to_plotly_json()),
        html.Details(
            [
                html.Summary("All three in one view", id="open-space"),
                html.Div(dcc.Graph(id="space", config=GRAPH), className="space"),
            ]
        ),
        html.Details(
            [
                html.Summary(
                    "Parallel coordinates: draw a range on an axis, or type one, to choose by it", id="open-parallel"
                ),
                html.Div(
                    dcc.Graph(id="parallel", config=GRAPH),
                    **data(columns=json.dumps(list(parallel))),
                    **aria(label="Parallel coordinates"),
                    className="wide",
                    tabIndex="0",
                    role="region",
                ),
                html.Div([_range(column, title) for column, title in parallel.items()], className="ranges"),
            ]
        ),
        html.Section([html.H2("Candidates on the front"), html.Div(id="table")]),
    ]


def _range(column: str, title: str) -> Any:
    """Return fields for the range of an axis; the page reads them (assets/views.js)."""
    fields = [
        html.Label(
            [html.Span(word), dcc.Input(id=f"{column}-{end}", type="number", step="any")], htmlFor=f"{column}-{end}"
        )
        for end, word in (("low", "from"), ("high", "to"))
    ]
    return html.Fieldset([html.Legend(title), *fields])


def front_table(boarded: Boarded) -> Any:
    """Return the front as a table, smallest first, with buttons that select, and what people prefer where they were asked."""
    followed, liked = boarded.followed, boarded.preferences
    run = followed.run
    reference = run.reference.row()
    members = followed.front_trials()
    rows = []
    for trial in members[:MOST_ROWS]:
        row = trial.row()
        cells = [
            [choose_button(trial.number, "front"), html.Small(f" {trial.label}" if trial.label else "")],
            size_text(row["size_bytes"]),
            ratio_text(reference["size_bytes"], row["size_bytes"]),
            f"{number_text(row['speedup'])}×",
            interval_text(row["speedup_low"], row["speedup_high"]),
            f"{number_text(row['psnr_db'])} dB",
            change_text(reference, row) if run.has_target else "–",
            number_text(row["ssim"], 4),
            *(reading_text(row[one.value], one.about.unit) for one in run.criteria),
            *([_liked(liked.get(trial.candidate.key))] if liked else []),
        ]
        rows.append(html.Tr([html.Td(cell) for cell in cells], **data(trial=str(trial.number))))
    further = [one.title for one in run.criteria]
    heads = [
        "trial",
        "size",
        "smaller",
        "speedup",
        "95 %",
        "PSNR",
        "change",
        "SSIM",
        *further,
        *(["preferred"] if liked else []),
    ]
    more = len(members) - len(rows)
    note = [html.P(f"and {more} more: the points above select them", className="note")] if more > 0 else []
    return [table(heads, rows, "Candidates on the front"), *note]


def _liked(preference: Reading | None) -> str:
    return MISSING if preference is None else preference_text(preference.value, preference.low, preference.high)


def _review(index: int) -> list[Any]:
    return [
        html.Section(id="candidate", **aria(live="polite")),
        html.Section([html.H2("Shortlist and decisions"), html.Div(id="shortlist")]),
        html.Section(
            [
                html.H2("Take it with you"),
                html.P(
                    [
                        html.A("all candidates as CSV", href=f"/run/{index}/candidates.csv"),
                        html.A("as Parquet", href=f"/run/{index}/candidates.parquet"),
                        html.A("the front as one page that opens offline", href=f"/run/{index}/report.html"),
                        dcc.Link("judge pictures blind", href=f"/judge/{index}"),
                    ],
                    className="links",
                ),
            ]
        ),
    ]
