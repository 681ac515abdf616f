"""A process that opens a model, runs it, and tells how much memory that took.

    python -m slimfront.objectives.memory_process FOLDER     # that `memory.measure_once` has filled

It prints one JSON document: the bytes by which the process grew at its peak while the file was opened (`loading`) and while it
was run (`running`).
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..spaces.errors import SlimfrontError
from .runtimes import make_target

TASK_FILE, FEED_FILE, WARM_FILE = "task.json", "feed.npz", "warm"
RUNS = 3  # the second lays its tensors out anew; the third takes no more
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # what `PEAK_RESET` takes (proc(5))
PAGE = 4096
NO_HUGE_PAGES = 41  # of prctl(2): memory comes in pages of `PAGE` bytes, whatever a machine is set to


def main(folder: Path) -> dict[str, int]:
    """Return what opening and running a model took, in bytes."""
    if STATUS.exists():
        ctypes.CDLL(None).prctl(NO_HUGE_PAGES, 1, 0, 0, 0)
    task = json.loads((folder / TASK_FILE).read_text(encoding="utf-8"))
    target = make_target(task["runtime"], threads=task["threads"], provider=task["provider"])
    with np.load(folder / FEED_FILE) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    _warm(target, folder / WARM_FILE)
    before = _settled()
    session = target.open(Path(task["model"]))
    loading = _peak() - before
    _forget_peak()
    for _ in range(RUNS):
        session.run(None, feed)
    return {"loading": max(loading, 0), "running": max(_peak() - before, 0)}


def _warm(target: Any, model: Path) -> None:
    """Run a model of one small layer: what a runtime sets up once for all models, and its libraries, are there then."""
    session = target.open(model)
    session.run(None, {"x": np.zeros((1, 4, 8, 8), np.float32)})


def _settled() -> int:
    """Return the bytes that the process has, with all pages of its libraries, and none that is free."""
    gc.collect()
    if not STATUS.exists():
        return _peak()
    _read_libraries()
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    _forget_peak()
    return _status("VmRSS")


def _read_libraries() -> None:
    """Read a byte of each page of the files in this process's memory, which else count for the model that needs them first."""
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        parts = line.split(maxsplit=5)
        if len(parts) == 6 and ".so" in parts[5] and "r" in parts[1]:
            first, last = (int(end, 16) for end in parts[0].split("-"))
            pages = (ctypes.c_char * (last - first)).from_address(first)
            max(memoryview(pages).cast("B")[::PAGE], default=0)


def _peak() -> int:
    """Return the most bytes that the process had since its peak was last forgotten; without Linux, since it began."""
    if STATUS.exists():
        return _status("VmHWM")
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def _forget_peak() -> None:
    if PEAK_RESET.exists():
        PEAK_RESET.write_text(RESET_PEAK, encoding="utf-8")


def _status(name: str) -> int:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]))))
    except SlimfrontError as error:
        sys.exit(str(error))
