"""What small changes of weights and activations do to the output, from a few backward passes for all of them.

To first order a change dW moves the output by J dW. Its mean square is that of r . J dW over random vectors r whose entries
are independent and have variance 1 (Hutchinson, 1989), and r . J is one backward pass: the gradient of r . output, for all
weights at once. The gradient of the error itself would tell nothing, since it vanishes at the reference (Gauss-Newton:
Martens, 2020, section 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from .changes import Differences
from .errors import BuildError
from .session import batches
from .torch_view import TorchView

if TYPE_CHECKING:
    from torch import Tensor

    from .graph import Graph, Layer

AT_ONCE_BYTES = 500_000_000  # of gradients that are held before the changes are asked for

Slopes = dict[str, np.ndarray]


def output_errors(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    changes: Sequence[Callable[[], Differences]],
    projections: int,
    progress: Callable[[float], None] = lambda part: None,
    grids: Mapping[str, tuple[float, int]] | None = None,
) -> np.ndarray:
    """Return the mean squared error ``[changes]`` that each change alone causes at an entry of the output.

    Its relative standard deviation is about the square root of 2 / (batches * projections), more where few batches bear most
    of the error.

    Args:
        graph: whose weights change.
        samples: inputs by name, ``[N, ...]``.
        changes: each returns what is added to weights, outputs and tensors; called now and again.
        projections: random vectors for each batch of samples.
        progress: told the part that is done.
        grids: by tensor that a change moves to its grid, the scale and zero point of that.

    Raises:
        BuildError: an op has no form in PyTorch here or fails, or a gradient is not finite.
    """
    feeds = list(batches(samples, graph.batch))
    whole = len(feeds) * projections
    at_once = max(1, AT_ONCE_BYTES // max(4 * graph.parameters, 1))
    total, done = np.zeros(len(changes)), 0
    found = _slopes(graph, feeds, projections, grids or {})
    while some := list(islice(found, at_once)):
        slopes = {name: np.stack([each.pop(name) for each in some]) for name in list(some[0])}
        for row, change in enumerate(changes):
            total[row] += np.square(_moved(slopes, change()), dtype=np.float64).sum()
        if not np.isfinite(total).all():
            raise BuildError("the gradient of the output for a weight is not finite")
        done += len(some)
        progress(done / whole)
        del some, slopes
    return total / (whole * max(math.prod(graph.outputs[0].shape), 1))


def _moved(slopes: Slopes, differences: Differences) -> np.ndarray:
    """Return how far a change moves the output along each random vector ``[passes]``."""
    added = [(name, array) for name, array in differences.weights.items()]
    added += [(_shift(name), array) for name, array in differences.shifts.items()]
    added += [(_grid(name), np.ones(1, np.float32)) for name in differences.on_grids]
    return np.sum([slopes[name] @ array.reshape(-1) for name, array in added], axis=0)


def _shift(layer: str) -> str:
    """Return the name of a layer's shift of its outputs among the gradients."""
    return f"{layer}\0shift"


def _grid(tensor: str) -> str:
    """Return the name of what a tensor's grid adds to the output, among the gradients."""
    return f"{tensor}\0grid"


def _slopes(
    graph: Graph,
    feeds: Sequence[Mapping[str, np.ndarray]],
    projections: int,
    grids: Mapping[str, tuple[float, int]],
) -> Iterator[Slopes]:
    """Yield the gradients of random sums of the output, flat, for each weight and for what is added to a layer's outputs.

    Of a tensor on a grid, the product of its gradient with what the grid adds, ``[1]``.
    """
    import torch

    view = TorchView(graph)
    written = {node.name: node.outputs[0].name or "" for node in graph.model.graph}
    random = torch.Generator().manual_seed(0)
    for feed in feeds:
        shifts: Slopes = {}
        inputs = {name: torch.from_numpy(array) for name, array in feed.items()}
        for name in inputs.keys() & grids.keys():
            inputs[name].requires_grad_()
        values = view.values(inputs)
        output = values[graph.outputs[0].name]
        if not output.requires_grad:
            raise BuildError("the output has no gradient")
        for layer in graph.layers.values():
            for node in () if layer.recurrent else layer.nodes:  # of these the bias is a weight
                values[written[node]].register_hook(partial(_add_up, shifts, layer))
        moved = {name: values[name] for name in grids if values[name].requires_grad}
        del values
        asked = [*view.weights.values(), *moved.values()]
        for number in range(projections):
            shifts.update({_shift(layer.name): np.zeros(layer.channels, np.float32) for layer in graph.layers.values()})
            towards = torch.randn(output.shape, generator=random).to(output.dtype)
            last = number == projections - 1
            found = torch.autograd.grad(output, asked, towards, retain_graph=not last, allow_unused=True)
            slopes = {
                name: np.zeros(weight.numel(), np.float32) if slope is None else slope.reshape(-1).numpy()
                for (name, weight), slope in zip(view.weights.items(), found, strict=False)
            }
            slopes |= {_grid(name): np.zeros(1, np.float32) for name in grids}
            for (name, value), slope in zip(moved.items(), found[len(view.weights) :], strict=True):
                if slope is not None:
                    slopes[_grid(name)] = _moved_to_grid(value, slope, grids[name])
            del found
            yield slopes | shifts
        del output, asked, moved


def _add_up(shifts: Slopes, layer: Layer, slope: Tensor) -> None:
    """Add the gradient for a layer's output, summed over positions, to that of a shift of its outputs."""
    axis = slope.ndim - 1 if layer.op == "MatMul" else 1
    shifts[_shift(layer.name)] += slope.sum([a for a in range(slope.ndim) if a != axis]).numpy()


def _moved_to_grid(value: Tensor, slope: Tensor, grid: tuple[float, int]) -> np.ndarray:
    """Return how far moving a tensor to its grid moves the output along a random vector ``[1]``."""
    import torch

    from .fake_quantise import rounded_tensor

    scale, zero = grid
    with torch.no_grad():
        moved = rounded_tensor(value, torch.tensor(scale), zero) - value
        return np.array([float((slope * moved).sum())], np.float32)
