"""Profile: where the reference's bytes and milliseconds go, and what compressing each layer costs: what to compress first."""

from __future__ import annotations

import json
import re
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..objectives.quality import CAP_DB
from ..spaces.groups import channel_groups
from ..spaces.sensitivity import sensitivity
from ..spaces.session import batches, open_session
from ..spaces.statistics import Progress

if TYPE_CHECKING:
    from ..spaces.graph import Graph
    from .study import Study

FLOAT32_BYTES = 4
FIRST_RUNS = 3  # discarded: memory is being laid out
MOST_RUNS = 30
SECONDS = 3.0
WEIGHT_OPS = ("Conv", "Gemm", "MatMul")  # what is in the name of every kernel that runs a layer


def profile(study: Study, progress: Progress | None = None) -> dict[str, Any]:
    """Measure the reference with ONNX Runtime's own profile, and predict what each compression alone costs.

    Returns:
        ``study``, ``parameters`` and ``bytes`` (float32) of the whole, ``latency_ms`` of one batch, ``layers`` (name,
        op, parameters, bytes, ms, share, weight_bits_db), the slowest first, ``groups`` (name, channels, layers, ratios_db)
        and ``other`` (ms, share): the nodes that are no layer. Shares are of the sum of all nodes' times. ``weight_bits_db``
        and ``ratios_db`` give, for each width and pruning ratio of the study's space, the predicted PSNR against the
        reference's output with that layer or group alone compressed, at most 100 dB.

    Raises:
        InputError: the study is wrong.
        BuildError: the model does not run.
    """
    study.check()
    graph = study.graph
    feed = next(batches(study.calibration, graph.batch))
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        model = Path(folder) / "reference.onnx"
        graph.save(model)
        latency_ms = _latency_ms(model, feed, study)
        events = _events(model, feed, study, Path(folder) / "profile")
    curves, groups = _curves(study, progress)
    times = layer_times(events, graph)
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
    }


def _curves(study: Study, progress: Progress | None) -> tuple[dict[str, dict[str, float]], list[dict[str, Any]]]:
    """Return the predicted dB over weight bits by layer, and channel groups with theirs over pruning ratios."""
    space = study.space
    study.prepare(space.rounded, space.pruned, progress)
    found = sensitivity(study.builder, space, progress)
    low, high = study.settings.data.range

    def decibels(error: float) -> float:
        return float(min(CAP_DB, -10.0 * np.log10(max(error / (high - low) ** 2, 1e-30))))

    layers = {
        name: {
            str(bits): decibels(found.bits[name][bits])
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
            "ratios_db": {f"{ratio:g}": decibels(error) for ratio, error in found.ratios.get(name, {}).items()},
        }
        for name, group in channel_groups(study.graph).groups.items()
    ]
    return layers, groups


def layer_times(events: Sequence[Mapping[str, Any]], graph: Graph) -> dict[str, float]:
    """Return the median milliseconds of each layer over the profile's runs; under "" all else.

    Args:
        events: of ONNX Runtime's profile file.
        graph: names the nodes. The runtime fuses and renames them; what remains holds the layer's node name.
    """
    runs = [event for event in events if event.get("cat") == "Session" and event["name"] == "model_run"][FIRST_RUNS:]
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    known = _names(graph)
    layer_of: dict[tuple[str, str], str] = {}
    sums: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(runs))
    for event in nodes:
        run = next((i for i, r in enumerate(runs) if r["ts"] <= event["ts"] < r["ts"] + r["dur"]), None)
        if run is None:
            continue
        key = (event["name"].removesuffix("_kernel_time"), event["args"].get("op_name", ""))
        if key not in layer_of:
            layer_of[key] = _layer_of(*key, known)
        sums[layer_of[key]][run] += event["dur"] / 1000.0
    return {layer: statistics.median(times) for layer, times in sums.items()}


def _layer_of(kernel: str, op: str, known: Mapping[str, str]) -> str:
    """Return the layer that a kernel runs, or "" where it runs none."""
    if not any(name in op for name in WEIGHT_OPS):
        return ""
    kernel = kernel.removesuffix("_nchwc")
    if kernel in known:
        return known[kernel]
    parts = [name for name in known if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", kernel)]
    return known[max(parts, key=len)] if parts else ""


def _names(graph: Graph) -> dict[str, str]:
    """Return the layer by each name that ONNX Runtime may give its kernel: of its node, or of a tensor after it.

    A kernel in the blocked layout is named after its output, that of the activation or sum that was fused into it.
    """
    layer_of_tensor: dict[str, tuple[int, str]] = {}  # how many nodes ago, and which
    for node in graph.model.graph:
        before = [layer_of_tensor[value.name or ""] for value in node.inputs if value and value.name in layer_of_tensor]
        nearest = min(((steps + 1, layer) for steps, layer in before), default=None)
        own = graph.layer_of_node.get(node.name or "")
        for value in node.outputs:
            if own is not None or nearest is not None:
                layer_of_tensor[value.name or ""] = (0, own) if own is not None else nearest  # type: ignore[assignment]
    names = {name: layer for name, (_, layer) in layer_of_tensor.items()}
    return names | {node: layer for node, layer in graph.layer_of_node.items() if node}


def _latency_ms(model: Path, feed: Mapping[str, np.ndarray], study: Study) -> float:
    """Return the median time of a batch in a session that is not profiled."""
    target = study.settings.target
    session = open_session(model, threads=target.threads, provider=target.provider)
    return 1000.0 * statistics.median(_timed_runs(session, feed))


def _events(model: Path, feed: Mapping[str, np.ndarray], study: Study, prefix: Path) -> list[dict[str, Any]]:
    target = study.settings.target
    session = open_session(model, threads=target.threads, provider=target.provider, profile_prefix=prefix)
    _timed_runs(session, feed)
    return list(json.loads(Path(session.end_profiling()).read_text(encoding="utf-8")))


def _timed_runs(session: Any, feed: Mapping[str, np.ndarray]) -> list[float]:
    """Run a batch again and again; return the seconds of the runs after the first ones."""
    times: list[float] = []
    start = time.perf_counter()
    while len(times) < FIRST_RUNS + 2 or (len(times) < MOST_RUNS and time.perf_counter() - start < SECONDS):
        began = time.perf_counter()
        session.run(None, dict(feed))
        times.append(time.perf_counter() - began)
    return times[FIRST_RUNS:]
