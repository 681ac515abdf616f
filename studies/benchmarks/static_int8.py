"""python studies/benchmarks/static_int8.py --zoo ../shared/zoo [taef2_decoder rlfn_s_x2 ...]

Compares uniform candidates with ONNX Runtime's own static int8 quantisation (`quantize_static`: per channel, Q/DQ, the
better of min-max and percentile calibration) on trained models: size, speed and PSNR. All models of a row are timed in
turn, round by round, on one thread; speeds are medians of the ratio to the float reference in the same round. Prints a
Markdown table.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from zoo import MODELS, load, parser

from slimfront.objectives.quality import psnr_db
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.session import infer, open_session
from slimfront.spaces.space import uniform

OURS: dict[str, dict[str, Any]] = {
    "8/8": {"weight_bits": 8, "activation_bits": 8},
    "4/8": {"weight_bits": 4, "activation_bits": 8},
    "4/8 sequential": {"weight_bits": 4, "activation_bits": 8, "repair": "sequential"},
}


def main() -> None:
    """Run the comparison and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--rounds", type=int, default=15)
    arguments = flags.parse_args()
    print("| model | form | smaller | faster (low-high) | PSNR | change |")
    print("|---|---|---|---|---|---|")
    for name in arguments.models:
        for row in compare(arguments.zoo, name, arguments.rounds):
            print("| " + " | ".join(row) + " |", flush=True)


def compare(zoo: Path, name: str, rounds: int) -> list[list[str]]:
    """Return the rows of one model."""
    model = load(zoo, name)
    path, graph, inputs, target = model.path, model.graph, model.inputs, model.target
    bounds = (model.low, model.high)

    start = time.perf_counter()
    builder = Builder(graph, model.calibration)
    builder.prepare()
    prepared = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        files = {"float": folder / "float.onnx", "quantize_static": folder / "static.onnx"}
        builder.build(Candidate()).save(files["float"])
        name_of_input, calibration = next(iter(model.calibration.items()))
        quantize_static(path, name_of_input, calibration, graph.batch, files["quantize_static"], inputs, target, bounds)
        built = []
        for form, values in OURS.items():
            files[form] = folder / f"{form.replace('/', '_')}.onnx"
            candidate = uniform(graph, values)[0]
            builder.build(candidate)
            start = time.perf_counter()
            builder.build(candidate).save(files[form])
            built.append(time.perf_counter() - start)
        print(f"<!-- {name}: prepared in {prepared:.1f} s, a build takes at most {max(built):.2f} s -->", flush=True)
        feed = {key: array[: graph.batch] for key, array in inputs.items()}
        speeds = timed_in_turn(files, feed, rounds)
        rows = []
        base = model.psnr(path)
        for form, file in files.items():
            quality = model.psnr(file)
            smaller = path.stat().st_size / file.stat().st_size
            ratios = np.sort(speeds[form])
            tail = max(1, int(len(ratios) * 0.1))
            rows.append(
                [
                    name,
                    form,
                    f"{smaller:.2f}×",
                    f"{np.median(ratios):.2f}× ({ratios[tail]:.2f}-{ratios[-1 - tail]:.2f})",
                    f"{quality:.2f}",
                    f"{quality - base:+.2f}",
                ]
            )
        return rows


def quantize_static(
    path: Path,
    input_name: str,
    calibration: np.ndarray,
    batch: int,
    output: Path,
    inputs: dict[str, np.ndarray],
    target: np.ndarray,
    bounds: tuple[float, float],
) -> None:
    """Write what ONNX Runtime's own quantisation makes of a model: the better of min-max and percentile calibration."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as ort_quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.feeds = iter({input_name: calibration[i : i + batch]} for i in range(0, len(calibration), batch))

        def get_next(self) -> Any:
            return next(self.feeds, None)

    prepared = output.with_name("prepared.onnx")
    quant_pre_process(str(path), str(prepared))
    best = -np.inf
    for method in (CalibrationMethod.MinMax, CalibrationMethod.Percentile):
        attempt = output.with_name(f"static_{method.name}.onnx")
        ort_quantize_static(
            str(prepared),
            str(attempt),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=method,
        )
        found = np.clip(infer(open_session(attempt), inputs, batch), *bounds)
        quality = float(psnr_db(found, target, *bounds).mean())
        if quality > best:
            best = quality
            attempt.replace(output)


def timed_in_turn(files: dict[str, Path], feed: dict[str, np.ndarray], rounds: int) -> dict[str, np.ndarray]:
    """Return each file's speed against "float" in every round, the order turned round by round."""
    sessions = {form: open_session(file) for form, file in files.items()}
    for session in sessions.values():
        for _ in range(3):
            session.run(None, feed)
    times: dict[str, list[float]] = {form: [] for form in files}
    order = list(files)
    for _ in range(rounds):
        order = order[1:] + order[:1]
        for form in order:
            start = time.perf_counter()
            sessions[form].run(None, feed)
            times[form].append(time.perf_counter() - start)
    return {form: np.array(times["float"]) / np.array(found) for form, found in times.items()}


if __name__ == "__main__":
    main()
