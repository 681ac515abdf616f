"""Where a candidate's time goes, as it is shown on the board."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dash import dcc, html

from ..strip import choice_text
from ..texts import MISSING, number_text, time_text
from . import figures
from .parts import GRAPH, table

if TYPE_CHECKING:
    from ...spaces.candidate import Candidate

MOST_ROWS = 14


def times_view(explained: Mapping[str, Any], fidelity_db: Mapping[str, float], candidate: Candidate) -> list[Any]:
    """Return the times of the slowest layers as bars and as a table, with what each layer costs alone.

    Args:
        explained: as `explain.explain` returns it.
        fidelity_db: by layer, the predicted PSNR against the base's output with this layer alone compressed, where known.
        candidate: whose layers they are.
    """
    layers = explained["layers"]
    rows = [
        html.Tr(
            [
                html.Th(row["name"], scope="row"),
                html.Td(choice_text(candidate.choice(row["name"])), className="text"),
                html.Td(_decibels(fidelity_db.get(row["name"]))),
                html.Td(time_text(row["reference_ms"])),
                html.Td(time_text(row["candidate_ms"])),
                html.Td(row["why"], className="text"),
            ]
        )
        for row in layers[:MOST_ROWS]
    ]
    heads = ["layer", "choice", "fidelity of it alone", "reference", "candidate", "why"]
    return [
        html.P(
            f"Trial {explained['trial']}, beside the {'uncompressed student' if candidate.student else 'reference'}:"
        ),
        dcc.Graph(figure=figures.time_figure([*layers, *explained["between"]]), config=GRAPH),
        html.P(explained["advice"]),
        table(heads, rows, "The slowest layers", ("choice", "why")),
    ]


def _decibels(known: float | None) -> str:
    return MISSING if known is None else f"{number_text(known, 1)} dB"
