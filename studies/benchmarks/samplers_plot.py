"""python studies/benchmarks/samplers_plot.py FOLDER -o samplers.html

Draws what `samplers.py` left in its folder: for each model the mean hypervolume over evaluations of each sampler, the range
over the seeds as a band, and the frontier's sensitivities as the evaluations that they are worth.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

COLORS = {
    "frontier": "#0b6b74",
    "nsga2": "#b4602d",
    "tpe": "#6b4fa0",
    "tpe, each alone": "#a58fd0",
    "gp": "#3d7fc4",
    "random": "#8a949f",
}
FIRST = 10  # evaluations: before that, starting points alone
FONT = {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", "size": 14, "color": "#1c2430"}


def main() -> None:
    """Draw the page."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("folder", type=Path)
    flags.add_argument("-o", "--output", type=Path, required=True)
    arguments = flags.parse_args()
    folders = sorted(path.parent for path in arguments.folder.glob("*/hypervolumes.csv"))
    if not folders:
        flags.error(f"there is no MODEL/hypervolumes.csv in {arguments.folder}: run samplers.py first")
    figure = make_subplots(cols=len(folders), subplot_titles=[folder.name for folder in folders])
    for column, folder in enumerate(folders, start=1):
        table = pd.read_csv(folder / "hypervolumes.csv")
        probing = json.loads((folder / "probing.json").read_text())["evaluations"]
        table = table[table.evaluations >= FIRST]
        for sampler, some in table.groupby("sampler", sort=False):
            draw(figure, column, str(sampler), some, probing if sampler == "frontier" else 0.0)
    figure.update_xaxes(title_text="evaluations", gridcolor="#e8ebee", zeroline=False)
    figure.update_yaxes(gridcolor="#e8ebee", zeroline=False)
    figure.update_yaxes(title_text="hypervolume", col=1)
    figure.update_layout(
        font=FONT,
        plot_bgcolor="white",
        width=1240,
        height=420,
        margin={"t": 40, "l": 80, "r": 20},
        legend={"orientation": "h", "y": -0.2},
    )
    figure.write_html(arguments.output, config={"displayModeBar": False})


def draw(figure: go.Figure, column: int, sampler: str, some: pd.DataFrame, shift: float) -> None:
    """Add a sampler's mean and its range over the seeds; the first trials, which all share, are left out."""
    of_seeds = some.pivot_table(index="evaluations", columns="seed", values="hypervolume")
    x = [*(of_seeds.index + shift)]
    color = COLORS.get(sampler, "#000000")
    band = {"x": x + x[::-1], "y": [*of_seeds.max(axis=1), *of_seeds.min(axis=1)[::-1]], "fill": "toself"}
    quiet = {"showlegend": False, "hoverinfo": "skip", "legendgroup": sampler}
    figure.add_trace(go.Scatter(**band, line={"width": 0}, fillcolor=color, opacity=0.18, **quiet), row=1, col=column)
    line = {"color": color, "width": 2.5 if sampler == "frontier" else 1.6}
    known = {trace.name for trace in figure.data}
    shown = {"showlegend": sampler not in known, "legendgroup": sampler, "name": sampler}
    figure.add_trace(go.Scatter(x=x, y=of_seeds.mean(axis=1), line=line, mode="lines", **shown), row=1, col=column)


if __name__ == "__main__":
    main()
