"""python studies/benchmarks/memory.py --zoo ../shared/zoo [taef2_decoder] [--runtime openvino] [--processes 3] [--plain]

Is peak memory foretold? Measures the float reference and uniform candidates of each model in processes of their own, and prints,
as a Markdown table, their peaks while they are opened and while they are run, the larger one, and what was predicted of it.

    python studies/benchmarks/memory.py --learn 8

fits the few constants of a session (`objectives/loading_memory.py`) on so many networks that it makes, and prints them.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from zoo import MODELS, load

from slimfront.objectives.loading_memory import BLOCKED, INTEGER, file_facts, stored_bytes
from slimfront.objectives.memory import ALLOCATION, measure_once
from slimfront.objectives.protocol import OpenModel
from slimfront.objectives.running_memory import rehearse
from slimfront.objectives.runtimes import RUNTIMES, make_target
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import Target
from slimfront.objectives.workspaces import packed_bytes
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.graph import Graph
from slimfront.spaces.space import uniform

CANDIDATES = {
    "float": None,
    "8/32": {"weight_bits": 8},
    "8/8": {"weight_bits": 8, "activation_bits": 8},
    "4/8": {"weight_bits": 4, "activation_bits": 8},
    "4/32": {"weight_bits": 4},
    "pruned 0.25": {"pruning_ratio": 0.25},
}
NEAR = 0.15


def main() -> None:
    """Measure and print the table, or learn the constants."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[2])
    found.add_argument("models", nargs="*", default=list(MODELS))
    found.add_argument("--zoo", type=Path)
    found.add_argument("--runtime", choices=list(RUNTIMES), default="onnxruntime")
    found.add_argument("--processes", type=int, default=3)
    found.add_argument("--plain", action="store_true", help="leave the C library as it is")
    found.add_argument("--learn", type=int, metavar="N")
    arguments = found.parse_args()
    if arguments.learn:
        learn(arguments.learn)
        return
    print("| model | candidate | file | opening | running | peak, measured | predicted | off |")
    print("|---|---|---|---|---|---|---|---|")
    off = []
    for name in arguments.models:
        told = {} if arguments.plain else ALLOCATION
        for row, error in rows(arguments.zoo, name, make_target(arguments.runtime), arguments.processes, told):
            print(f"| {name} | {row} |", flush=True)
            off += [] if error is None else [abs(error)]
    if off:
        inside = sum(error < NEAR for error in off)
        print(f"\n{inside} of {len(off)} within {NEAR:.0%}; median {np.median(off):.1%}, worst {max(off):.1%}")


def rows(
    zoo: Path, name: str, target: Target, processes: int, allocation: Mapping[str, str]
) -> Iterator[tuple[str, float | None]]:
    """Yield the cells of each candidate of a model, and by which part its prediction is off."""
    model = load(zoo, name)
    builder = Builder(model.graph, model.calibration, rules=target.rules)
    for what, opened in files(builder, model.graph, target, Samples(model.inputs)):
        ends = [measure_once(opened, allocation) for _ in range(processes)]
        opening, running = (float(np.mean([end[key] for end in ends])) for key in ("loading", "running"))
        peak = float(np.mean([max(end.values()) for end in ends]))
        told = target.predicted_memory(opened.path, shapes(model.graph))
        size = f"{opened.path.stat().st_size / 1e6:.2f} MB"
        cells = f"{what} | {size} | {opening / 1e6:.2f} | {running / 1e6:.2f} | {peak / 1e6:.2f} MB"
        error = None if told is None else told.peak_bytes / peak - 1.0
        yield f"{cells} | {'–' if told is None else f'{told.peak_bytes / 1e6:.2f} MB | {error:+.1%}'}", error


def files(builder: Builder, graph: Graph, target: Target, samples: Samples) -> Iterator[tuple[str, OpenModel]]:
    """Yield each candidate's file, which is there until the next one is asked for."""
    for what, values in CANDIDATES.items():
        candidate = Candidate() if values is None else uniform(graph, values, target.rules)[0]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            builder.build(candidate).save(path)
            yield what, OpenModel(path, samples, graph.batch, target)


def shapes(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's inputs."""
    return {port.name: port.shape for port in graph.inputs}


def learn(count: int) -> None:
    """Fit what a session takes beside its tensors, by least squares of the relative errors, and print it."""
    from scipy.optimize import nnls

    target, known, left = make_target("onnxruntime"), [], []
    for seed in range(count):
        with tempfile.TemporaryDirectory() as folder:
            graph = capture_onnx(made(seed, Path(folder) / "network.onnx"))
        samples = {"x": np.random.default_rng(seed).random((4, *graph.inputs[0].shape[1:]), dtype=np.float32)}
        for _, opened in files(Builder(graph, samples), graph, target, Samples(samples)):
            kernels, file = target.kernels(opened.path, shapes(graph)), file_facts(opened.path)
            packed = stored_bytes([kernel for kernel in kernels if packed_bytes(kernel)])
            tensors = max(rehearse(kernels, file.outputs).run_bytes) + stored_bytes(kernels) - packed
            blocked = sum(kernel.op == BLOCKED for kernel in kernels)
            integer = sum(kernel.short_op == INTEGER for kernel in kernels)
            known.append([1, file.nodes, blocked, integer])
            left.append(measure_once(opened)["running"] - tensors)
    table, beside = np.array(known, float), np.array(left)
    found, _ = nnls(table / beside[:, None], np.ones(len(beside)))
    names = ("SESSION_BYTES", "NODE_BYTES", "BLOCKED_BYTES", "INTEGER_BYTES")
    print("\n".join(f"{name} = {value:,.0f}" for name, value in zip(names, found, strict=True)))
    print(f"off by {np.median(np.abs(table @ found / beside - 1.0)):.0%} in the median")


def made(seed: int, path: Path) -> Path:
    """Write a network of small layers in a row, drawn by a seed, so that the session itself is most of what it takes."""
    import onnx
    from onnx import helper, numpy_helper

    random = np.random.default_rng(seed)
    channels, nodes, weights, last = int(random.choice([8, 16, 24])), [], [], "x"
    for number in range(int(random.integers(8, 50))):
        kind, name = random.choice(["Conv", "Conv", "Conv", "Sigmoid", "MatMul"]), f"t{number}"
        if kind == "Sigmoid":
            nodes.append(helper.make_node("Sigmoid", [last], [name]))
        else:
            side = int(random.choice([1, 3]))
            shape = (channels, channels, side, side) if kind == "Conv" else (8, 8)
            weights.append(numpy_helper.from_array(random.normal(0, 0.2, shape).astype(np.float32), f"w{number}"))
            layer = helper.make_node(kind, [last, f"w{number}"], [f"{name}_linear"])
            if kind == "Conv":
                layer.attribute.append(helper.make_attribute("pads", [side // 2] * 4))
            nodes.append(layer)
            nodes.append(helper.make_node("Relu", [f"{name}_linear"], [name]))
        last = name
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    ports = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, channels, 8, 8]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "made", ports[:1], ports[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


if __name__ == "__main__":
    main()
