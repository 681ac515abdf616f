"""Where a target's models run: on this machine, or on a device that a runner serves."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .device.engine import Slot, timed
from .machine import machine_to_itself

if TYPE_CHECKING:
    from .remote_engine import RemoteEngine


TOGETHER_SECONDS = 1.0


@dataclass(frozen=True)
class Placed:
    """A target that runs here, or on a device.

    Attributes:
        device: the runtime there; None is this machine.
    """

    device: RemoteEngine | None = field(default=None, kw_only=True)

    @property
    def together_seconds(self) -> float:
        """Seconds of rounds that are asked for at once: a processor that rests between rounds runs the next one otherwise."""
        return 0.0 if self.device is None else TOGETHER_SECONDS

    def timed(self, slots: Sequence[Slot]) -> list[float]:
        """Run sessions one after another where they are; return the mean seconds of a run of each (`engine.timed`)."""
        return timed(slots) if self.device is None else self.device.timed(slots)

    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which nothing else is timed there; it waits until that is so."""
        return machine_to_itself() if self.device is None else self.device.alone()
