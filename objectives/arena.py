"""ONNX Runtime's memory for tensors: its arena, and the pattern by which later runs are laid out in one block.

The arena is the best-fit allocator with coalescing of TensorFlow, as ONNX Runtime has it (core/framework/bfc_arena.cc): it asks
the system for regions of doubling sizes, cuts chunks out of them, and keeps them. The first run takes each buffer from it; later
ones take one block for all buffers (core/framework/mem_pattern_planner.h), which is a further one where no chunk is large enough:
hence memory grows until the second run.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

STEP = 256  # bytes that sizes are rounded up to
FIRST_REGION = 1 << 20
SPARE = 128 << 20  # a chunk that has so much too many bytes is cut, whatever its size
HANDLE = 8  # bytes of the table of handles that a region has for each `STEP` of it


@dataclass
class Chunk:
    """A part of a region: where it begins, its bytes, and whether somebody has it."""

    start: int
    size: int
    used: bool = False


@dataclass
class Region:
    """What the arena asked the system for at once.

    Attributes:
        size: bytes.
        chunks: by their beginnings.
        touched: bytes up to the last that was ever in use; beyond them the system has given no memory yet.
    """

    size: int
    chunks: list[Chunk]
    touched: int = 0


class Arena:
    """The arena of a session that has just begun; it never gives memory back."""

    def __init__(self) -> None:
        self.regions: list[Region] = []
        self._next = FIRST_REGION

    @property
    def bytes(self) -> int:
        """What it has really taken: what was ever in use, and the tables of handles of its regions."""
        return sum(region.touched + HANDLE * (region.size // STEP) for region in self.regions)

    def take(self, size: int) -> tuple[Region, Chunk] | None:
        """Return a chunk of at least so many bytes, of a further region where none is free; None for no bytes."""
        if size <= 0:
            return None
        rounded = -(-size // STEP) * STEP
        found = self._fitting(rounded)
        if found is None:
            self._extend(rounded)
            found = self._fitting(rounded)
        assert found is not None
        region, place = found
        chunk = region.chunks[place]
        if chunk.size >= 2 * rounded or chunk.size - rounded >= SPARE:
            region.chunks.insert(place + 1, Chunk(chunk.start + rounded, chunk.size - rounded))
            chunk.size = rounded
        chunk.used = True
        region.touched = max(region.touched, chunk.start + size)
        return region, chunk

    def give_back(self, taken: tuple[Region, Chunk] | None) -> None:
        """Free what `take` returned; free neighbours become one chunk."""
        if taken is None:
            return
        region, chunk = taken
        chunk.used = False
        place = next(number for number, each in enumerate(region.chunks) if each is chunk)
        if place + 1 < len(region.chunks) and not region.chunks[place + 1].used:
            chunk.size += region.chunks.pop(place + 1).size
        if place and not region.chunks[place - 1].used:
            region.chunks[place - 1].size += region.chunks.pop(place).size

    def _fitting(self, size: int) -> tuple[Region, int] | None:
        """Return the smallest free chunk of at least so many bytes, the first of equal ones; None where there is none."""
        free = (
            (chunk.size, number, place)
            for number, region in enumerate(self.regions)
            for place, chunk in enumerate(region.chunks)
            if not chunk.used and chunk.size >= size
        )
        best = min(free, default=None)
        return None if best is None else (self.regions[best[1]], best[2])

    def _extend(self, size: int) -> None:
        doubled = False
        while self._next < size:
            self._next *= 2
            doubled = True
        self.regions.append(Region(self._next, [Chunk(0, self._next)]))
        if not doubled:
            self._next *= 2


class Pattern:
    """Where buffers lie in the one block that runs after the first take for all of them."""

    def __init__(self) -> None:
        self.bytes = 0  # of the block
        self._blocks: list[tuple[int, int, Hashable]] = []  # start, size and name of what is in use, by start

    def take(self, name: Hashable, size: int) -> None:
        """Place a buffer in the smallest gap that holds it, else behind the last one."""
        if size <= 0:
            return
        gaps, end = [], 0
        for place, (start, length, _) in enumerate(self._blocks):
            if start - end >= size:
                gaps.append((start - end, place, end))
            end = start + length
        _, place, start = min(gaps, default=(0, len(self._blocks), end))
        self._blocks.insert(place, (start, size, name))
        self.bytes = max(self.bytes, start + size)

    def give_back(self, name: Hashable) -> None:
        """Free a buffer."""
        self._blocks = [block for block in self._blocks if block[2] != name]
