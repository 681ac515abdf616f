"""The board's figures: pure functions from a frame of candidates to Plotly figures.

Of the linked views they make the axes; the page paints the points (assets/views.js).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..figures import (
    ACCENT,
    AXIS_TITLES,
    FONT,
    GREY,
    GRID,
    INK,
    MUTED,
    VIEWS,
    axis_titles,
    view_figure,
    view_layout,
    views_with,
)

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ..criteria import Criterion

SPACE = ("size_bytes", "speedup", "psnr_db")  # the axes of the view in 3-D
RUN_COLOURS = ("#0b6b74", "#b4551d", "#5a4fa3", "#8a6d00", "#a8326e", "#3d7a2a", "#555f6b", "#1f5fa8")


def empty_view(frame: pd.DataFrame, name: str, criteria: Sequence[Criterion] = ()) -> go.Figure:
    """Return one of `figures.views_with` with its axes for the candidates of a frame, and without its points.

    The page paints the points by itself (assets/cloud.js).
    """
    import plotly.graph_objects as go

    x, y = views_with(criteria)[name]
    layout = view_layout(frame, x, y, axis_titles(criteria)) | {
        "uirevision": "board",
        "height": None,
        "autosize": True,
        "template": {},
    }
    return go.Figure(go.Scatter(x=[], y=[]), layout)


def space_figure() -> go.Figure:
    """Return the view of all three objectives, without its points: what does not fit, what does, and the front."""
    import plotly.graph_objects as go

    figure = go.Figure()
    marks = (("others", GREY, 2.5, 0.25), ("candidates", GREY, 3.0, 0.8), ("front", ACCENT, 4.5, 1.0))
    for name, color, size, opacity in marks:
        marker = {"size": size, "color": color, "opacity": opacity, "line": {"width": 0}}
        figure.add_trace(
            go.Scatter3d(x=[], y=[], z=[], customdata=[], mode="markers", name=name, marker=marker, hoverinfo="text")
        )
    axes = dict(zip(("xaxis", "yaxis", "zaxis"), (_space_axis(column) for column in SPACE), strict=True))
    figure.update_layout(
        font={"family": FONT, "size": 12, "color": INK},
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        template={},
        scene=axes | {"camera": {"eye": {"x": 1.5, "y": -1.6, "z": 0.7}}},
        uirevision="board",
    )
    return figure


def _space_axis(column: str) -> dict[str, Any]:
    axis = {"title": {"text": AXIS_TITLES[column]}, "gridcolor": GRID, "color": MUTED, "backgroundcolor": "white"}
    return axis | ({"type": "log"} if column == "size_bytes" else {})


def parallel_figure(titles: Mapping[str, str]) -> go.Figure:
    """Return parallel coordinates, without their lines; ranges that are drawn on the axes choose candidates.

    Args:
        titles: of the axes, by column, in their order.
    """
    import plotly.graph_objects as go

    dimensions = [{"label": title, "values": [], "range": [0.0, 1.0]} for title in titles.values()]
    line = {"color": [], "colorscale": [[0.0, "#b9d8db"], [1.0, ACCENT]]}
    figure = go.Figure(
        go.Parcoords(dimensions=dimensions, line=line, labelfont={"color": INK}, tickfont={"color": MUTED})
    )
    figure.update_layout(
        font={"family": FONT, "size": 12, "color": INK},
        margin={"l": 60, "r": 40, "t": 44, "b": 18},
        paper_bgcolor="rgba(0,0,0,0)",
        template={},
        uirevision="board",
    )
    return figure


def time_figure(rows: Sequence[Mapping[str, Any]], most: int = 14) -> go.Figure:
    """Return where the time goes: of the slowest layers the reference's time and the candidate's, in milliseconds.

    Args:
        rows: ``name``, ``reference_ms`` and ``candidate_ms`` of each, the slowest first (`explain`).
        most: that are shown one by one; the others are one bar.
    """
    import plotly.graph_objects as go

    shown = [dict(row) for row in rows[:most]]
    if len(rows) > most:
        sums = {key: sum(row[key] or 0.0 for row in rows[most:]) for key in ("reference_ms", "candidate_ms")}
        shown.append({"name": f"{len(rows) - most} others", **sums})
    shown.reverse()
    names = [html.escape(str(row["name"]), quote=False) for row in shown]
    figure = go.Figure()
    for key, name, color in (("reference_ms", "reference", "#c9d1d6"), ("candidate_ms", "candidate", ACCENT)):
        values = [row[key] or 0.0 for row in shown]
        figure.add_trace(go.Bar(y=names, x=values, orientation="h", name=name, marker={"color": color}))
    figure.update_layout(
        font={"family": FONT, "size": 12, "color": INK},
        margin={"l": 8, "r": 8, "t": 8, "b": 40},
        height=80 + 30 * len(shown),
        barmode="group",
        legend={"orientation": "h", "y": 1.06, "traceorder": "normal"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis={"title": {"text": "milliseconds"}, "gridcolor": GRID, "zeroline": False},
        yaxis={"automargin": True, "ticksuffix": " "},
    )
    return figure


def fronts_figure(frames: Mapping[str, pd.DataFrame], name: str) -> go.Figure:
    """Return one of `figures.VIEWS` with the fronts of several runs, each in its colour.

    Args:
        frames: by the runs' names.
        name: of the view.
    """
    import pandas as pd
    import plotly.graph_objects as go

    x, y = VIEWS[name]
    together = pd.concat(frames.values()) if frames else pd.DataFrame()
    figure = go.Figure(layout=view_layout(together, x, y) if frames else None)
    for place, (run, frame) in enumerate(frames.items()):
        color = RUN_COLOURS[place % len(RUN_COLOURS)]
        drawn = view_figure(frame[frame["on_front"]], x, y).data[1]
        bars = {bar: {"color": color} for bar in ("error_x", "error_y") if drawn[bar].array is not None}
        figure.add_trace(
            drawn.update(marker={"color": color}, name=html.escape(run, quote=False), showlegend=True, **bars)
        )
    figure.update_layout(showlegend=len(frames) > 1, legend={"orientation": "h", "y": -0.22}, height=None)
    return figure
