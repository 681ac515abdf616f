"""A study's calibration data and loss, as training takes them."""

from __future__ import annotations

from numpy.typing import NDArray

from ..studies.study import Study
from .distillation import VARIED, Examples
from .losses import Loss
from .training import device

TARGET = {"l2": 1.0}  # the loss against targets, where there are some and nothing else is asked for


def examples_of(study: Study, rows: NDArray | None = None) -> Examples:
    """Return the calibration samples (or some of them) with what the reference makes of them, and their targets.

    Raises:
        BuildError: an op of the reference has no form in PyTorch here; it is named.
    """
    from ..spaces.torch_view import TorchView

    some = slice(None) if rows is None else rows
    target = study.calibration_target
    inputs = {name: array[some] for name, array in study.calibration.items()}
    teacher = TorchView(study.graph).to(device())
    varied = VARIED if any(study.settings.training.reference.values()) else 0.0  # what is made has no target
    return Examples(teacher, inputs, study.graph.batch, None if target is None else target[some], varied)


def loss_of(study: Study) -> Loss:
    """Return what training makes small, as the study asks for it."""
    table = study.settings.training
    low, high = study.settings.data.range
    target = table.target
    if target is None:
        target = TARGET if study.calibration_target is not None else {}
    return Loss(table.reference, target, high - low, table.temperature)
