"""What changes of the weights do to the output, measured: the model runs once with each change, in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .changes import Differences
from .errors import BuildError
from .session import batches, open_session

if TYPE_CHECKING:
    import onnx_ir as ir

    from .graph import Graph

FATAL = 100.0  # times the variance of the output: the error of what does not run


def measured_errors(
    graph: Graph,
    samples: Mapping[str, np.ndarray],
    changes: Sequence[Callable[[], Differences]],
    progress: Callable[[float], None] = lambda part: None,
) -> np.ndarray:
    """Return the mean squared error ``[changes]`` that each change alone causes at an entry of the output.

    A change that makes the output other than finite counts as one that costs everything.

    Args:
        graph: whose weights change.
        samples: inputs by name, ``[N, ...]``.
        changes: each returns by layer what is added to its weight and to its outputs.
        progress: told the part that is done.

    Raises:
        BuildError: the model does not run.
    """
    model, biases = _with_free_weights(graph)
    session = open_session(model, threads=os.cpu_count() or 1, spinning=False)
    feeds = list(batches(samples, graph.batch))

    def output(weights: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.concatenate([session.run(None, {**feed, **weights})[0] for feed in feeds])

    try:
        reference = output({})
    except Exception as error:
        raise BuildError(f"ONNX Runtime fails while running the model: {error}") from error
    worst = FATAL * max(float(np.var(reference)), 1e-12)
    found = np.zeros(len(changes))
    for number, change in enumerate(changes):
        changed = {}
        for name, (weight, shift) in change().items():
            layer = graph.layers[name]
            changed[layer.weight] = (graph.weight(layer) + weight).astype(np.float32)
            for bias, values in biases[name].items():
                changed[bias] = (values + shift.reshape(values.shape)).astype(np.float32)
        squared = float(np.mean(np.square(output(changed) - reference, dtype=np.float64)))
        found[number] = squared if np.isfinite(squared) else worst
        progress((number + 1) / len(changes))
    return found


def _with_free_weights(graph: Graph) -> tuple[bytes, dict[str, dict[str, np.ndarray]]]:
    """Return the model with its layers' weights and biases as inputs that have defaults, and the biases of each layer."""

    from .graph import serialized

    copy = graph.model.clone()
    nodes = {node.name: node for node in copy.graph}
    free: dict[str, ir.Value] = {}
    biases: dict[str, dict[str, np.ndarray]] = {}
    for layer in graph.layers.values():
        free[layer.weight] = copy.graph.initializers[layer.weight]
        biases[layer.name] = {}
        for node in (nodes[name] for name in layer.nodes):
            if layer.op == "MatMul":
                continue  # its sums have no bias to shift
            bias = _bias(copy, node, layer.channels)
            assert bias.const_value is not None
            free[bias.name or ""] = bias
            biases[layer.name][bias.name or ""] = bias.const_value.numpy()
    copy.graph.inputs.extend(free.values())
    return serialized(copy), biases


def _bias(model: ir.Model, node: ir.Node, channels: int) -> ir.Value:
    """Return a bias of the node's own, made of zeros where it has none."""
    import onnx_ir as ir

    given = node.inputs[2] if len(node.inputs) > 2 else None
    values = np.zeros(channels, np.float32) if given is None or given.const_value is None else given.const_value.numpy()
    name = f"{node.name}/free_bias"
    own = ir.Value(name=name, const_value=ir.tensor(np.broadcast_to(values, (channels,)).copy(), name=name))
    own.shape, own.type = ir.Shape([channels]), ir.TensorType(ir.DataType.FLOAT)
    model.graph.initializers[name] = own
    if len(node.inputs) > 2:
        node.replace_input_with(2, own)
    else:
        node.resize_inputs(3)
        node.replace_input_with(2, own)
    return own
