"""A runtime on a device, as if it were here: every request goes to the runner there."""

from __future__ import annotations

import json
import math
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from ..spaces.statistics import Progress
from .connection import REQUEST_SECONDS, Blob, Connection
from .device.engine import RawProfile, Rounds, Slot

FEEDS = 16  # whose hashes are remembered
PROFILE_SECONDS = 3000.0  # that runs in turn may take on the device
PARTS = 4  # of the answer for each profiled model


class RemoteSession:
    """A model that is open on a device.

    Args:
        connection: to the device.
        model: its file.
    """

    def __init__(self, connection: Connection, model: Blob) -> None:
        self.model = model
        self._connection = connection
        weakref.finalize(self, connection.forgotten.append, model.name)

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Return all outputs for one batch, arrays by input name, where no output is named."""
        blobs = {name: Blob.of_array(array) for name, array in feed.items()}
        asked = {"model": self.model.name, "feed": _names(blobs), "outputs": output_names}
        reply = self._connection.ask("run", asked, [self.model, *blobs.values()])
        return [reply.array(number) for number in range(len(reply.parts))]


class RemoteEngine:
    """A runtime on a device (`device.engine.Engine`), with the device's clock.

    Args:
        connection: to the device; it says which runtime.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._feeds: OrderedDict[int, tuple[Mapping[str, np.ndarray], dict[str, Blob]]] = OrderedDict()

    def open(self, model: Path | bytes) -> RemoteSession:
        """Send a model and open it there."""
        blob = Blob.of(model)
        self.connection.ask("open", {"model": blob.name}, [blob])
        return RemoteSession(self.connection, blob)

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[RemoteSession, bytes]:
        """Open a model there; return the graph that the runtime made of it as well."""
        blob = Blob.of(model)
        asked = {"model": blob.name, "shapes": {name: list(shape) for name, shape in shapes.items()}}
        reply = self.connection.ask("inspect", asked, [blob])
        return RemoteSession(self.connection, blob), reply.parts[0]

    def profile(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[RawProfile]:
        """Run models in turn there and return what the runtime tells of each."""
        files, arrays = [Blob.of(model) for model in models], self._blobs(feed)
        asked = {
            "models": [blob.name for blob in files],
            "feed": _names(arrays),
            "least": rounds.least,
            "most": rounds.most,
            "seconds": None if math.isinf(rounds.seconds) else rounds.seconds,
        }
        reply = self.connection.ask("profile", asked, [*files, *arrays.values()], progress, PROFILE_SECONDS)
        return [
            RawProfile(
                reply.parts[first],
                [(op, node) for op, node in json.loads(reply.parts[first + 1])],
                reply.array(first + 2),
                reply.array(first + 3),
            )
            for first in range(0, len(reply.parts), PARTS)
        ]

    def timed(self, slots: Sequence[Slot]) -> list[float]:
        """Run sessions there one after another in one request; return the mean seconds of a run of each."""
        turns, blobs = [], []
        for slot in slots:
            model, arrays = _model(slot.session), self._blobs(slot.feed)
            turns.append({"model": model.name, "feed": _names(arrays), "repeats": slot.repeats})
            blobs += [model, *arrays.values()]
        found = self.connection.ask("time", {"slots": turns}, blobs, seconds=REQUEST_SECONDS).header["seconds"]
        return [float(seconds) for seconds in found]

    def alone(self) -> AbstractContextManager[None]:
        """Return a context in which nothing else is timed on the device."""
        return self.connection.alone()

    def _blobs(self, feed: Mapping[str, np.ndarray]) -> dict[str, Blob]:
        """Return the arrays of a feed as files; those of the latest feeds are remembered."""
        if id(feed) not in self._feeds:
            self._feeds[id(feed)] = feed, {name: Blob.of_array(array) for name, array in feed.items()}
        self._feeds.move_to_end(id(feed))
        while len(self._feeds) > FEEDS:
            self._feeds.popitem(last=False)
        return self._feeds[id(feed)][1]


def _model(session: Any) -> Blob:
    if not isinstance(session, RemoteSession):
        raise TypeError(f"{type(session).__name__} is no session of a device")
    return session.model


def _names(blobs: Mapping[str, Blob]) -> dict[str, str]:
    return {name: blob.name for name, blob in blobs.items()}
