"""Limits on candidates, and the texts they are given in: "1MB", "800kB", "1.5MiB", "40ms", "0.1s", "10m"."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import InputError

Values = NDArray[np.float64]
SIZES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
TIMES_S = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def parse_size(value: str | float, what: str = "size") -> int:
    """Return bytes: "1MB" is 1,000,000, "1MiB" is 1,048,576, a plain number is bytes.

    Raises:
        InputError: no such unit, or not positive; ``what`` names the key or flag.
    """
    return round(_parse(value, SIZES, what, "a size such as '1MB', '800kB' or '1.5MiB'"))


def parse_limit(value: str, what: str) -> float:
    """Return a limit of a further objective from a text: a number, or a size such as "40MB" in bytes.

    Raises:
        InputError: it is neither; ``what`` names the key or flag.
    """
    try:
        return float(value)
    except ValueError:
        return round(_parse(value, SIZES, what, "a number, or a size such as '40MB'"))


def parse_time(value: str | float, what: str = "time", plain: str = "s") -> float:
    """Return seconds: "40ms", "0.1s", "10m", "1h"; a plain number is in units of ``plain``.

    Raises:
        InputError: no such unit, or not positive; ``what`` names the key or flag.
    """
    return _parse(value, TIMES_S | {"": TIMES_S[plain]}, what, "a time such as '40ms', '0.1s' or '10m'")


def _parse(value: str | float, units: Mapping[str, float], what: str, example: str) -> float:
    match = re.fullmatch(r"\s*(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([a-zµ]*)\s*", str(value).lower())
    if isinstance(value, bool) or match is None or match[2] not in units:
        raise InputError(f"{what} must be {example}, but got {value!r}")
    number = float(match[1]) * units[match[2]]
    if not 0 < number < math.inf:
        raise InputError(f"{what} must be above 0, but got {value!r}")
    return number


@dataclass(frozen=True)
class Bound:
    """A limit on a reading of a further objective.

    Attributes:
        reading: its name.
        kind: "min", "max", or "max_drop": by how much it may be worse than the reference's.
        limit: the value.
        unit: of the reading.
        maximise: whether more is better.
        title: what the reading is called.
    """

    reading: str
    kind: str
    limit: float
    unit: str = ""
    maximise: bool = True
    title: str = ""

    def excess(self, value: Any, best: float) -> Any:
        """Return by how much the limit is broken, below 0 where it is kept; 1 where the value is missing (NaN).

        In parts of 3 dB where the reading is in decibels, else of the limit.

        Args:
            value: of a candidate, or of several ``[N]``.
            best: of the reference, from which a drop counts.
        """
        over = {
            "min": self.limit - value,
            "max": value - self.limit,
            "max_drop": (best - value if self.maximise else value - best) - self.limit,
        }[self.kind]
        scale = 3.0 if self.unit == "dB" else abs(self.limit) or 1.0
        return np.where(np.isnan(over), 1.0, np.asarray(over) / scale)

    def __str__(self) -> str:
        words = {"min": "at least", "max": "at most", "max_drop": "worse than the reference by at most"}[self.kind]
        limit = f"{self.limit:,.0f}" if self.unit == "bytes" else f"{self.limit:g}"
        return f"{self.title or self.reading} {words} {limit}{f' {self.unit}' if self.unit else ''}"


NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Limits:
    """What a candidate must keep; None is no limit.

    Attributes:
        max_size, max_memory: bytes. max_latency: milliseconds. min_psnr, max_drop: decibels. min_speedup: times the reference.
        bounds: of further objectives.
    """

    max_size: float | None = None
    max_latency: float | None = None
    min_psnr: float | None = None
    max_drop: float | None = None
    min_speedup: float | None = None
    max_memory: float | None = None
    bounds: tuple[Bound, ...] = ()

    @classmethod
    def parse(cls, values: Mapping[str, Any], where: str = "") -> Limits:
        """Read limits as a study file, a flag or a Python call gives them; None is no limit.

        Raises:
            InputError: a value of the wrong kind, named with ``where`` in front of its key.
        """
        parsed: dict[str, Any] = {}
        for key, value in values.items():
            if value is None:
                continue
            if key in ("max_size", "max_memory"):
                parsed[key] = parse_size(value, where + key)
            elif key == "max_latency":
                parsed[key] = parse_time(value, where + key, plain="ms") * 1000.0
            elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"{where}{key} must be a number, but got {value!r}")
            elif value < 0 or (value == 0 and key == "min_speedup"):
                raise InputError(f"{where}{key} must be above 0, but got {value!r}")
            else:
                parsed[key] = float(value)
        return cls(**parsed)

    def given(self) -> dict[str, float]:
        """Return the limits that are set, but for those of further objectives."""
        return {name: value for name in GIVEN if (value := getattr(self, name)) is not None}

    def over(self, other: Limits) -> Limits:
        """Return these limits, and those of ``other`` where these have none."""
        own = {(bound.reading, bound.kind) for bound in self.bounds}
        bounds = (*self.bounds, *(bound for bound in other.bounds if (bound.reading, bound.kind) not in own))
        given: dict[str, Any] = other.given() | self.given()
        return Limits(**given, bounds=bounds)

    def each(self) -> dict[str, Limits]:
        """Return each limit that is set alone, by its name; of further objectives by what it says."""
        given: dict[str, Any] = self.given()
        alone = {key: Limits(**{key: value}) for key, value in given.items()}
        return alone | {str(bound): Limits(bounds=(bound,)) for bound in self.bounds}

    def violation(
        self,
        *,
        size_bytes: float,
        latency_ms: float,
        psnr_db: float,
        drop_db: float,
        speedup: float,
        memory_bytes: float = math.inf,
        readings: Mapping[str, float] = NOTHING,
        best: Mapping[str, float] = NOTHING,
    ) -> float:
        """Return by how much a candidate breaks the limits: the sum of relative excesses, 0 where it is feasible.

        Args:
            size_bytes, latency_ms, psnr_db, drop_db, speedup: of the candidate.
            memory_bytes: of the candidate; what is not known keeps no limit.
            readings: of further objectives, by name; one that is missing keeps no limit that asks for it.
            best: the same of the reference, from which a drop counts.
        """
        excesses = self._excesses(size_bytes, latency_ms, psnr_db, drop_db, speedup, memory_bytes)
        return sum(max(0.0, float(excess)) for excess in [*excesses, *self._beyond(readings, best)])

    def apart(
        self, *, memory_bytes: float, readings: Mapping[str, float], best: Mapping[str, float]
    ) -> tuple[float, ...]:
        """Return by how much each limit that is on no axis of `point` is broken, below 0 where it is kept; NaN: not known.

        Args:
            memory_bytes, readings, best: as for `violation`.
        """
        known = math.isfinite(memory_bytes)
        memory = () if self.max_memory is None else (self._memory_excess(memory_bytes) if known else math.nan,)
        further = [
            float(bound.excess(readings[bound.reading], best[bound.reading])) if bound.reading in readings else math.nan
            for bound in self.bounds
        ]
        return (*memory, *further)

    def kept(
        self,
        *,
        size_bytes: Values,
        latency_ms: Values,
        psnr_db: Values,
        drop_db: Values,
        speedup: Values,
        memory_bytes: Values | float = math.inf,
        readings: Mapping[str, Values] = NOTHING,
        best: Mapping[str, float] = NOTHING,
    ) -> NDArray[np.bool_]:
        """Return a mask ``[N]`` of the candidates that break no limit; each argument has a value of every one ``[N]``.

        A value that is missing (NaN) keeps no limit that asks for it; ``best`` as of `violation`.
        """
        kept = np.ones(len(size_bytes), bool)
        excesses = self._excesses(size_bytes, latency_ms, psnr_db, drop_db, speedup, memory_bytes)
        for excess in [*excesses, *self._beyond(readings, best)]:
            kept &= excess <= 0.0
        return kept

    def _beyond(self, readings: Mapping[str, Any], best: Mapping[str, float]) -> list[Any]:
        """Return by how much each limit of a further objective is broken."""
        return [
            bound.excess(readings.get(bound.reading, math.nan), best.get(bound.reading, math.nan))
            for bound in self.bounds
        ]

    def _excesses(
        self, size_bytes: Any, latency_ms: Any, psnr_db: Any, drop_db: Any, speedup: Any, memory_bytes: Any
    ) -> list[Any]:
        """Return by how much each given limit is broken, below 0 where it is kept; of numbers or of arrays of them."""
        excess = {
            "max_size": size_bytes / (self.max_size or 1.0) - 1.0,
            "max_latency": latency_ms / (self.max_latency or 1.0) - 1.0,
            "min_psnr": ((self.min_psnr or 0.0) - psnr_db) / 3.0,
            "max_drop": (drop_db - (self.max_drop or 0.0)) / 3.0,
            "min_speedup": (self.min_speedup or 0.0) / speedup - 1.0,
            "max_memory": self._memory_excess(memory_bytes),
        }
        return [excess[key] for key in self.given()]

    def _memory_excess(self, memory_bytes: Any) -> Any:
        return memory_bytes / (self.max_memory or 1.0) - 1.0

    def point(
        self, *, size_bytes: float, latency_ms: float, best_db: float, full_drop_db: float
    ) -> tuple[float, float, float]:
        """Return the largest (size / reference size, 1 / speedup, drop) that keeps the limits; infinite where none.

        Memory and further objectives are on none of these axes: see `apart`.

        Args:
            size_bytes: of the reference.
            latency_ms: of the reference.
            best_db: the quality from which a drop counts.
            full_drop_db: decibels that a drop of 1 stands for.
        """
        most = math.inf
        size = most if self.max_size is None else self.max_size / size_bytes
        times = [
            most if self.max_latency is None else self.max_latency / latency_ms,
            most if self.min_speedup is None else 1.0 / self.min_speedup,
        ]
        drops = [
            most if self.max_drop is None else self.max_drop / full_drop_db,
            most if self.min_psnr is None else (best_db - self.min_psnr) / full_drop_db,
        ]
        return size, min(times), min(drops)

    def __str__(self) -> str:
        shown = {
            "max_size": "size at most {:,.0f} bytes",
            "max_latency": "latency at most {:g} ms",
            "min_psnr": "PSNR at least {:g} dB",
            "max_drop": "drop at most {:g} dB",
            "min_speedup": "speedup at least {:g}",
            "max_memory": "peak memory at most {:,.0f} bytes",
        }
        told = [shown[key].format(value) for key, value in self.given().items()]
        return ", ".join([*told, *map(str, self.bounds)]) or "no limit"


GIVEN = (
    "max_size",
    "max_latency",
    "min_psnr",
    "max_drop",
    "min_speedup",
    "max_memory",
)  # in the order in which they are told


def given_limits(
    max_size: str | float | None = None,
    max_latency: str | float | None = None,
    min_psnr: float | None = None,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    max_memory: str | float | None = None,
    bounds: tuple[Bound, ...] = (),
) -> Limits:
    """Return limits as flags or a Python call give them. Raises `InputError` where one cannot be read."""
    limits = Limits.parse(
        {
            "max_size": max_size,
            "max_latency": max_latency,
            "min_psnr": min_psnr,
            "max_drop": max_drop,
            "min_speedup": min_speedup,
            "max_memory": max_memory,
        }
    )
    return replace(limits, bounds=bounds)
