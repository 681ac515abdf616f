"""Notes on samples in another range than the model's: they give plausible-looking numbers that are worth nothing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..spaces.errors import BuildError, InputError, one_line
from ..spaces.graph import Graph
from ..spaces.session import infer, open_session

REACH = 4.0  # times the largest magnitude of the evaluation data
SAMPLES = 4  # that the model is run on
# On the data they were made for, trained networks put none of their values further outside than MARGIN and span 99 % of
# the range; with inputs twice too large 6 to 23 % lie outside, and with inputs 255 times too small 2 % are spanned.
MARGIN = 0.05  # of the range: what overshoots at edges stays within
MOST_OUTSIDE = 0.05  # of the values
LEAST_SPAN = 0.05  # of the range


def input_notes(sets: Mapping[str, Mapping[str, NDArray]]) -> list[str]:
    """Return a note for each set whose values reach far beyond, or stay far within, those of the evaluation data."""
    notes = []
    for key, arrays in sets.items():
        for name, array in arrays.items():
            expected = sets["data.evaluation"].get(name)
            if expected is None or not np.issubdtype(array.dtype, np.floating):
                continue
            reach, usual = float(np.abs(array).max()), float(np.abs(expected).max())
            if reach > REACH * usual or usual > REACH * reach:
                notes.append(
                    f"{key}: values of {name!r} reach {reach:.4g}, those of data.evaluation {usual:.4g}: "
                    "are both in the range that the model was trained for?"
                )
    return notes


def output_notes(graph: Graph, inputs: Mapping[str, NDArray], value_range: tuple[float, float]) -> list[str]:
    """Return a note where the model's own outputs on a few evaluation inputs do not fit ``data.range``.

    Images in 0..255 given to a model of 0..1 show here, and so does a wrong ``data.range``.

    Raises:
        InputError: the model fails on these inputs, or gives values that are not finite.
    """
    count = -(-SAMPLES // graph.batch) * graph.batch
    few = {name: array[:count] for name, array in inputs.items()}
    try:
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            path = Path(folder) / "reference.onnx"
            graph.save(path)
            outputs = infer(open_session(path, threads=os.cpu_count() or 1, spinning=False), few, graph.batch)
    except BuildError as error:
        raise InputError(f"the study's model itself fails: {one_line(error)}") from error
    low, high = value_range
    beyond = MARGIN * (high - low)
    outside = float(np.mean((outputs < low - beyond) | (outputs > high + beyond)))
    span = float(outputs.max() - outputs.min()) / (high - low)
    if outside <= MOST_OUTSIDE and span >= LEAST_SPAN:
        return []
    misfit = f"{outside:.0%} of them lie outside" if outside > MOST_OUTSIDE else f"they span only {span:.1%} of"
    reach = ", ".join(f"{name!r}: {array.min():.4g}..{array.max():.4g}" for name, array in few.items())
    return [
        f"data.evaluation: the model itself gives values in {outputs.min():.4g}..{outputs.max():.4g}; {misfit} "
        f"data.range {low:g}..{high:g}: is that right, and are the inputs ({reach}) in the range it was trained for?"
    ]
