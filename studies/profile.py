"""Profile: where the reference's bytes and milliseconds go, and what compressing each layer costs: what to compress first."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..objectives.kernel_profile import KernelProfile, Rounds
from ..objectives.quality import CAP_DB
from ..objectives.target import Slot, Target
from ..spaces.attribution import attribute
from ..spaces.candidate import Candidate
from ..spaces.groups import channel_groups
from ..spaces.sensitivity import sensitivity
from ..spaces.statistics import Progress
from .memory_profile import memory_profile

if TYPE_CHECKING:
    from ..spaces.build import Built
    from ..spaces.graph import Graph
    from .study import Study

FLOAT32_BYTES = 4
FIRST_RUNS = 3  # discarded: memory is being laid out
LEAST_RUNS = 5
MOST_RUNS = 30
SECONDS = 3.0


def profile(study: Study, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the reference with the runtime's own profile, and predict what each compression alone costs.

    Returns:
        ``study``, ``parameters`` and ``bytes`` (float32) of the whole, ``latency_ms`` of one batch, ``layers`` (name,
        op, parameters, bytes, ms, share, weight_bits_db), the slowest first, ``groups`` (name, channels, layers, ratios_db)
        and ``other`` (ms, share): the nodes that are no layer; ``memory`` (`memory_profile`) where it can be told. Shares are
        of the sum of all nodes' times. ``weight_bits_db`` and ``ratios_db`` give, for each width and pruning ratio of the
        study's space, the predicted PSNR against the reference's output with that layer or group alone compressed, at most
        100 dB.

    Raises:
        InputError: the study is wrong.
        BuildError: the model does not run.
    """
    study.check()
    graph = study.graph
    feed = study.feed
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        built = study.builder.build(Candidate())
        graph_file = Path(folder) / "reference.onnx"
        built.save_graph(graph_file)
        latency_ms = _latency_ms(_packed(built, graph_file), feed, study.target)
        [profiled] = study.target.profiles([graph_file], feed, Rounds(LEAST_RUNS, MOST_RUNS, SECONDS))
    curves, groups = sensitivity_curves(study, progress)
    memory = memory_profile(study, progress)
    times = layer_times(profiled, built, graph)
    total = sum(times.values())
    layers = [
        {
            "name": layer.name,
            "op": layer.op,
            "parameters": layer.parameters,
            "bytes": FLOAT32_BYTES * layer.parameters,
            "ms": times.get(layer.name, 0.0),
            "share": times.get(layer.name, 0.0) / total if total else 0.0,
            "weight_bits_db": curves[layer.name],
        }
        for layer in graph.layers.values()
    ]
    return {
        "study": study.name,
        "parameters": graph.parameters,
        "bytes": FLOAT32_BYTES * graph.parameters,
        "latency_ms": latency_ms,
        "layers": sorted(layers, key=lambda layer: -layer["ms"]),
        "groups": groups,
        "other": {"ms": times.get("", 0.0), "share": times.get("", 0.0) / total if total else 0.0},
        **({} if memory is None else {"memory": memory}),
    }


def sensitivity_curves(
    study: Study, progress: Progress | None
) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Return the predicted dB over weight bits by layer, and channel groups with theirs over pruning ratios."""
    space = study.space
    study.prepare_spaces(progress)
    found = sensitivity(study.builder, space, progress)
    layers = {
        name: {
            str(bits): decibels(study, found.bits[name][bits])
            for bits in sorted({choice.weight_bits for choice in choices if choice.rounded})
            if bits in found.bits.get(name, {})
        }
        for name, choices in space.choices.items()
    }
    groups = [
        {
            "name": name,
            "channels": group.channels,
            "layers": list(group.layers),
            "ratios_db": {f"{ratio:g}": decibels(study, error) for ratio, error in found.ratios.get(name, {}).items()},
        }
        for name, group in channel_groups(study.graph).groups.items()
    ]
    return layers, groups


def decibels(study: Study, error: float) -> float:
    """Return the PSNR in dB that a mean squared error leaves in a study's range, at most 100."""
    low, high = study.settings.data.range
    return float(min(CAP_DB, -10.0 * np.log10(max(error / (high - low) ** 2, 1e-30))))


def layer_times(profiled: KernelProfile, built: Built, graph: Graph) -> dict[str, float]:
    """Return the median milliseconds of each layer's kernels; under "" all else.

    Args:
        profiled: the kernels of ``built``.
        built: the file's model, whose nodes know what they were written for.
        graph: names the layers.
    """
    times: dict[str, float] = defaultdict(float)
    for place, milliseconds in zip(attribute(profiled.kernels, built, graph), profiled.kernel_ms, strict=True):
        times[place.name if place.kind == "layer" else ""] += float(milliseconds)
    return dict(times)


def _packed(built: Built, graph_file: Path) -> Path:
    """Return the file of a model whose graph was written: the same one, or another that is written beside it."""
    if built.format.pack is None:
        return graph_file
    path = graph_file.with_suffix(built.format.suffix)
    built.save(path)
    return path


def _latency_ms(model: Path, feed: Mapping[str, np.ndarray], target: Target) -> float:
    """Return the median time of a batch in a session that is not profiled, the first runs left out."""
    slot = Slot(target.open(model), feed)
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < FIRST_RUNS + 2 or (len(times) < MOST_RUNS and time.perf_counter() - start < SECONDS):
        times += target.timed([slot])
    return 1000.0 * statistics.median(times[FIRST_RUNS:])
