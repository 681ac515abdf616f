"""Peak memory: the bytes by which a process grows, at its peak, from opening a model's file to the end of inference.

It is what a device needs beside the runtime itself, which is the same for every candidate and does not count: its libraries are
read, and a small model is run, before the model is opened. Two peaks make it up. While the file is opened, weights of few bits
are unpacked and laid out for their kernels, with several copies of them at once; while it is run, tensors take the place, and on
ONNX Runtime the second run takes a further block for them. The larger peak is the reading, for a device has to survive both.

The C library is told to give back at once what is freed (`ALLOCATION`): else it keeps some of what opening took, more or less by
chance. A program that does not tell it so may need up to that more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..spaces.errors import BuildError, last_line
from ..spaces.formats import Format
from ..spaces.session import batches
from .memory_process import FEED_FILE, TASK_FILE, WARM_FILE
from .protocol import About, OpenModel, Reading, Subject
from .target import Target

NAME = "memory"  # of the stage
PROCESSES = 3
CERTAINTY = 0.95
# Of glibc (mallopt(3)): one heap; what has a page or more is asked of the system, and given back to it, on its own.
ALLOCATION = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "4096", "MALLOC_TRIM_THRESHOLD_": "4096"}


class Memory:
    """Reads `memory_bytes`, the peak memory of a model, and `predicted_memory_bytes` where its target can tell it.

    Args:
        processes: in how many it is measured; at least 2, for an interval.
    """

    name = NAME
    readings: ClassVar[Mapping[str, About]] = {
        "memory_bytes": About(
            "peak memory",
            "bytes",
            maximise=False,
            explanation="by how much a process of its own grows, at its peak, while it opens and runs the model",
        )
    }

    def __init__(self, processes: int = PROCESSES) -> None:
        self.processes = processes

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return what is predicted, and the mean of what several processes took with its interval (Student's t).

        Raises:
            BuildError: the model does not load or run in a process of its own.
        """
        return predicted(subject.model) | {"memory_bytes": self._measured(subject.model)}

    def _measured(self, model: OpenModel) -> Reading:
        found = [measure_once(model) for _ in range(self.processes)]
        peaks = np.array([max(one.values()) for one in found], float)
        half = _reach(len(peaks)) * float(peaks.std(ddof=1)) / len(peaks) ** 0.5
        mean = float(peaks.mean())
        opening, running = (float(np.mean([one[name] for one in found])) for name in ("loading", "running"))
        return Reading(mean, "bytes", mean - half, mean + half, f"{len(peaks)} processes: {_peaks(opening, running)}")


def predicted(model: OpenModel) -> dict[str, Reading]:
    """Return `predicted_memory_bytes`; nothing where the target cannot tell it, as of a graph too large to be written out, or
    the graph that a file was made of cannot be had.
    """
    shapes = {name: (model.batch, *array.shape[1:]) for name, array in model.samples.inputs.items()}
    told = None
    with suppress(BuildError), model.graph() as path:  # what does not run at all fails where it is measured
        told = None if path is None else model.target.predicted_memory(path, shapes)
    if told is None:
        return {}
    how = f"predicted from the graph: {_peaks(told.loading_bytes, told.running_bytes)}"
    return {"predicted_memory_bytes": Reading(float(told.peak_bytes), "bytes", how=how)}


def _peaks(opening: float, running: float) -> str:
    return f"opening {opening / 1e6:.2f} MB, running {running / 1e6:.2f} MB"


def measure_once(model: OpenModel, allocation: Mapping[str, str] = ALLOCATION) -> dict[str, int]:
    """Return the peaks of one process in bytes: `loading` and `running`.

    Args:
        model: the file, and the samples whose first batch it is run on.
        allocation: what the C library is told, by environment variable.

    Raises:
        BuildError: the model does not load or run there.
    """
    with tempfile.TemporaryDirectory(prefix="slimfront-") as made:
        folder = Path(made)
        np.savez(folder / FEED_FILE, **next(batches(model.samples.first(model.batch).inputs, model.batch)))  # type: ignore[arg-type]
        (folder / WARM_FILE).write_bytes(_warm_model(model.target.rules.format))
        task = {"model": str(model.path.absolute()), **_settings(model.target)}
        (folder / TASK_FILE).write_text(json.dumps(task), encoding="utf-8")
        command = [sys.executable, "-P", "-m", "slimfront.objectives.memory_process", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | allocation)
    if done.returncode:
        raise BuildError(f"the model's memory cannot be measured in a fresh process: {last_line(done.stderr)}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _settings(target: Target) -> Mapping[str, str | int]:
    """Return what makes a target again elsewhere."""
    return {
        "runtime": target.rules.runtime,
        "threads": getattr(target, "threads", 1),
        "provider": getattr(target, "provider", ""),
    }


@lru_cache
def _warm_model(format: Format) -> bytes:
    """Return the file of one small convolution, which reads "x" ``[1, 4, 8, 8]``."""
    import onnx
    from onnx import helper

    weight = onnx.numpy_helper.from_array(np.ones((4, 4, 3, 3), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph([node], "warm", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return format.packed(model.SerializeToString(), {"x": (1, 4, 8, 8)})


def _reach(count: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CERTAINTY / 2.0, count - 1))
