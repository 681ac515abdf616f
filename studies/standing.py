"""What the workers of a search are at, at one moment."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Doing:
    """What one worker is at.

    Attributes:
        node: where it is; empty in the search's own process.
        stage: "prediction", "build", "quality" or "timing"; "opening" before the first.
        trials: their numbers: one, or several that are timed together.
        seconds: since when it is at the stage.
    """

    node: str
    stage: str
    trials: tuple[int, ...]
    seconds: float


@dataclass(frozen=True)
class Standing:
    """What all workers are at.

    Attributes:
        workers: how many there are; 0 when they are gone.
        doing: what those are at that have work.
        waiting: trials that wait to be timed.
        per_minute: trials that were finished in the last minute.
    """

    workers: int
    doing: tuple[Doing, ...]
    waiting: int
    per_minute: float

    @property
    def stages(self) -> Counter[str]:
        """How many workers are at each stage."""
        return Counter(doing.stage for doing in self.doing)

    @property
    def nodes(self) -> Mapping[str, list[Doing]]:
        """What the workers of each node are at, the node that has been at something for longest first."""
        by_node: dict[str, list[Doing]] = defaultdict(list)
        for doing in sorted(self.doing, key=lambda doing: -doing.seconds):
            by_node[doing.node].append(doing)
        return by_node
