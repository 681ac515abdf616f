"""The models that the benchmarks measure: a zoo holds models/NAME.onnx, data/NAME_calibration.npz, data/NAME_evaluation.npz.

Samples are `input` (and `target` as uint8 where there is one).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from slimfront.objectives.quality import psnr_db
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.graph import Graph
from slimfront.spaces.session import infer, open_session

MODELS = ("taef2_decoder", "rlfn_s_x2", "waifu2x_upconv7_x2", "dncnn_25", "carn_m_x2", "mobilesr_x4", "dcgan_digits")
RANGES = {"rlfn_s_x2": (0.0, 255.0), "dcgan_digits": (-1.0, 1.0)}


@dataclass(frozen=True)
class Model:
    """A trained model with its samples.

    Attributes:
        path: of the ONNX file.
        graph: captured from it.
        calibration, inputs: of calibration and evaluation, by input name.
        calibration_target: pictures in ``low..high``, where there are some.
        target: pictures, or the model's own outputs, in ``low..high``.
        has_target: whether they are pictures.
    """

    path: Path
    graph: Graph
    calibration: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    target: np.ndarray
    has_target: bool
    low: float
    high: float
    calibration_target: np.ndarray | None = None

    def psnr(self, model: bytes | Path) -> float:
        """Return a file's mean PSNR against the target, in dB."""
        found = infer(open_session(model, threads=2, spinning=False), self.inputs, self.graph.batch)
        return float(psnr_db(np.clip(found, self.low, self.high), self.target, self.low, self.high).mean())


def parser(script: str, models: Sequence[str]) -> argparse.ArgumentParser:
    """Return the arguments that scripts over a zoo share, ``models`` and ``zoo``, for a script's own to be added.

    Args:
        script: its docstring, whose third line says what it does.
        models: names that are measured where none are given.
    """
    found = argparse.ArgumentParser(description=script.splitlines()[2])
    found.add_argument("models", nargs="*", default=list(models))
    found.add_argument("--zoo", type=Path, required=True)
    return found


def load(zoo: Path, name: str) -> Model:
    """Return a model of a zoo."""
    path = zoo / "models" / f"{name}.onnx"
    calibration = dict(np.load(zoo / "data" / f"{name}_calibration.npz"))
    evaluation = dict(np.load(zoo / "data" / f"{name}_evaluation.npz"))
    graph = capture_onnx(path)
    low, high = RANGES.get(name, (0.0, 1.0))
    inputs = {graph.inputs[0].name: evaluation["input"]}

    def scaled(pictures: np.ndarray) -> np.ndarray:
        return pictures.astype(np.float32) / 255 * (high - low) + low

    if "target" in evaluation:
        target = scaled(evaluation["target"])
    else:
        target = np.clip(infer(open_session(path), inputs, graph.batch), low, high)
    calibrated = {graph.inputs[0].name: calibration["input"]}
    learned = scaled(calibration["target"]) if "target" in calibration else None
    return Model(path, graph, calibrated, inputs, target, "target" in evaluation, low, high, learned)
