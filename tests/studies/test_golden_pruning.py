"""A golden table: the ready-made network's channel groups, and what is left of it at each ratio."""

from __future__ import annotations

import numpy as np
import pytest

from slimfront.objectives.quality import psnr_db
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.session import infer, open_session
from slimfront.studies.study import Study, load_study

# group: channels, layers that write it, ratios offered where kernels like steps of 16
GROUPS = {
    "node_conv2d": (32, 2, (0.0, 0.5)),
    "node_conv2d_1": (64, 2, (0.0, 0.25, 0.5)),
    "node_conv2d_2": (128, 5, (0.0, 0.125, 0.25, 0.375, 0.5)),
    "node_conv2d_3": (128, 1, (0.0, 0.125, 0.25, 0.375, 0.5)),
    "node_conv2d_5": (128, 1, (0.0, 0.125, 0.25, 0.375, 0.5)),
    "node_conv2d_7": (128, 1, (0.0, 0.125, 0.25, 0.375, 0.5)),
    "node_conv2d_9": (128, 1, (0.0, 0.125, 0.25, 0.375, 0.5)),
}
# ratio everywhere: bytes of the float file, PSNR on evaluation data (31.44 dB without), nothing trained
PRUNED = {0.25: (3_081_098, 31.02), 0.5: (1_373_065, 29.57)}


@pytest.fixture(scope="module")
def study() -> Study:
    return load_study("painting")


def test_groups_and_ratios_of_the_ready_made_network(study):
    found = channel_groups(study.graph).groups
    table = {name: (g.channels, len(g.writers), study.space.ratios[name]) for name, g in found.items()}
    assert table == GROUPS
    assert list(channel_groups(study.graph).frozen) == ["node_conv2d_13"]


@pytest.mark.slow
@pytest.mark.parametrize("ratio", PRUNED)
def test_size_and_quality_at_each_ratio(study, ratio):
    built = study.builder.build(Candidate(groups=dict.fromkeys(GROUPS, ratio)))
    size, quality = PRUNED[ratio]
    assert abs(built.size_bytes - size) < 64
    samples = study.evaluation
    output = np.clip(infer(open_session(built.to_bytes(), threads=2), samples.inputs, 1), 0, 1)
    assert psnr_db(output, samples.target, 0, 1).mean() == pytest.approx(quality, abs=0.05)
