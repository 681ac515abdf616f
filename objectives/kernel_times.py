"""How long kernels take on one machine: a table of what was measured, and Gaussian processes over shapes for the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spaces.kernels import QUANTISING, REORDERING, TYPES, Kernel
from .kernel_family import LEAST_FITTED, Family, KernelTime, Tuned, as_family

Floats = NDArray[np.float64]

FEATURES = 7  # of a kernel
KEPT = 30  # measurements of one kernel
LEAST_MS = 1e-4  # the profile counts microseconds
SPREAD = 0.05  # standard deviation of the logarithm of one measurement, while too few kernels tell it
LEAST_SPREAD = 0.01
LEAST_VARIED = 10
SHARES = ("integer products", "float products", "conversions", "other")
CONVERSIONS = (*QUANTISING, *REORDERING, "Transpose", "Cast")


@dataclass
class Described:
    """A kernel: its family, what it counts as, its features, and its times in milliseconds where it was measured."""

    family: str
    share: str
    features: tuple[float, ...]
    ms: list[float] = field(default_factory=list)

    @property
    def log_ms(self) -> float:
        """The logarithm of the median time; NaN where it was not measured."""
        return float(np.log(np.median(self.ms))) if self.ms else np.nan


class KernelTimes:
    """Times of kernels by their key (`spaces.kernels.Kernel.key`)."""

    def __init__(self) -> None:
        self.kernels: dict[str, Described] = {}
        self._families: dict[str, Family] = {}
        self._tuned: dict[str, Tuned] = {}
        self._known: dict[str, KernelTime] = {}

    def add(self, kernels: Sequence[Kernel], ms: Floats) -> None:
        """Add what one profile found; equal kernels of a model count once, with their mean.

        Args:
            kernels: of a model.
            ms: their times ``[kernels]``.
        """
        sums: dict[str, list[float]] = {}
        for kernel, value in zip(kernels, ms.tolist(), strict=True):
            self.describe(kernel)
            sums.setdefault(kernel.key, []).append(max(value, LEAST_MS))
        for key, values in sums.items():
            known = self.kernels[key]
            known.ms = [*known.ms, float(np.mean(values))][-KEPT:]
        told = {kin(self.kernels[key].family) for key in sums}
        self._families = {name: known for name, known in self._families.items() if kin(name) not in told}
        self._known.clear()
        vars(self).pop("_spread", None)

    def describe(self, kernel: Kernel) -> str:
        """Take a kernel into the table, measured or not; return its key."""
        if kernel.key not in self.kernels:
            self.kernels[kernel.key] = Described(family(kernel), share(kernel), features(kernel))
        return kernel.key

    def know(self, kernels: Mapping[str, Described]) -> None:
        """Take note of kernels, by key, so that their times can be asked for; nothing is learned of these."""
        for key, kernel in kernels.items():
            if key not in self.kernels:
                self.kernels[key] = Described(kernel.family, kernel.share, kernel.features)
                self._known.pop(key, None)

    def time(self, key: str) -> KernelTime:
        """Return what a described kernel takes: by its own measurements, and by those of its family."""
        if key not in self._known:
            self._tell_family(self.kernels[key].family)
        return self._known[key]

    def knows(self, key: str) -> bool:
        """Whether this very kernel was measured."""
        return key in self.kernels and bool(self.kernels[key].ms)

    def _tell_family(self, name: str) -> None:
        """Work out the times of all kernels of a family."""
        if name not in self._families:
            measured = [k for k in self.kernels.values() if k.family == name and k.ms]
            if len(measured) < LEAST_FITTED:  # too few of its own
                measured = [k for k in self.kernels.values() if kin(k.family) == kin(name) and k.ms]
            facts = [(k.features, k.log_ms, self._spread / np.sqrt(len(k.ms))) for k in measured]
            self._families[name] = as_family(facts, FEATURES, self._tuned.get(name))
            tuned = self._families[name].tuned
            if tuned is not None:
                self._tuned[name] = tuned
        members = {key: k for key, k in self.kernels.items() if k.family == name and key not in self._known}
        rows = np.array([k.features for k in members.values()])
        own = np.array([k.log_ms for k in members.values()])
        spreads = np.array([self._spread / np.sqrt(max(len(k.ms), 1)) for k in members.values()])
        self._known |= dict(zip(members, self._families[name].times(rows, own, spreads), strict=True))

    @cached_property
    def _spread(self) -> float:
        """The standard deviation of the logarithm of one measurement, from kernels that were measured several times."""
        varied = [np.var(np.log(k.ms), ddof=1) for k in self.kernels.values() if len(k.ms) > 2]
        return max(float(np.sqrt(np.median(varied))), LEAST_SPREAD) if len(varied) >= LEAST_VARIED else SPREAD

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return all of it as arrays by name; without pickle."""
        rows = list(self.kernels.items())
        return {
            "keys": np.array([key for key, _ in rows], dtype=np.str_),
            "families": np.array([each.family for _, each in rows], dtype=np.str_),
            "shares": np.array([each.share for _, each in rows], dtype=np.str_),
            "features": np.array([each.features for _, each in rows], float).reshape(-1, FEATURES),
            "counts": np.array([len(each.ms) for _, each in rows], dtype=np.int64),
            "ms": np.array([value for _, each in rows for value in each.ms]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> KernelTimes:
        """Read what `to_arrays` gave."""
        times = cls()
        ends = np.cumsum(arrays["counts"])
        parts = ((ends - arrays["counts"]).tolist(), ends.tolist())
        named = (arrays[name].tolist() for name in ("keys", "families", "shares", "features"))
        for key, of, as_, row, start, end in zip(*named, *parts, strict=True):
            times.kernels[key] = Described(of, as_, tuple(row), arrays["ms"][start:end].tolist())
        return times


def share(kernel: Kernel) -> str:
    """Return what a kernel counts as among `SHARES`."""
    if kernel.is_product:
        return SHARES[0] if kernel.integer else SHARES[1]
    return SHARES[2] if kernel.short_op in CONVERSIONS else SHARES[3]


def family(kernel: Kernel) -> str:
    """Return what a kernel has in common with those whose times tell its own: op, window, and after "|" types and layout."""
    types = [
        TYPES.get(t.dtype, "?") for t, stored in zip(kernel.inputs, kernel.constants, strict=True) if t and not stored
    ]
    told = [f"{name}={value}" for name, value in kernel.attributes if name in ("activation", "channels_last", "mode")]
    window = dict(kernel.attributes).get("kernel_shape", ())
    grouped = dict(kernel.attributes).get("group", 1) != 1
    alike = [kernel.op, *types[:1], f"{window}" if window else "", "grouped" if grouped else ""]
    return " ".join([*filter(None, alike), "|", *types[1:], *told])


def kin(name: str) -> str:
    """Return what families have in common that tell each other's times where one of them has too few."""
    return name.partition("|")[0]


def features(kernel: Kernel) -> tuple[float, ...]:
    """Return logarithms of the sizes that a kernel's time goes with: work, elements, and the axes of its output."""
    output = next((t.shape for t in kernel.outputs if t is not None and t.shape is not None), ())
    data = next((t.shape for t in kernel.inputs if t is not None and t.shape), ())
    weight = kernel.weight.shape if kernel.weight is not None and kernel.weight.shape else (1, 1)
    sizes = [kernel.multiply_adds, kernel.elements, np.prod(output, dtype=float), *weight[:2]]
    sizes += [data[-1] if data else 1, output[-1] if output else 1]
    return tuple(float(np.log1p(size)) for size in sizes)


def total(times: Sequence[KernelTime], counts: Sequence[int]) -> tuple[float, float]:
    """Return the sum of kernel times in milliseconds and its standard deviation; half of their errors goes together."""
    parts = np.array(
        [(count * time.ms, count * time.ms * time.spread) for time, count in zip(times, counts, strict=True)]
    )
    together, apart = parts[:, 1].sum(), np.sqrt((parts[:, 1] ** 2).sum())
    return float(parts[:, 0].sum()), float(0.5 * (together + apart))
