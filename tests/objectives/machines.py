"""A machine whose kernel times are known: real ONNX Runtime says which kernels a model runs, a formula how long they take."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from slimfront.objectives.kernel_profile import KernelProfile, Rounds
from slimfront.objectives.predictor import Predictor
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.groups import fitting
from slimfront.spaces.kernels import Kernel
from slimfront.spaces.space import Space, make_space

LINK_MS = 0.0003  # from one kernel to the next
NOISE = 0.02  # standard deviation of the logarithm of one kernel's time in one round


def true_ms(kernel: Kernel) -> float:
    """What a kernel takes when nothing disturbs it."""
    per_multiply_add = 0.8e-7 if kernel.integer else 3e-7
    return per_multiply_add * kernel.multiply_adds + 1e-6 * kernel.elements + 0.002


class Machine:
    """A target with known times, that slows down and recovers while it runs."""

    def __init__(self, fingerprint: str = "synthetic", link_ms: float = LINK_MS) -> None:
        self.fingerprint = fingerprint
        self.link_ms = link_ms
        self.profiled = 0
        self._runtime = OnnxRuntime(fingerprint)
        self._random = np.random.default_rng(0)

    def kernels(self, model: Path, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
        return self._runtime.kernels(model, inputs)

    def profiles(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: object = None
    ) -> list[KernelProfile]:
        self.profiled += len(models)
        shapes = {name: array.shape for name, array in feed.items()}
        found = [self.kernels(model, shapes) for model in models]
        slower = 1.2 + 0.2 * math.sin(self.profiled / 7)
        profiles = []
        for kernels in found:
            noise = np.exp(NOISE * self._random.standard_normal((rounds.least, len(kernels))))
            times = slower * noise * np.array([true_ms(kernel) for kernel in kernels])
            profiles.append(KernelProfile(kernels, times, times.sum(axis=1) + slower * self.link_ms * len(kernels)))
        return profiles


def whole_ms(predictor: Predictor, candidate: Candidate, folder: Path, integer: float = 1.0) -> float:
    """What a candidate's real build takes on the machine; integer products so many times longer."""
    predictor.builder.build(candidate).save(folder / "true.onnx")
    kernels = predictor.target.kernels(folder / "true.onnx", {"x": (1, 3, 16, 16)})
    return sum(
        predictor.target.link_ms + true_ms(kernel) * (integer if kernel.integer and kernel.is_product else 1.0)
        for kernel in kernels
    )


def speedup(predictor: Predictor, candidate: Candidate, folder: Path, integer: float = 1.0) -> float:
    """How many times faster a candidate really is than the reference."""
    reference = whole_ms(predictor, Candidate(), folder, integer)
    return reference / whole_ms(predictor, fitting(predictor.builder.graph, candidate), folder, integer)


def study_parts(model: Path, images: np.ndarray) -> tuple[Builder, Space, dict[str, np.ndarray]]:
    """A builder that rounds quickly, a space with bits and ratios, and one batch."""
    builder = Builder(capture_onnx(model), {"x": images}, rounding="plain")
    ratios = (0.0, 0.25, 0.5, 0.75)
    space = make_space(builder.graph, weight_bits=(4, 8, 32), pruning_ratios=ratios, step=2)
    return builder, space, {"x": images[:1]}
