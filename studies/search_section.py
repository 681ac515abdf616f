"""How well a run was searched, as a section of the report: the hypervolume over its evaluations, and what its model says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import figures

if TYPE_CHECKING:
    import plotly.graph_objects as go

CHART = "hypervolumes"
LEAST_TRIALS = 3  # fewer make no curve


def search_section(told: Mapping[str, Any]) -> str:
    """Return the section's HTML, empty where too little was searched. ``told`` is what `searched.searched` returns."""
    if len(told["hypervolumes"]) < LEAST_TRIALS:
        return ""
    text = " ".join(sentences(told))
    return (
        "<section id='search'><h2>How well it was searched</h2>"
        f"<p class='note'>{text}</p><div class='plot chart' id='{CHART}'></div></section>"
    )


def sentences(told: Mapping[str, Any]) -> list[str]:
    """Return what there is to say of a search, a sentence each."""
    reached = told["hypervolumes"]
    found = [f"After {len(reached)} evaluations the hypervolume is {reached[-1]:.3f}."]
    if told["random"] and told["uniform"]:
        found.append(
            f"By the search's own model, as many evaluations of random candidates would have reached "
            f"{told['random'][-1][1]:.3f}, and of uniform ones {told['uniform'][-1][1]:.3f}."
        )
    if told["gain_ahead"] is not None:
        found.append(f"The next {told['ahead']} evaluations would probably add {told['gain_ahead']:.4f}.")
    error = told["model_error"]
    if error is not None:
        found.append(
            f"What the model expected of {error['proposals']} measured proposals was off by {100 * error['size']:.1f} % in "
            f"size, {100 * error['speedup']:.1f} % in speed and {error['drop_db']:.2f} dB (medians); its 95 % intervals held "
            f"{100 * error['speedup_within']:.0f} % of the speedups and {100 * error['drop_within']:.0f} % of the drops."
        )
    return found


def search_figure(told: Mapping[str, Any]) -> go.Figure:
    """Return the hypervolume over evaluations, that of random and uniform candidates by the model beside it."""
    import plotly.graph_objects as go

    figure = go.Figure()
    reached: Sequence[float] = told["hypervolumes"]
    counts = list(range(1, len(reached) + 1))
    lines = [("this search", counts, list(reached), figures.ACCENT, "solid")]
    for name, dash in (("random", "dot"), ("uniform", "dash")):
        if told[name]:
            stops, means = zip(*told[name], strict=True)
            lines.append((f"{name}, by the model", list(stops), list(means), figures.GREY, dash))
    for name, x, y, color, dash in lines:
        shape = "hv" if dash == "solid" else "linear"
        line = {"color": color, "dash": dash, "width": 2.5 if dash == "solid" else 1.5, "shape": shape}
        figure.add_trace(go.Scatter(x=x, y=y, mode="lines", name=name, line=line))
    figure.update_layout(
        font={"family": figures.FONT, "size": 13, "color": figures.INK},
        margin={"l": 58, "r": 14, "t": 12, "b": 50},
        height=300,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        xaxis=_axis("evaluations"),
        yaxis=_axis("hypervolume"),
    )
    return figure


def _axis(title: str) -> dict[str, object]:
    return {
        "title": {"text": title, "standoff": 8},
        "gridcolor": figures.GRID,
        "linecolor": figures.GREY,
        "zeroline": False,
        "tickfont": {"color": figures.MUTED, "size": 12},
    }
