"""What the tests of the latency predictor share: a network, and a predictor that has learned a machine with known times."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calibration on a clock that goes on by a second whenever it is looked at: seconds are rounds."""
    from slimfront.objectives import calibration

    ticks = itertools.count()
    monkeypatch.setattr(calibration, "time", SimpleNamespace(monotonic=lambda: float(next(ticks))))


@pytest.fixture
def parts(residual_model: Path, pictures: Callable[[int, int], np.ndarray]):
    """Builder, space and feed of the residual network."""
    from .machines import study_parts

    return study_parts(residual_model, pictures(4, 1))
