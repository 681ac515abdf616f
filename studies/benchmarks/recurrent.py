"""python studies/benchmarks/recurrent.py [--seconds 5]

What few bits and integers are worth in recurrent layers and products. Layers with random weights, on one thread of this
machine: each candidate is timed in turn with the float layer. Prints, as a Markdown table, how much smaller and faster the layer
is, and its error against the float one's outputs on samples that it was not calibrated on (the square root of the mean square,
in parts of the outputs' own), with 8 and 4 bits in float arithmetic, in integers in the form "dynamic" and, of products, in
integers on calibrated grids.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.samples import Samples
from slimfront.objectives.timing import Timing
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import DYNAMIC, Candidate, LayerChoice
from slimfront.spaces.capture import capture_module
from slimfront.spaces.graph import Graph, Layer
from slimfront.spaces.rules import ONNX_RUNTIME

STEPS = 28
KINDS = [(op, width) for op in ("LSTM", "GRU") for width in (64, 128, 256)]
ROWS = [("Linear", rows, width) for width in (64, 256, 1024) for rows in (1, 8, 64)]
SAMPLES = 16
WIDE = 1e6  # outputs are not clipped


class States(torch.nn.Module):
    """All states of a recurrent layer, batch first."""

    def __init__(self, op: str, width: int) -> None:
        super().__init__()
        self.core = getattr(torch.nn, op)(width, width, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the states of all steps."""
        return self.core(x)[0]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each layer and batch")
    seconds = parser.parse_args().seconds
    torch.manual_seed(0)
    print("| layer | input | weights, arithmetic | smaller | faster (low-high) | error |")
    print("|---|---|---|---|---|---|")
    for op, width in KINDS:
        for batch in (1, 4):
            table(f"{op}({width})", States(op, width), (batch, STEPS, width), seconds)
    for op, rows, width in ROWS:
        table(f"{op}({width}, {width})", torch.nn.Linear(width, width), (rows, width), seconds)


def table(name: str, module: torch.nn.Module, shape: tuple[int, ...], seconds: float) -> None:
    """Print the rows of one layer."""
    graph = capture_module(module, shape)
    random = np.random.default_rng(0)
    calibration, evaluation = (
        {graph.inputs[0].name: random.standard_normal((SAMPLES * shape[0], *shape[1:]), np.float32)} for _ in range(2)
    )
    builder = Builder(graph, calibration)
    samples = Samples(evaluation, None, -WIDE, WIDE)
    (layer,) = graph.layers.values()
    found = ways(graph, layer)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.onnx" for number in range(len(found) + 1)]
        candidates = [Candidate(), *(Candidate({layer.name: choice}) for choice in found.values())]
        for candidate, path in zip(candidates, paths, strict=True):
            builder.build(candidate).save(path)
        reference, *models = (OpenModel(path, samples, graph.batch) for path in paths)
        timed = Timing(seconds=seconds).measure_together([Subject(each, reference) for each in models])
        wanted, whole = reference.outputs, paths[0].stat().st_size
        for what, path, model, readings in zip(found, paths[1:], models, timed, strict=True):
            speedup = readings["speedup"]
            error = float(np.sqrt(np.mean((model.outputs - wanted) ** 2) / np.mean(wanted**2)))
            cells = f"{whole / path.stat().st_size:.2f}× | {speedup.value:.2f}× ({speedup.low:.2f}-{speedup.high:.2f})"
            print(f"| {name} | {list(shape)} | {what} | {cells} | {error:.1%} |", flush=True)


def ways(graph: Graph, layer: Layer) -> dict[str, LayerChoice]:
    """Return the choices of a layer that are compared, by what they are called."""
    found = {"float": LayerChoice(8)}
    if DYNAMIC in ONNX_RUNTIME.forms(graph, layer):
        found["dynamic"] = LayerChoice(8, 8, form=DYNAMIC)
    if ONNX_RUNTIME.has_integer_kernel(graph, layer):
        found["calibrated"] = LayerChoice(8, 8)
    return {
        f"{bits} bits, {way}": replace(choice, weight_bits=bits) for way, choice in found.items() for bits in (8, 4)
    }


if __name__ == "__main__":
    main()
