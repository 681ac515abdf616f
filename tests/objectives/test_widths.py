"""The step in which kernels get cheaper: decided from ratios of times, measured once for a machine."""

from __future__ import annotations

import pytest

from slimfront.objectives import widths
from slimfront.objectives.target import OnnxRuntime


@pytest.mark.parametrize(
    ("ratios", "step"),
    [
        ({4: 1.3, 8: 1.0, 16: 0.77, 32: 0.54}, 16),
        ({4: 1.0, 8: 0.93, 16: 0.86, 32: 0.53}, 8),
        ({4: 0.94, 8: 0.88, 16: 0.75, 32: 0.5}, 4),
        ({4: 1.0, 8: 1.0, 16: 1.0, 32: 0.6}, 32),
        ({4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0}, 16),
    ],
)
def test_the_step_is_the_least_that_saves_time(monkeypatch, ratios, step):
    monkeypatch.setattr(widths, "_time_ratios", lambda *_: ratios)
    assert widths.kernel_step(OnnxRuntime(f"machine {ratios}"), integer=True) == step


def test_a_machine_is_measured_once(monkeypatch):
    asked = []
    monkeypatch.setattr(widths, "_time_ratios", lambda *_: asked.append(1) or {4: 1, 8: 1, 16: 0.7, 32: 0.5})
    assert [widths.kernel_step(OnnxRuntime("another machine"), integer=False) for _ in range(3)] == [16] * 3
    assert len(asked) == 1


@pytest.mark.parametrize("integer", [False, True])
def test_real_kernels_are_timed(integer):
    ratios = widths._time_ratios(OnnxRuntime(), integer)
    assert set(ratios) == set(widths.STEPS) and all(ratio > 0 for ratio in ratios.values())
