"""What changes of the weights do to the output, measured: the model runs once with each change, in ONNX Runtime."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .changes import Differences
from .errors import BuildError
from .graph import node_bias, save_model, weight_names
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

    A change with which the model fails, or its output is not finite, counts as one that costs everything.

    Args:
        graph: whose weights change.
        samples: inputs by name, ``[N, ...]``.
        changes: each returns what is added to weights and outputs.
        progress: told the part that is done.

    Raises:
        BuildError: the model does not run.
    """
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "model.onnx"
        model, biases = _with_free_weights(graph)
        save_model(model, path)
        session = open_session(path, threads=os.cpu_count() or 1, spinning=False)
        feeds = list(batches(samples, graph.batch))

        def output(weights: Mapping[str, np.ndarray]) -> np.ndarray:
            try:
                return np.concatenate([session.run(None, {**feed, **weights})[0] for feed in feeds]).astype(np.float64)
            except Exception as error:
                raise BuildError(f"ONNX Runtime fails while running the model: {error}") from error

        reference = output({})
        worst = FATAL * max(float(np.var(reference)), 1e-12)
        found = np.zeros(len(changes))
        for number, change in enumerate(changes):
            differences = change()
            changed = {name: graph.constant(name) + added for name, added in differences.weights.items()}
            for name, shift in differences.shifts.items():
                changed |= {bias: values + shift for bias, values in biases[name].items()}
            try:
                moved = output({name: array.astype(np.float32) for name, array in changed.items()}) - reference
                squared = float(np.mean(np.square(moved)))
            except BuildError:
                squared = worst
            found[number] = squared if np.isfinite(squared) else worst
            progress((number + 1) / len(changes))
    return found


def _with_free_weights(graph: Graph) -> tuple[ir.Model, dict[str, dict[str, np.ndarray]]]:
    """Return the model with its weights, and a bias of each layer's node, as inputs that have defaults; and those biases."""
    copy = graph.model.clone()
    nodes = {node.name: node for node in copy.graph}
    free = {name: copy.graph.initializers[name] for name in sorted(weight_names(graph))}
    biases: dict[str, dict[str, np.ndarray]] = {}
    for layer in graph.layers.values():
        biases[layer.name] = {}
        for node in (nodes[name] for name in layer.nodes):
            if layer.op == "MatMul" or layer.recurrent:
                continue  # its sums have no bias to shift; or one that is free as it is
            given = node_bias(node, layer)
            values = np.zeros(layer.channels, np.float32) if given is None else np.array(given)
            bias = _own_bias(copy, node, values)
            free[bias.name or ""] = bias
            biases[layer.name][bias.name or ""] = values
    copy.graph.inputs.extend(free.values())
    return copy, biases


def _own_bias(model: ir.Model, node: ir.Node, values: np.ndarray) -> ir.Value:
    """Give a node a bias that no other node has; return it."""
    import onnx_ir as ir

    name = f"{node.name}/free_bias"
    own = ir.Value(name=name, const_value=ir.tensor(values, name=name))
    own.shape, own.type = ir.Shape(values.shape), ir.TensorType(ir.DataType.FLOAT)
    model.graph.initializers[name] = own
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, own)
    return own
