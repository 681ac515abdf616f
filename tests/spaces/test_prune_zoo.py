"""Other people's models: pruned exactly, and how much of them can be pruned. Skipped where the zoo is absent."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.graph import Graph
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.prune import removed_entries

from .exactness import check, expected_multiply_adds, removal

ZOO = Path(os.environ.get("SLIMFRONT_ZOO", Path(__file__).parents[2].resolve().parent / "shared" / "zoo"))
COVERED = {  # at least this part of the weights belongs to layers that write or read a group
    "carn_m_x2": 0.8,
    "dcgan_digits": 0.8,
    "dncnn_25": 0.8,
    "mobilesr_x4": 0.5,
    "rlfn_s_x2": 0.8,
    "taef2_decoder": 0.8,
    "waifu2x_upconv7_x2": 0.8,
}

pytestmark = pytest.mark.skipif(not (ZOO / "models").is_dir(), reason="the zoo is not there (SLIMFRONT_ZOO)")


@cache
def captured(name: str) -> tuple[Graph, dict[str, np.ndarray]]:
    """Return the graph of a model and one batch of its evaluation data."""
    with np.load(ZOO / "data" / f"{name}_evaluation.npz") as stored:
        x = stored["input"]
    path = ZOO / "models" / f"{name}.onnx"
    graph = capture_onnx(path)
    return graph, {graph.inputs[0].name: x[: graph.batch]}


@pytest.mark.parametrize("name", COVERED)
def test_most_weights_belong_to_a_group(name):
    graph, _ = captured(name)
    groups = channel_groups(graph).groups.values()
    covered = {layer for group in groups for layer in group.layers}
    weights = {layer.name: np.prod(layer.shape) for layer in graph.layers.values()}
    assert sum(weights[layer] for layer in covered) >= COVERED[name] * sum(weights.values())


@pytest.mark.parametrize("name", COVERED)
def test_models_of_the_zoo_are_pruned_exactly(name):
    graph, feeds = captured(name)
    check(graph, removal(channel_groups(graph), np.random.default_rng(0)), feeds)


def test_half_of_every_group_is_two_thirds_of_the_work_of_a_decoder():
    graph, _ = captured("taef2_decoder")
    channels = channel_groups(graph)
    kept = {name: np.arange(group.kept(0.5)) for name, group in channels.groups.items()}
    left = expected_multiply_adds(graph, removed_entries(channels, kept))
    assert left <= 0.35 * expected_multiply_adds(graph, {})
