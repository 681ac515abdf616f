"""python studies/benchmarks/runner.py [painting] [--times 5] [--delay 0.01]

Do timings through a runner agree with those made here? One study's uniform candidates are timed here and through a runner in a
process of its own on this machine, in turn, again and again; the second way through a network that holds every byte back for
``--delay`` seconds each way. Prints, as a Markdown table, the medians of the speedups and of their intervals' ends, how often
the two intervals of a pair overlap, how often those of two timings made here one after the other do, and the reference's time by
either.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from slimfront.objectives.connection import Connection
from slimfront.objectives.device.pack import pack
from slimfront.objectives.protocol import OpenModel, Reading, Subject
from slimfront.objectives.remote_engine import RemoteEngine
from slimfront.objectives.runtimes import make_target
from slimfront.objectives.timing import Timing
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.studies.study import load_study

TOKEN = "of a benchmark on loopback"
Interval = tuple[float, float]
UNIFORM = {"8/8": (8, 8), "4/8": (4, 8), "8/32": (8, 32)}


def main() -> None:
    """Measure and print the table."""
    flags = argparse.ArgumentParser(description=__doc__)
    flags.add_argument("study", nargs="?", default="painting")
    flags.add_argument("--times", type=int, default=5, help="pairs of timings of each candidate")
    flags.add_argument("--delay", type=float, default=0.0, help="seconds that the network takes, each way")
    arguments = flags.parse_args()
    study = load_study(arguments.study)
    table = study.settings.target
    candidates = {
        name: Candidate({layer: LayerChoice(*bits) for layer in study.graph.layers}) for name, bits in UNIFORM.items()
    }
    study.prepare(candidates.values())
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder, _runner(Path(folder), arguments.delay) as address:
        here = make_target(table.runtime, "", table.threads, table.provider)
        connection = Connection(address, TOKEN, table.runtime, table.threads, table.provider)
        there = make_target(table.runtime, "", table.threads, table.provider, RemoteEngine(connection))
        paths = {}
        for name, candidate in {"": Candidate(), **candidates}.items():
            paths[name] = Path(folder) / f"{name.replace('/', '-')}.onnx"
            study.builder.build(candidate).save(paths[name])
        print(
            "| candidate | here | through the runner | overlap | here and here | reference here, ms | through the runner |"
        )
        print("|---|---|---|---|---|---|---|")
        for name in candidates:
            found: list[list[dict[str, Reading]]] = [[], []]
            for number in range(arguments.times):
                for which in (0, 1) if number % 2 else (1, 0):
                    target = (here, there)[which]
                    reference, model = (
                        OpenModel(paths[each], study.evaluation, study.graph.batch, target) for each in ("", name)
                    )
                    found[which].append(replace(Timing(), seed=number).measure(Subject(model, reference)))
            print(f"| {name} | {_row(*found)} |", flush=True)


def _row(here: list[dict[str, Reading]], there: list[dict[str, Reading]]) -> str:
    ends = [[_interval(each["speedup"]) for each in found] for found in (here, there)]
    pairs = list(zip(*ends, strict=True))
    control = list(zip(ends[0], ends[0][1:], strict=False))
    cells = [
        f"{np.median([each['speedup'].value for each in found]):.2f} ({np.median([low for low, _ in own]):.2f}-"
        f"{np.median([high for _, high in own]):.2f})"
        for found, own in zip((here, there), ends, strict=True)
    ]
    times = [f"{np.median([each['reference_ms'].value for each in found]):.2f}" for found in (here, there)]
    return " | ".join([*cells, _overlaps(pairs), _overlaps(control), *times])


def _interval(reading: Reading) -> Interval:
    assert reading.low is not None and reading.high is not None
    return reading.low, reading.high


def _overlaps(pairs: Sequence[tuple[Interval, Interval]]) -> str:
    return f"{sum(one[0] <= other[1] and other[0] <= one[1] for one, other in pairs)} of {len(pairs)}"


@contextmanager
def _runner(folder: Path, delay: float) -> Iterator[str]:
    """Start a runner; give the address at which a delayed network leads to it."""
    file = folder / "runner.pyz"
    pack(file)
    command = [sys.executable, str(file), "--port", "0", "--folder", str(folder / "files")]
    process = subprocess.Popen(command, env={**os.environ, "SLIMFRONT_TOKEN": TOKEN}, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found is not None, "the runner says where it listens"
        listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=_carry_all, args=(listener, int(found[1]), delay), daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        process.kill()


def _carry_all(listener: socket.socket, port: int, delay: float) -> None:
    while True:
        near, _ = listener.accept()
        far = socket.create_connection(("127.0.0.1", port))
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in ((near, far), (far, near)):
            late: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
            threading.Thread(target=_take, args=(source, late, delay), daemon=True).start()
            threading.Thread(target=_give, args=(sink, late), daemon=True).start()


def _take(source: socket.socket, late: SimpleQueue[tuple[float, bytes]], delay: float) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            late.put((time.monotonic() + delay, data))
    late.put((0.0, b""))


def _give(sink: socket.socket, late: SimpleQueue[tuple[float, bytes]]) -> None:
    with suppress(OSError):
        while (due := late.get())[1]:
            time.sleep(max(0.0, due[0] - time.monotonic()))
            sink.sendall(due[1])
        sink.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main()
