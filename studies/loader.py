"""Chooses, on the device, the best of the models beside this file that keep a budget of time and of memory.

Needs Python, NumPy and the models' runtime; ExecuTorch needs PyTorch beside it. All models are measured at the first start, each
in a process of its own; what was found is kept in measured.json, and measured again where the device, the models, the runtime or
the number of threads are others.

    from load import load
    model = load(milliseconds=20)            # the best picture within 20 ms; or megabytes=50, or both, or neither
    outputs = model.run({"input": array})    # arrays by the names of the model's inputs

    python load.py                           # measures, and says what each model takes here
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
Run = Callable[[Mapping[str, np.ndarray]], "list[np.ndarray]"]

MEASURED = HERE / "measured.json"
RUNS, SECONDS = 5, 0.5  # a model is run until both are reached
MODULES = {"litert": "ai_edge_litert.interpreter", "executorch": "executorch.runtime"}  # where they have other names
TYPES = ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")  # by the numbers of PyTorch


@lru_cache
def shipment() -> dict[str, Any]:
    """Return what lies beside this file: the runtime that the models were made for, and the facts of each."""
    return dict(json.loads((HERE / "shipment.json").read_text(encoding="utf-8")))


class Model:
    """A model that can be run.

    Attributes:
        facts: its name, numbers of the search and what was measured here.
        run: takes arrays by input name, returns the list of outputs.
    """

    def __init__(self, facts: Mapping[str, Any], threads: int) -> None:
        self.facts = facts
        self.run: Run = OPEN[shipment()["runtime"]](HERE / facts["name"] / shipment()["model"], threads)


def _onnxruntime(path: Path, threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(path), options, providers=[shipment()["provider"]])
    return lambda feed: list(session.run(None, dict(feed)))


def _openvino(path: Path, threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    core = openvino.Core()
    model = core.read_model(str(path))
    made: dict[Any, Any] = {}

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        shapes = {name: tuple(array.shape) for name, array in feed.items()}
        key = tuple(sorted(shapes.items()))
        if key not in made:  # sizes that are known are faster than free ones
            model.reshape(shapes)
            made[key] = core.compile_model(model, "CPU", settings)
        return list(made[key](dict(feed)).values())

    return run


def _litert(path: Path, threads: int) -> Run:
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(model_path=str(path), num_threads=threads)
    model.allocate_tensors()
    inputs, outputs = model.get_input_details(), model.get_output_details()

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        for port, name in zip(inputs, sorted(feed), strict=True):  # the file's inputs stand in the order of their names
            model.set_tensor(port["index"], np.asarray(feed[name], port["dtype"]))
        model.invoke()
        return [model.get_tensor(port["index"]) for port in outputs]

    return run


def _executorch(path: Path, threads: int) -> Run:
    import torch
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool
    from executorch.runtime import Runtime

    if _threadpool_get_thread_count() != threads:
        if _open:
            raise ValueError(
                f"ExecuTorch's threads are the whole process's: it has {_open[0]} since a model was loaded"
            )
        _unsafe_reset_threadpool(threads)
    _open.append(threads)
    model = Runtime.get().load_program(path).load_method("forward")
    ports = [model.metadata.input_tensor_meta(number) for number in range(model.metadata.num_inputs())]
    types = [TYPES[port.dtype()] for port in ports]

    def run(feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        arrays = [np.asarray(feed[name], kind, order="C") for name, kind in zip(sorted(feed), types, strict=True)]
        return [output.numpy() for output in model.execute([torch.from_numpy(array) for array in arrays])]

    return run


_open: list[int] = []  # threads of ExecuTorch's models, which hold on to them
OPEN = {"onnxruntime": _onnxruntime, "openvino": _openvino, "litert": _litert, "executorch": _executorch}


def load(milliseconds: float | None = None, megabytes: float | None = None, threads: int | None = None) -> Model:
    """Return the model of the best quality that keeps the budget on this device.

    Args:
        milliseconds: that one batch may take.
        megabytes: (10**6 bytes) that the process may grow by, at its peak, for the model and its inference.
        threads: of an inference; by default as many as the search measured with.

    Raises:
        LookupError: none keeps it; the message says what comes closest.
    """
    threads = threads or shipment()["threads"]
    members = shipment()["members"]
    asked = {"milliseconds": milliseconds, "megabytes": megabytes}
    budget = {key: most for key, most in asked.items() if most is not None}
    if budget:
        members = [{**facts, **took} for facts, took in zip(members, measured(threads), strict=True)]
        unknown = [key for key in budget if members[0][key] is None]
        if unknown:
            raise LookupError(f"{unknown[0]} cannot be measured on {platform.system()}")
        for key, most in budget.items():
            least = min(members, key=lambda facts: facts[key])
            if least[key] > most:
                raise LookupError(f"no model keeps {most:g} {key} here: {least['name']} takes {least[key]:.4g}")
        members = [facts for facts in members if all(facts[key] <= most for key, most in budget.items())]
        if not members:
            raise LookupError(f"no model keeps {' and '.join(f'{most:g} {key}' for key, most in budget.items())} here")
    return Model(max(members, key=lambda facts: facts["psnr_db"]), threads)


def measured(threads: int | None = None) -> list[dict[str, Any]]:
    """Return what each model takes here: its milliseconds and megabytes (None where the system does not tell)."""
    threads = threads or shipment()["threads"]
    files = [facts["sha256"] for facts in shipment()["members"]]
    device = [platform.node(), platform.platform(), platform.processor(), os.cpu_count(), _version(), threads, files]
    try:
        kept = json.loads(MEASURED.read_text(encoding="utf-8"))
        if kept["device"] == device:
            return list(kept["members"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not measured yet
    members = [_measured_apart(facts["name"], threads) for facts in shipment()["members"]]
    try:
        part = MEASURED.with_name(f".measured-{os.getpid()}.json")
        part.write_text(json.dumps({"device": device, "members": members}), encoding="utf-8")
        part.replace(MEASURED)
    except OSError:
        pass  # of a folder that may only be read: measured at each start
    return members


def _measured_apart(name: str, threads: int) -> dict[str, Any]:
    """Measure a model in a process of its own: memory that others took is not taken again."""
    command = [sys.executable, str(Path(__file__).resolve()), name, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name} does not run here: {done.stderr.strip()}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def _measure(name: str, threads: int) -> dict[str, Any]:
    with np.load(HERE / name / "check.npz", allow_pickle=False) as stored:
        feed = {key[len("input:") :]: stored[key] for key in stored.files if key.startswith("input:")}
    feed = {key: array[: shipment()["batch"]] for key, array in feed.items()}
    _import_runtime()
    before = _peak_bytes()
    model = Model({"name": name}, threads)
    took: list[float] = []
    while len(took) <= RUNS or sum(took) < SECONDS:
        start = time.perf_counter()
        model.run(feed)
        took.append(time.perf_counter() - start)
    after = _peak_bytes()
    grown = None if before is None or after is None else (after - before) / 1e6
    return {"milliseconds": 1000 * float(np.median(took[1:])), "megabytes": grown}


def _import_runtime() -> Any:
    runtime = shipment()["runtime"]
    return importlib.import_module(MODULES.get(runtime, runtime))


def _version() -> str:
    package = _import_runtime().__name__.partition(".")[0]
    version = getattr(sys.modules[package], "__version__", None) or metadata.version(package)
    return f"{shipment()['runtime']} {version}"


def _peak_bytes() -> int | None:
    """Return the most memory that this process has held, in bytes; None where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes, on a Mac


def _main(arguments: list[str]) -> None:
    if arguments:
        name, threads = arguments
        print(json.dumps(_measure(name, int(threads))))
        return
    for facts, took in zip(shipment()["members"], measured(), strict=True):
        memory = "" if took["megabytes"] is None else f"{took['megabytes']:8.1f} MB"
        print(f"{facts['name']:>12} {facts['psnr_db']:7.2f} dB {took['milliseconds']:9.2f} ms {memory}")


if __name__ == "__main__":
    _main(sys.argv[1:])
