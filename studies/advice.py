"""The one change that would help a candidate most, as a sentence: the changes of single layers put together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..spaces.errors import some_of
from .causes import PRUNE, LayerFacts
from .texts import time_text

WORTH = 0.02  # of the time: the half-width at which a speedup counts as settled
MUCH = 0.25  # of the time: between the layers it is then worth a sentence
NAMED = 3  # layers in a sentence


def pruning_rows(facts: Iterable[LayerFacts]) -> list[dict[str, Any]]:
    """Return the channel groups that can still lose channels, as rows for `advice`: small layers may add up to much."""
    options = {option[0]: option for fact in facts if (option := fact.pruning) is not None}
    return [
        {"name": group, "change": f"{PRUNE} {group}", "help": f"pruning_ratio {ratio:g} of {group}", "gain_ms": saved}
        for group, ratio, saved in options.values()
    ]


def advice(rows: Iterable[Mapping[str, Any]], candidate_ms: float) -> str:
    """Return the one change that would help most, with what it should save.

    A change that costs pictures nothing or little (integers, float where that is faster) comes before pruning.

    Args:
        rows: with "name", "help", "change" and "gain_ms".
        candidate_ms: of a whole run.
    """
    changes: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["change"] and row["gain_ms"] > 0:
            changes.setdefault(row["change"], []).append(row)
    gains = {change: _gain(change, of) for change, of in changes.items()}
    worth = {change: gain for change, gain in gains.items() if gain >= WORTH * candidate_ms}
    if not worth:
        return f"No single change should save more than {100 * WORTH:.0f} % of the time."
    cheap = {change: gain for change, gain in worth.items() if change in ("integer", "float")}
    change = max(cheap or worth, key=lambda change: gains[change])
    share = 100 * gains[change] / candidate_ms
    saved = f"about {time_text(gains[change])} of {time_text(candidate_ms)} ({share:.0f} %) should go"
    of = sorted(changes[change], key=lambda row: -row["gain_ms"])
    if change.startswith(PRUNE):
        return f"Remove channels ({of[0]['help']}): {saved}, at some loss of quality."
    if change.startswith("op "):
        return f"Use a model without {change.removeprefix('op ')} between integer layers: {saved}."
    names = some_of([row["name"] for row in of], most=NAMED)
    how = f"Run {names} in integers" if change == "integer" else f"Leave {names} in float"
    return f"{how} ({of[0]['help']}): {saved}."


def _gain(change: str, rows: Iterable[Mapping[str, Any]]) -> float:
    """Return what a change saves: layers add up, but each layer of a channel group tells what the whole group saves."""
    gains = [float(row["gain_ms"]) for row in rows]
    return max(gains) if change.startswith(PRUNE) else sum(gains)


def between_sentence(between: Iterable[Mapping[str, Any]], candidate_ms: float) -> str:
    """Return what the ops and conversions between the layers hold back, or "" where that is not much."""
    rows = sorted(between, key=lambda row: -row["candidate_ms"])
    total = sum(row["candidate_ms"] for row in rows)
    if total < MUCH * candidate_ms:
        return ""
    most = [f"{row['name']} {time_text(row['candidate_ms'])}" for row in rows[:NAMED]]
    return (
        f" {100 * total / candidate_ms:.0f} % of the time passes between the layers, where bits and channels change "
        f"little: {', '.join(most)}."
    )
