"""The three linked views of a front: pure functions from a frame of candidates to Plotly figures."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING, Any

from .texts import interval_text, known, number_text, size_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    import plotly.graph_objects as go

    from .criteria import Criterion

ACCENT = "#0b6b74"
INK = "#1c2430"
MUTED = "#5b6675"
GREY = "#8a949f"
GRID = "#e8ebee"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

#: What the functions below read; one row a measured candidate. ``kind``: of `SYMBOLS`.
COLUMNS = (
    "trial",
    "kind",
    "label",
    "on_front",
    "size_bytes",
    "speedup",
    "speedup_low",
    "speedup_high",
    "psnr_db",
)
SYMBOLS = {
    "reference": "star",
    "uniform": "diamond",
    "polished": "triangle-up",
    "student": "square",
    "search": "circle",
}
SIZES = {"reference": 15, "uniform": 11, "polished": 11, "student": 9, "search": 9}
VIEWS = {
    "size-speed": ("size_bytes", "speedup"),
    "size-quality": ("size_bytes", "psnr_db"),
    "speed-quality": ("speedup", "psnr_db"),
}
AXIS_TITLES = {"size_bytes": "size on disk", "speedup": "speedup (×)", "psnr_db": "PSNR (dB)"}
RING_TRACE = 2  # the trace that marks the selected candidate; the page moves it


def views_with(criteria: Sequence[Criterion]) -> dict[str, tuple[str, str]]:
    """Return the views of a front whose study has these further objectives: `VIEWS`, and each of them over size."""
    return VIEWS | {f"size-{criterion.value}": ("size_bytes", criterion.value) for criterion in criteria}


def axis_titles(criteria: Sequence[Criterion]) -> dict[str, str]:
    """Return the titles of the axes by column, those of further objectives among them."""
    return AXIS_TITLES | {one.value: f"{one.about.title} ({one.about.unit})".removesuffix(" ()") for one in criteria}


def front_figures(frame: pd.DataFrame, criteria: Sequence[Criterion] = ()) -> dict[str, go.Figure]:
    """Return one figure for each of `views_with`. ``frame`` has `COLUMNS` and the criteria's values; missing numbers are NaN."""
    titles = axis_titles(criteria)
    return {name: view_figure(frame, x, y, titles) for name, (x, y) in views_with(criteria).items()}


def view_figure(frame: pd.DataFrame, x: str, y: str, titles: Mapping[str, str] = AXIS_TITLES) -> go.Figure:
    """Return the scatter of two objectives, whose axes have titles by column.

    Three traces in this order: dominated candidates, the front with its intervals, and an empty ring for the selected
    one. ``customdata`` of each point is its trial number.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.add_trace(_points(frame[~frame["on_front"]], x, y, "dominated", GREY))
    figure.add_trace(_points(frame[frame["on_front"]], x, y, "front", ACCENT))
    ring = {"symbol": "circle-open", "size": 21, "color": INK, "line": {"width": 2.5}}
    figure.add_trace(go.Scatter(x=[], y=[], mode="markers", marker=ring, hoverinfo="skip", name="selected"))
    figure.update_layout(view_layout(frame, x, y, titles))
    return figure


def view_layout(frame: pd.DataFrame, x: str, y: str, titles: Mapping[str, str] = AXIS_TITLES) -> dict[str, Any]:
    """Return the layout of a scatter of two objectives, for the candidates of a frame."""
    return {
        "font": {"family": FONT, "size": 13, "color": INK},
        "margin": {"l": 58 if y in AXIS_TITLES else 72, "r": 14, "t": 12, "b": 50},
        "height": 360,
        "showlegend": False,
        "hovermode": "closest",
        "dragmode": "zoom",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "white", "bordercolor": GREY, "font": {"family": FONT, "size": 13, "color": INK}},
        "xaxis": _axis(frame, x, titles[x]),
        "yaxis": _axis(frame, y, titles[y]),
    }


def _points(rows: pd.DataFrame, x: str, y: str, name: str, color: str) -> go.Scatter:
    import plotly.graph_objects as go

    return go.Scatter(
        x=_values(rows, x),
        y=_values(rows, y),
        error_x=_error(rows, color) if x == "speedup" else None,
        error_y=_error(rows, color) if y == "speedup" else None,
        mode="markers",
        name=name,
        customdata=[int(trial) for trial in rows["trial"]],
        hovertext=[_hover(row) + _further(row, y) for row in rows.to_dict("records")],
        hoverinfo="text",
        marker={
            "symbol": [SYMBOLS[kind] for kind in rows["kind"]],
            "size": [SIZES[kind] for kind in rows["kind"]],
            "color": [INK if kind == "reference" else color for kind in rows["kind"]],
            "opacity": 1.0,  # sizes by point would make it 0.7
            "line": {"width": 1, "color": "white"},
        },
    )


def _values(rows: pd.DataFrame, column: str) -> list[float | None]:
    return [float(value) if known(value) else None for value in rows[column].tolist()]


def _error(rows: pd.DataFrame, color: str) -> dict[str, object]:
    def reach(bound: str, sign: int) -> list[float]:
        pairs = zip(rows["speedup"].tolist(), rows[bound].tolist(), strict=True)
        return [max(0.0, sign * (edge - value)) if known(edge) and known(value) else 0.0 for value, edge in pairs]

    return {
        "type": "data",
        "array": reach("speedup_high", 1),
        "arrayminus": reach("speedup_low", -1),
        "color": color,
        "thickness": 1,
        "width": 2,
    }


def _hover(row: dict[Any, Any]) -> str:
    label = f" · {html.escape(str(row['label']))}" if row["label"] else ""
    interval = interval_text(row["speedup_low"], row["speedup_high"])
    return (
        f"<b>trial {row['trial']}</b>{label}<br>{size_text(row['size_bytes'])}"
        f"<br>{number_text(row['speedup'])}× ({interval})<br>{number_text(row['psnr_db'])} dB"
    )


def _further(row: dict[Any, Any], column: str) -> str:
    """Tell the value on an axis of a further objective."""
    told = column not in AXIS_TITLES and known(row[column])
    return f"<br>{html.escape(column.replace('_', ' '))} {row[column]:.4g}" if told else ""


def _axis(frame: pd.DataFrame, column: str, title: str) -> dict[str, object]:
    axis: dict[str, object] = {
        "title": {"text": html.escape(title, quote=False), "standoff": 8},
        "gridcolor": GRID,
        "linecolor": GREY,
        "zeroline": False,
        "tickfont": {"color": MUTED, "size": 12},
    }
    if column == "size_bytes":
        ticks = size_ticks([value for value in frame[column].tolist() if known(value)])
        axis |= {"type": "log", "tickvals": ticks, "ticktext": [_tick_text(tick) for tick in ticks]}
    return axis


def _tick_text(size: float) -> str:
    number, unit = size_text(size).split(" ")
    return f"{float(number):g} {unit}"


def size_ticks(sizes: list[float]) -> list[float]:
    """Round sizes (1, 2, 5 times a power of ten, in bytes) that cover the given ones."""
    if not sizes:
        return []
    low, high = max(1.0, min(sizes)), max(1.0, *sizes)
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks = [digit * 10.0**power for power in powers for digit in (1, 2, 5)]
    return [tick for tick in ticks if low / 2 <= tick <= high * 2]
