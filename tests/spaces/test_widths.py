"""The ratios that a group offers: distinct widths that the kernels like, near the ones that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.graph import Layer
from slimfront.spaces.groups import Group
from slimfront.spaces.widths import offered_ratios


def group_of(channels: int, block: int = 1) -> tuple[Group, dict[str, Layer]]:
    """A group of all outputs of one convolution, removed in blocks."""
    layer = Layer("conv", "Conv", ("conv",), "w", (channels, 8, 3, 3), channels * 72)
    slots = {("w", 0): np.arange(channels).reshape(-1, block)}
    return Group("conv", slots, ("conv",), ("next",), channels), {"conv": layer}


@pytest.mark.parametrize(
    ("channels", "wanted", "widths"),
    [
        (64, (0.0, 0.125, 0.25, 0.375, 0.5), [64, 48, 32]),
        (48, (0.0, 0.25, 0.5), [48, 32]),
        (46, (0.0, 0.25, 0.5), [46, 32, 16]),
        (128, (0.0, 0.125, 0.25), [128, 112, 96]),
        (16, (0.0, 0.5), [16]),
        (3, (0.0, 0.5), [3]),
    ],
)
def test_widths_are_multiples_of_the_step_near_the_wanted_ones(channels, wanted, widths):
    group, layers = group_of(channels)
    ratios = offered_ratios(group, layers, wanted, step=16)
    assert [group.kept(ratio) for ratio in ratios] == widths
    assert ratios[0] == 0.0


def test_a_part_of_a_layer_that_fits_no_step_keeps_its_channels():
    """12 of 32 outputs: what is left of the layer would be no width that the kernels like."""
    layer = Layer("conv", "Conv", ("conv",), "w", (32, 8, 3, 3), 32 * 72)
    group = Group("conv", {("w", 0): np.arange(12).reshape(-1, 1)}, ("conv",), ("next",), 12)
    assert offered_ratios(group, {"conv": layer}, (0.0, 0.25, 0.5), step=16) == (0.0,)


def test_blocks_that_fit_no_step_are_offered_whole():
    group, layers = group_of(120, block=15)
    assert [15 * group.kept(ratio) for ratio in offered_ratios(group, layers, (0.0, 0.25, 0.5))] == [120, 90, 60]


@given(
    st.integers(2, 300),
    st.lists(st.floats(0, 0.99), min_size=1, max_size=6),
    st.sampled_from([4, 8, 16, 32]),
)
def test_each_ratio_leads_to_its_own_liked_width_and_no_group_vanishes(channels, wanted, step):
    group, layers = group_of(channels)
    kept = [group.kept(ratio) for ratio in offered_ratios(group, layers, wanted, step)]
    assert len(set(kept)) == len(kept) and min(kept) >= 1
    assert all(count % step == 0 or count == channels for count in kept)


@given(st.integers(1, 300), st.floats(0, 0.99))
def test_a_group_keeps_what_the_design_says(channels, ratio):
    group, _ = group_of(channels)
    kept = group.kept(ratio)
    assert kept == max(1, round(channels * (1 - ratio)))
    assert group.kept(group.ratio(kept)) == kept
