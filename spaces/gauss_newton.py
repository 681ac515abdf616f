"""What small changes of the weights do to the output, from a few backward passes for all of them.

To first order a change dW moves the output by J dW. Its mean square is that of r . J dW over random vectors r whose entries
are independent and have variance 1 (Hutchinson, 1989), and r . J is one backward pass: the gradient of r . output, for all
weights at once. The gradient of the error itself would tell nothing, since it vanishes at the reference (Gauss-Newton:
Martens, 2020, section 8).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np

from .changes import Differences
from .errors import BuildError
from .session import batches
from .torch_view import TorchView

if TYPE_CHECKING:
    from torch import Tensor

    from .graph import Graph, Layer

AT_ONCE_BYTES = 256_000_000  # of gradients that are held before the changes are asked for


def output_errors(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    changes: Sequence[Callable[[], Differences]],
    projections: int,
    progress: Callable[[float], None] = lambda part: None,
) -> np.ndarray:
    """Return the mean squared error ``[changes]`` that each change alone causes at an entry of the output.

    Its relative standard deviation is at most about the square root of 2 / (batches * projections).

    Args:
        graph: whose weights change.
        samples: inputs by name, ``[N, ...]``.
        changes: each returns by layer what is added to its weight and to its outputs; called now and again.
        projections: random vectors for each batch of samples.
        progress: told the part that is done.

    Raises:
        BuildError: an op has no form in PyTorch here, or a gradient is not finite.
    """
    feeds = list(batches(samples, graph.batch))
    whole = len(feeds) * projections
    at_once = max(1, AT_ONCE_BYTES // max(4 * graph.parameters, 1))
    entries = math.prod(graph.outputs[0].shape)
    total, done = np.zeros(len(changes)), 0
    found = _slopes(graph, feeds, projections)
    while some := list(islice(found, at_once)):
        slopes = {
            name: [np.stack(parts) for parts in zip(*(each[name] for each in some), strict=True)] for name in some[0]
        }
        for row, change in enumerate(changes):
            moved = sum(
                slopes[name][0] @ weight.reshape(-1) + slopes[name][1] @ shift
                for name, (weight, shift) in change().items()
            )
            total[row] += np.square(moved, dtype=np.float64).sum()
        done += len(some)
        progress(done / whole)
    if not np.isfinite(total).all():
        raise BuildError("the gradient of the output for a weight is not finite")
    return total / (whole * entries)


Slopes = dict[str, tuple[np.ndarray, np.ndarray]]


def _slopes(graph: Graph, feeds: Sequence[Mapping[str, np.ndarray]], projections: int) -> Iterator[Slopes]:
    """Yield the gradients of random sums of the output for each layer's weight, flat, and its outputs ``[O]``."""
    import torch

    view = TorchView(graph)
    layers = graph.layers.values()
    written = {node.name: node.outputs[0].name or "" for node in graph.model.graph}
    random = torch.Generator().manual_seed(0)
    for feed in feeds:
        values = view.values({name: torch.from_numpy(array) for name, array in feed.items()})
        output = values[graph.outputs[0].name]
        of = {
            layer.name: [view.weights[layer.weight], *(values[written[node]] for node in layer.nodes)]
            for layer in layers
        }
        flat = list(chain.from_iterable(of.values()))
        for number in range(projections):
            towards = torch.randn(output.shape, generator=random)
            last = number == projections - 1
            left = iter(torch.autograd.grad(output, flat, towards, retain_graph=not last, allow_unused=True))
            yield {layer.name: _of_layer(layer, [next(left) for _ in of[layer.name]]) for layer in layers}


def _of_layer(layer: Layer, slopes: Sequence[Tensor | None]) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradients for a layer's weight and, summed over its nodes and their positions, for each of its outputs."""
    weight, *outputs = (None if slope is None else slope.numpy() for slope in slopes)
    of_outputs = np.zeros(layer.channels, np.float32)
    for found in outputs:
        if found is not None:
            axis = found.ndim - 1 if layer.op == "MatMul" else 1
            of_outputs += found.sum(axis=tuple(a for a in range(found.ndim) if a != axis))
    return np.zeros(math.prod(layer.shape), np.float32) if weight is None else weight.reshape(-1), of_outputs
