"""Residual sums on one grid: wider ranges where that lowers the rounding error, and then exact additions."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from slimfront.spaces.sums import common_steps


def node(output: str, *inputs: str) -> SimpleNamespace:
    return SimpleNamespace(
        inputs=[SimpleNamespace(name=name) for name in inputs], outputs=[SimpleNamespace(name=output)]
    )


CHAIN = [node("b", "a", "p"), node("c", "b", "q"), node("d", "c", "r")]
TENSORS = ("a", "p", "b", "q", "c", "r", "d")
ranges = st.dictionaries(
    st.sampled_from(TENSORS), st.tuples(st.floats(-10, 0), st.floats(0.01, 10)), min_size=7, max_size=7
)


@given(ranges)
def test_ranges_only_grow_and_hold_what_they_held(found):
    widened = common_steps(CHAIN, found.__getitem__)
    assert set(widened) <= set(TENSORS)
    for name, (low, high) in widened.items():
        assert low == found[name][0]
        assert high >= found[name][1] - 1e-9


def rounding_error(chain: list[SimpleNamespace], found: dict[str, tuple[float, float]]) -> float:
    """Every tensor is rounded with its own step, in 255ths; a sum on one grid with its inputs is not rounded at all."""
    steps = {name: high - low for name, (low, high) in found.items()}
    exact = set()
    for add in chain:
        names = [value.name for value in (*add.inputs, *add.outputs)]
        if max(steps[name] for name in names) <= min(steps[name] for name in names) * (1 + 1e-9):
            exact.add(add.outputs[0].name)
    return sum(step**2 for name, step in steps.items() if name not in exact)


@given(found=ranges, length=st.integers(1, 3))
@example(found=dict.fromkeys(TENSORS, (0.0, 1.0)) | {"b": (0.0, 2.0)}, length=3)
def test_the_total_rounding_error_never_grows(found, length):
    chain = CHAIN[:length]
    widened = found | common_steps(chain, found.__getitem__)
    assert rounding_error(chain, widened) <= rounding_error([], found) * (1 + 1e-9)


def test_a_small_tensor_does_not_take_the_step_of_a_large_sum():
    found = {"a": (0.0, 0.1), "p": (0.0, 0.1), "b": (0.0, 100.0)}
    assert common_steps([node("b", "a", "p")], found.__getitem__) in ({}, {"b": (0.0, 100.0)})


def test_sums_of_like_tensors_share_one_step():
    found = dict.fromkeys(TENSORS, (-1.0, 1.0))
    widened = common_steps(CHAIN, found.__getitem__)
    steps = {round((high - low) / 255, 9) for low, high in widened.values()}
    assert set(widened) == set(TENSORS) and len(steps) == 1


@pytest.mark.parametrize("blocks", [1, 3])
def test_a_chain_of_residual_blocks_stays_close_to_the_reference(
    blocks, capture, weight, noise, run, reference, uniform_candidate
):
    from slimfront.spaces.build import Builder

    body, constants, last = "[k] a0 = Conv<pads=[1,1,1,1]>(x, w)\n", {"w": weight(16, 4, 3, 3)}, "a0"
    for i in range(1, blocks + 1):
        constants |= {f"v{i}": weight(16, 16, 3, 3, seed=i)}
        body += f"r{i} = Relu({last})\n [c{i}] b{i} = Conv<pads=[1,1,1,1]>(r{i}, v{i})\n a{i} = Add({last}, b{i})\n"
        last = f"a{i}"
    body += f"[m] y = Conv({last}, u)"
    graph = capture(f"(float[1,4,9,9] x) => (float[n,c,h,w2] y) {{ {body} }}", u=weight(6, 16, 1, 1), **constants)
    x = noise(6, 4, 9, 9)
    built = Builder(graph, {"x": x}, rounding="plain").build(uniform_candidate(graph, 8, 8))
    expected = reference(graph, x[:1])
    assert np.sqrt(np.mean((run(built, x[:1]) - expected) ** 2)) < 1.5 * np.ptp(expected) / 255
