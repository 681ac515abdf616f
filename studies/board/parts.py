"""Small parts of the board's pages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from dash import html

GRAPH: Any = {"displaylogo": False, "displayModeBar": False, "responsive": True}  # how a figure behaves


def aria(**values: str) -> dict[str, Any]:
    """Return attributes for assistive technology: `aria(label="…")` is ``aria-label``."""
    return {f"aria-{name}": value for name, value in values.items()}


def data(**values: str) -> dict[str, Any]:
    """Return attributes that the page's scripts read: `data(act="in")` is ``data-act``."""
    return {f"data-{name}": value for name, value in values.items()}


def of_trial(kind: str | Any, trial: int | Any) -> dict[str, Any]:
    """Return the id of a part of a trial's section: what comes late, when another one is shown, has nowhere to go."""
    return {"type": kind, "trial": trial}


def choose_button(number: int, place: str) -> Any:
    """Return a button that selects a trial; ``place`` tells buttons apart that select the same one."""
    return html.Button(
        str(number),
        id={"type": "choose", "trial": number, "place": place},
        className="link",
        **aria(label=f"select trial {number}"),
    )


def table(heads: Sequence[str], rows: Sequence[Any], name: str, texts: Collection[str] = ()) -> Any:
    """Return a table that scrolls sideways where it is wide; ``texts`` are the heads of columns that are no numbers."""
    cells = [html.Th(title, scope="col", className="text" if title in texts else "") for title in heads]
    head = html.Thead(html.Tr(cells))
    return html.Div(
        html.Table([head, html.Tbody(list(rows))]),
        className="scroll",
        role="region",
        tabIndex="0",
        **aria(label=name),
    )


def choice(name: str, options: Mapping[str, str], **kept: str) -> Any:
    """Return a choice of one of some options, by value what it is called; ``store="…"`` has the page keep it in a store."""
    shown = [html.Option(label, value=value) for value, label in options.items()]
    return html.Select(shown, id=name, className="choice", **data(**kept))
