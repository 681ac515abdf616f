"""The strip and the tables say which layers lost channels and weights."""

from __future__ import annotations

import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.studies.show import _layers_text
from slimfront.studies.strip import Network, legend_html, strip_html, summary_text


@pytest.fixture
def network(tiny_model) -> Network:
    return Network.of_graph(capture_onnx(tiny_model))


PRUNED = Candidate({"conv0": LayerChoice(4, 8), "conv1": LayerChoice(3, 32, 0.5)}, {"conv1": 0.25})


def test_a_cell_shows_the_part_of_the_channels_that_stays(network):
    page = strip_html(PRUNED, network)
    assert page.count("<i ") == 3
    assert page.count("--kept: 75.0%") == 1
    assert "conv1: 3-bit weights, float kernels, 50% of the weights zero, 25% of its channels removed" in page
    assert "pruned" not in strip_html(Candidate({"conv0": LayerChoice(4, 8)}), network)


def test_a_summary_counts_layers_that_lost_channels_or_weights(network):
    assert summary_text(PRUNED, network).endswith("1 in integer kernels; 1 lost channels; 1 sparse")
    assert "lost" not in summary_text(Candidate(), network)


def test_forms_are_named(network):
    formed = Candidate({"conv0": LayerChoice(8, 8), "conv1": LayerChoice(8, 8, form="phases")})
    assert "conv1: 8-bit weights, integer kernels, written in phases" in strip_html(formed, network)
    assert "conv0: 8-bit weights, integer kernels&" not in strip_html(formed, network)
    assert summary_text(formed, network).endswith("2 in integer kernels; 1 in phases")
    assert _layers_text(formed.to_json()) == "8b ×2, 2 integer, 1 in phases"


def test_the_legend_explains_only_what_occurs():
    assert "channels" not in legend_html(pruned=False, sparse=False)
    assert "part of its channels" in legend_html(pruned=True, sparse=False)
    assert "zero" in legend_html(pruned=False, sparse=True)


def test_the_table_says_how_much_was_removed():
    assert _layers_text(PRUNED.to_json()) == "3b ×1, 4b ×1, 1 integer, −25 % of 1 group, 1 sparse"
    assert _layers_text(Candidate(groups={"a": 0.5, "b": 0.25}).to_json()) == "−25–50 % of 2 groups"
    assert _layers_text(Candidate().to_json()) == "uncompressed"
