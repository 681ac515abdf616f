"""Channel groups: who writes and reads them, how many pieces a ratio keeps, and what is said of channels that must stay."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.candidate import Candidate
from slimfront.spaces.errors import InputError
from slimfront.spaces.groups import Group, channel_groups, fitting

RESIDUAL = (
    "[in] a = Conv<pads=[1,1,1,1]>(x, w) [up] b = Conv(a, u) r = Relu(b) [down] c = Conv(r, d) s = Add(a, c)"
    "[norm] n = Conv(s, e) m = Softmax<axis=1>(n) [out] y = Conv(m, o)"
)


@pytest.fixture(scope="module")
def residual(capture, weight):
    return capture(
        f"(float[1,3,8,8] x) => (float[n,c,h,w] y) {{ {RESIDUAL} }}",
        w=weight(8, 3, 3, 3),
        u=weight(12, 8, 1, 1),
        d=weight(8, 12, 1, 1),
        e=weight(4, 8, 1, 1),
        o=weight(3, 4, 1, 1),
    )


def test_a_group_names_all_that_write_and_read_its_channels(residual):
    groups = channel_groups(residual).groups
    assert list(groups) == ["in", "up"]
    assert (groups["in"].writers, groups["in"].readers) == (("in", "down"), ("up", "norm"))
    assert (groups["up"].writers, groups["up"].readers) == (("up",), ("down",))
    assert (groups["in"].channels, groups["in"].pieces) == (8, 8)
    assert groups["in"].layers == ("in", "down", "up", "norm")


def test_each_layer_writes_a_group_or_is_frozen_with_a_reason(residual):
    found = channel_groups(residual)
    assert set(found.frozen) == {"norm", "out"}
    assert found.frozen["norm"].startswith("Softmax '")
    assert found.frozen["out"] == "they are the output of the model"


def test_the_op_is_named_that_ties_all_channels_together(capture, weight):
    graph = capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [a] p = Conv(x, w) [turn] r = Gather<axis=1>(p, k) [mix] q = Add(p, r)"
        "[b] s = Conv(q, u) [t] t = Relu(s) [z] y = Conv(t, o) }",
        w=weight(4, 3, 1, 1),
        k=np.array([1, 2, 3, 0]),
        u=weight(1, 4, 1, 1),
        o=weight(3, 1, 1, 1),
    )
    assert channel_groups(graph).frozen == {
        "a": "Add 'mix' makes one piece of them all",
        "b": "there is only one",
        "z": "they are the output of the model",
    }


@pytest.mark.parametrize(
    "name, text",
    [
        ("norm", "the channels of 'norm' cannot be removed: Softmax"),
        ("down", "the channels of 'down' go with those of 'in'"),
        ("upp", "there is no channel group 'upp' (did you mean 'up'?)"),
    ],
)
def test_a_group_that_is_not_there_is_told_with_the_reason(residual, name, text):
    with pytest.raises(InputError) as error:
        fitting(residual, Candidate(groups={name: 0.5}))
    assert text in str(error.value)


def test_parts_of_a_tensor_that_go_different_ways_are_groups_of_their_own(capture, weight):
    graph = capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [in] a = Conv(x, w) b, c = Split<axis=1>(a, s) [left] d = Conv(b, l)"
        "[right] e = Conv(c, r) y = Add(d, e) }",
        w=weight(10, 3, 1, 1),
        s=np.array([4, 6]),
        l=weight(3, 4, 1, 1),
        r=weight(3, 6, 1, 1),
    )
    groups = channel_groups(graph).groups
    assert {name: (group.channels, group.readers) for name, group in groups.items()} == {
        "in": (4, ("left",)),
        "in#2": (6, ("right",)),
    }


def test_blocks_of_a_pixel_shuffle_are_one_piece_each(capture, weight):
    graph = capture(
        "(float[1,3,8,8] x) => (float[n,c,h,w] y) { [in] a = Conv(x, w) b = DepthToSpace<blocksize=2>(a) [out] y = Conv(b, o) }",
        w=weight(20, 3, 1, 1),
        o=weight(3, 5, 1, 1),
    )
    group = channel_groups(graph).groups["in"]
    assert (group.channels, group.pieces) == (20, 5)
    assert np.array_equal(group.slots["w", 0], np.arange(20).reshape(4, 5).T)


def test_of_the_ways_to_follow_a_reshape_the_one_that_prunes_most_is_taken(capture, weight):
    """A shuffle between convolutions of two groups: by groups nothing could go, by position in a group three of four."""
    graph = capture(
        "(float[1,4,8,8] x) => (float[n,c,h,w] y) { [in] a = Conv<group=2>(x, w) r = Reshape(a, s)"
        "t = Transpose<perm=[0,2,1,3,4]>(r) u = Reshape(t, f) [out] y = Conv(u, o) }",
        w=weight(8, 2, 1, 1),
        s=np.array([1, 2, 4, 8, 8]),
        f=np.array([1, 8, 8, 8]),
        o=weight(3, 8, 1, 1),
    )
    assert channel_groups(graph).groups["in"].pieces == 4


@given(channels=st.integers(1, 600), share=st.sampled_from([1, 2, 3, 4, 16]), ratio=st.floats(0, 0.999))
def test_a_ratio_keeps_the_nearest_number_of_pieces_and_never_none(channels, share, ratio):
    slots = {("w", 0): np.arange(channels * share).reshape(channels, share)}
    group = Group("a", slots, ("a",), ("b",), channels * share)
    kept = group.kept(ratio)
    assert 1 <= kept <= channels
    assert abs(kept * share - channels * share * (1 - ratio)) <= max(share, 1) / 2 + 0.5 or kept == 1
    assert group.kept(group.ratio(kept)) == kept
    assert group.kept(0.0) == channels


def test_ratios_that_keep_the_same_channels_are_one_candidate(residual):
    first, second = (fitting(residual, Candidate(groups={"in": ratio})) for ratio in (0.49, 0.5))
    assert first.key == second.key
    assert dict(first.groups) == {"in": 0.5}


def test_a_group_of_no_ratio_is_no_choice(residual):
    assert fitting(residual, Candidate(groups={"up": 0.01})).key == Candidate().key
