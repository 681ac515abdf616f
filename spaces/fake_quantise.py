"""Rounding that gradients pass: what rounds is computed as it is built, its slope is that of what is rounded.

Learned step sizes (Esser et al., Learned Step Size Quantization, ICLR 2020): the gradient for a step comes from the same
formula, what was clipped pulls at its end of the grid. Steps are learned as logarithms, so that they stay positive and one
learning rate suits all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .rounding import Grid


def straight_through(value: Tensor) -> Tensor:
    """Round to whole numbers; the gradient is that of the value itself (Bengio, Leonard and Courville, 2013)."""
    return value + (torch.round(value) - value).detach()


def rounded_weight(weight: Tensor, scale: Tensor, zero: Tensor, grid: Grid) -> Tensor:
    """Return a weight on its grid: ``(step * u - zero) * scale``.

    Args:
        weight: float, of any shape.
        scale: positive, to be broadcast with the weight.
        zero: the grid's offsets, likewise.
        grid: which whole numbers u may be.
    """
    u = torch.clamp((weight / scale + zero) / grid.step, grid.lowest, grid.highest)
    return (straight_through(u) * grid.step - zero) * scale


def stored_in_16_bits(weight: Tensor) -> Tensor:
    """Return a weight as float16 holds it."""
    return weight + (weight.half().float() - weight).detach()


def rounded_tensor(value: Tensor, scale: Tensor, zero: int) -> Tensor:
    """Return a tensor on the grid of uint8: ``(u - zero) * scale``, u from 0 to 255 (ONNX operator QuantizeLinear)."""
    return (straight_through(torch.clamp(value / scale + zero, 0, 255)) - zero) * scale


def on_own_grid(value: Tensor) -> Tensor:
    """Return a tensor on the grid of uint8 that spans it and 0 (ONNX operator DynamicQuantizeLinear)."""
    with torch.no_grad():
        low, high = value.min().clamp(max=0.0), value.max().clamp(min=0.0)
        scale = ((high - low) / 255).clamp(min=torch.finfo(value.dtype).tiny)
        zero = torch.round(torch.clamp(-low / scale, 0, 255))
    return rounded_tensor(value, scale, int(zero))
