"""Kernels of ONNX Runtime's profile are told apart by layer."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimfront.spaces.capture import capture_onnx
from slimfront.studies.profile import FIRST_RUNS, layer_times


def run_of(start: int, kernels: list[tuple[str, str, int]]) -> list[dict]:
    events = [{"cat": "Session", "name": "model_run", "ts": start, "dur": 1000}]
    for i, (name, op, microseconds) in enumerate(kernels):
        args = {"op_name": op}
        events.append(
            {"cat": "Node", "name": f"{name}_kernel_time", "ts": start + i, "dur": microseconds, "args": args}
        )
    return events


@pytest.mark.parametrize(
    "names",
    [
        ["conv0", "conv1", "conv2"],
        ["relu0_nchwc", "relu1_nchwc", "conv2_nchwc"],
        ["fused conv0", "fused conv1", "conv2"],
    ],
    ids=["plain", "blocked layout", "fused"],
)
def test_kernels_go_to_their_layers_whatever_the_runtime_calls_them(names: list[str], tiny_model: Path):
    graph = capture_onnx(tiny_model)
    kernels = [*((name, "Conv", 100 * (i + 1)) for i, name in enumerate(names)), ("ReorderOutput", "ReorderOutput", 50)]
    slow = [(name, op, 900) for name, op, _ in kernels]
    runs = [slow] * FIRST_RUNS + [kernels] * 3
    events = [event for i, run in enumerate(runs) for event in run_of(2000 * i, run)]
    assert layer_times(events, graph) == pytest.approx({"conv0": 0.1, "conv1": 0.2, "conv2": 0.3, "": 0.05})
