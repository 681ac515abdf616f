"""What the searches of one study share beside their folders."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Source(Protocol):
    """Shared things, to read."""

    def kept(self, content: str) -> bytes | None:
        """Return what is kept under a content id; None where nothing is."""
        ...

    def agreed(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return facts about the run on which all agree, those included where nothing was told of them before."""
        ...


class Store(Source, Protocol):
    """A source that can be added to."""

    def keep(self, content: str, data: bytes) -> None:
        """Keep something under its content id."""
        ...


class NoStore:
    """Of a run that shares nothing."""

    def kept(self, content: str) -> bytes | None:
        """Nothing is."""
        return None

    def agreed(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Nobody else has told any."""
        return facts

    def keep(self, content: str, data: bytes) -> None:
        """The folder has it."""
