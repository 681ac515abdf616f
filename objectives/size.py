"""Exact size: the bytes that a device has to store."""

from __future__ import annotations

from ..spaces.build import file_size
from .protocol import Reading, Subject


class Size:
    """Reads `size_bytes`, the size of the model's file on disk, external data included."""

    name = "size"

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return `size_bytes`."""
        return {"size_bytes": Reading(file_size(subject.model.path), "bytes", how="file size")}
