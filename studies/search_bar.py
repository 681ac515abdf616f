"""The bar of a search on a terminal, and below it what its workers are at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from rich.console import Console, Group, RenderableType
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from .standing import Standing

SHOWN_NODES = 12
SHOWN_TRIALS = 8


class SearchBar(Progress):
    """A progress bar with something below it.

    Attributes:
        below: what is shown there; nothing where it is None.
    """

    below: RenderableType | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Give the bar, and what is below it."""
        yield from super().get_renderables()
        if self.below is not None:
            yield self.below


def search_bar(console: Console) -> SearchBar:
    """Return a bar that vanishes when it is stopped."""
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[more]}"))
    return SearchBar(*columns, console=console, transient=True)


def standing_line(standing: Standing) -> str:
    """What workers are at, in a line."""
    stages = ", ".join(f"{stage} {count}" for stage, count in sorted(standing.stages.items()))
    waiting = f"{standing.waiting} wait to be timed; " if standing.waiting else ""
    return f"{standing.workers} workers: {stages or 'none has work'}; {waiting}{standing.per_minute:.0f} candidates a minute"


def standing_view(standing: Standing) -> RenderableType:
    """What workers are at, as a table of the nodes, those that have been at something for longest first."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in ("node", "at", "trials", "for"):
        table.add_column(name)
    nodes = list(standing.nodes.items())
    for node, doing in nodes[:SHOWN_NODES]:
        stages = Counter(each.stage for each in doing)
        numbers = [number for each in doing for number in each.trials]
        shown = ", ".join(map(str, numbers[:SHOWN_TRIALS])) + (" …" if len(numbers) > SHOWN_TRIALS else "")
        at = ", ".join(stage if count == 1 else f"{stage} {count}" for stage, count in sorted(stages.items()))
        table.add_row(node, at, shown, f"{doing[0].seconds:.0f} s")
    if len(nodes) > SHOWN_NODES:
        table.add_row(f"… {len(nodes) - SHOWN_NODES} more", "", "", "")
    return Group(table, standing_line(standing))
