"""The range that 8 bits should span for a tensor: least squared error, as the next node sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from .integer_ops import clip_range, constant_input

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

Seen = Callable[[np.ndarray], np.ndarray]
COARSE = np.linspace(1.0, 0.3, 15)
FINE = np.linspace(1.15, 0.5, 14)


class ValueSample:
    """Extremes of a tensor, and values at positions that are the same for all tensors of one size."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.kept: list[np.ndarray] = []
        self.size = 0

    def add(self, array: np.ndarray, share: int, batch: int) -> None:
        """Take at most ``share`` values of a batch's tensor."""
        self.low, self.high = min(self.low, float(array.min())), max(self.high, float(array.max()))
        flat = array.reshape(-1)
        self.size = flat.size
        random = np.random.default_rng((batch, flat.size))
        self.kept.append(flat[random.integers(0, flat.size, min(share, flat.size))])

    @property
    def values(self) -> np.ndarray:
        """All sampled values."""
        return np.concatenate(self.kept)


def choose_range(values: np.ndarray, low: float, high: float, seen: Seen | None = None) -> tuple[float, float]:
    """Return (low, high), within the given extremes, whose 8-bit grid gives the least squared error of ``seen(values)``.

    Args:
        values: float32 [M] of the tensor.
        low, high: its extremes.
        seen: what the next node makes of the values; None where they are read as they are.
    """
    seen = seen or (lambda array: array)
    exact = seen(values)

    def error(ends: tuple[float, float]) -> float:
        step = max((ends[1] - ends[0]) / 255, 1e-30)
        zero = np.rint(-ends[0] / step)
        rounded = (np.clip(np.rint(values / step) + zero, 0, 255) - zero) * step
        return float(np.mean((seen(rounded) - exact) ** 2))

    extremes = (min(low, 0.0), max(high, 0.0))
    best = min(((extremes[0] * f, extremes[1] * f) for f in COARSE), key=error)
    for _ in range(2):
        lows = {max(best[0] * f, extremes[0]) for f in FINE} | {best[0]}
        best = min(((one, best[1]) for one in sorted(lows)), key=error)
        highs = {min(best[1] * f, extremes[1]) for f in FINE} | {best[1]}
        best = min(((best[0], one) for one in sorted(highs)), key=error)
    return best


def seen_by_reader(graph: Graph, samples: Mapping[str, ValueSample]) -> dict[str, Seen]:
    """Return what the only reader of a tensor makes of it, for the tensors whose errors it shrinks.

    An error in front of a LeakyRelu or Sigmoid counts as far as it passes; one in a sum that is clipped afterwards counts
    where the sum is not clipped.
    """
    readers: dict[str, list[ir.Node]] = {}
    for node in graph.model.graph:
        for value in node.inputs:
            if value is not None:
                readers.setdefault(value.name or "", []).append(node)
    outputs = {value.name for value in graph.model.graph.outputs}

    def only_reader(name: str) -> ir.Node | None:
        found = readers.get(name, [])
        return found[0] if len(found) == 1 and name not in outputs else None

    result: dict[str, Seen] = {}
    for name, sample in samples.items():
        reader = only_reader(name)
        if reader is None:
            continue
        if reader.op_type == "LeakyRelu":
            slope = reader.attributes.get_float("alpha", 0.01) or 0.0
            result[name] = lambda v, s=slope: np.where(v < 0, s * v, v)  # type: ignore[misc]
        elif reader.op_type == "PRelu" and (slopes := constant_input(reader, 1)) is not None:
            slope = float(np.abs(slopes).mean())
            result[name] = lambda v, s=slope: np.where(v < 0, s * v, v)  # type: ignore[misc]
        elif reader.op_type == "Sigmoid":
            result[name] = lambda v: 0.5 * (1 + np.tanh(0.5 * v))  # no overflow, unlike exp(-v)
        elif reader.op_type == "Add":
            after = only_reader(reader.outputs[0].name or "")
            other = next((v.name or "" for v in reader.inputs if v is not None and v.name != name), "")
            paired = samples.get(other)
            if after is not None and after.op_type in ("Relu", "Clip") and paired and paired.size == sample.size:
                low, high = clip_range(after)
                beside = paired.values
                result[name] = lambda v, b=beside, lo=low, hi=high: np.clip(v + b, lo, hi)  # type: ignore[misc]
    return result
