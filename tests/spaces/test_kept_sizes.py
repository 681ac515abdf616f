"""Sizes by arithmetic are the shapes of the pruned graph."""

from __future__ import annotations

import math

import numpy as np
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.domains import Domains, has_integer_kernel
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.kept_sizes import KeptSizes
from slimfront.spaces.prune import pruned, removed_entries
from slimfront.spaces.rules import ONNX_RUNTIME

from .networks import HEAD, NETWORKS, TAIL

CHOSEN = ("sum", "concat", "grouped conv", "depthwise conv", "pixel shuffle", "transposed conv", "split", "layer twice")


@pytest.mark.parametrize("name", CHOSEN)
def test_sizes_and_domains_are_those_of_the_pruned_graph(name, capture, weight):
    made = NETWORKS[name]
    constants = {
        key: weight(*value, seed=sum(key.encode())) if isinstance(value, tuple) else value
        for key, value in made.constants.items()
    }
    graph = capture(
        f"(float[2,4,8,8] x) => (float[n,c,h,w] y) {{ {HEAD} {made.middle} {TAIL} }}",
        wa=weight(8, 4, 3, 3), ba=weight(8), wz=weight(3, made.channels, 1, 1), **constants,
    )  # fmt: skip
    channels = channel_groups(graph)
    sizes, domains = KeptSizes(graph, channels), Domains(graph)
    random = np.random.default_rng(0)
    able = [key for key, layer in graph.layers.items() if has_integer_kernel(graph, layer)]
    for _ in range(8):
        kept = {key: int(random.integers(1, group.pieces + 1)) for key, group in channels.groups.items()}
        removed = np.array([[group.pieces - kept[key] for key, group in channels.groups.items()]])
        narrow = pruned(graph, removed_entries(channels, {key: np.arange(count) for key, count in kept.items()}))
        for tensor, shape in narrow.shapes.items():
            assert sizes.elements(tensor, removed).tolist() == [math.prod(shape)], tensor
            for axis, size in enumerate(shape):
                assert sizes.axis(tensor, axis, removed).tolist() == [size], (tensor, axis)
        integer = {key for key in able if random.random() < 0.6}
        elements = np.array([[sizes.elements(tensor, removed)[0] / 2**20 for tensor in domains.tensors]])
        found = domains.integer(np.array([[key in integer for key in graph.layers]]), elements)[0]
        expected = ONNX_RUNTIME.integer_nodes(narrow, Candidate(dict.fromkeys(integer, LayerChoice(8, 8))))
        assert {key for key, runs in zip(domains.nodes, found, strict=True) if runs} == expected


def test_many_candidates_are_told_apart(capture, weight):
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, w) [b] y = Conv(p, v) }",
        w=weight(8, 4, 1, 1), v=weight(3, 8, 1, 1),
    )  # fmt: skip
    found = KeptSizes(graph, channel_groups(graph)).elements("p", np.array([[0], [3], [7]]))
    assert found.tolist() == [8 * 64, 5 * 64, 1 * 64]
