"""Init: a commented study file for a model, its inputs, shapes and ranges looked up."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..spaces.errors import InputError, SlimfrontError
from .output import cannot_write, check_output

FREE_AXIS = 256  # height and width to measure at, where the model leaves them free
KINDS = ("calibration", "evaluation", "test")
REST = (
    "",
    "# [space]  # without it: weight bits 2-6, 8 and 32, activation bits 8 and 32, pruning ratios 0 to 0.5",
    "# weight_bits = [4, 8]",
    "# pruning_ratios = [0.0, 0.25]",
    "# activation_bits = [8, 32]",
    "",
    "# [constraints]  # the search then works on the feasible part",
    '# max_size = "1MB"',
    "# max_drop = 0.5",
    "",
    "[target]",
    "threads = 1",
    "",
    "[search]",
    "trials = 200",
    "",
)


@dataclass(frozen=True)
class Input:
    """A model's input: name, element type, and axes (a text is a free axis)."""

    name: str
    dtype: str
    axes: tuple[int | str, ...]

    @property
    def shape(self) -> list[int]:
        """The shape to measure at: one sample, free height and width at `FREE_AXIS`."""
        free = {0: 1}
        return [
            axis if isinstance(axis, int) and axis > 0 else free.get(i, FREE_AXIS) for i, axis in enumerate(self.axes)
        ]

    @property
    def free(self) -> bool:
        """Whether an axis is free."""
        return any(not isinstance(axis, int) or axis <= 0 for axis in self.axes)


def init_study(model: str | Path, data: Path | None, output: Path) -> list[str]:
    """Write a study file for a model.

    Args:
        model: an ONNX file, or "model.py:build" (whose input shape cannot be looked up).
        data: a folder with calibration and evaluation (and test) data: ``MODEL_calibration.npz``, else
            ``calibration.npz``, else a folder of images ``calibration``; the others likewise.
        output: the study file; it must not be there yet.

    Returns:
        What is left to fill in or to check.

    Raises:
        InputError: the model or the folder cannot be read, or the file is there already.
    """
    if output.exists():
        raise InputError(f"{output} is there already; choose another name, or delete it first")
    check_output(output)
    file, _, function = str(model).rpartition(":") if ".py:" in str(model) else (str(model), "", "")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"there is no model file {path}")
    inputs = [] if function else read_inputs(path)
    found = {} if data is None else find_data(data, path.stem)
    value_range = None if function else _look_at_range(path, inputs, found.get("calibration"))
    here = output.absolute().parent
    source = _relative(path, here) + (f":{function}" if function else "")
    lines = ["# A study for slimfront. Paths are relative to this file.", f"name = {_quoted(path.stem)}", ""]
    lines += [*_model_lines(source, inputs), "", *_data_lines(found, value_range, here), *REST]
    try:
        with output.open("x", encoding="utf-8") as stream:
            stream.write("\n".join(lines))
    except OSError as error:
        raise cannot_write(output, error) from error
    return [
        *(f"fill in data.{kind}" for kind in KINDS[:2] if kind not in found),
        *(["check data.range: black and white in the model's output"] if value_range is None else []),
        *(["check model.input_shape"] if function or any(port.free for port in inputs) else []),
    ]


def read_inputs(path: Path) -> list[Input]:
    """Return an ONNX file's inputs. Raises `InputError` where it is none."""
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf's own errors share no base
        raise InputError(f"{path} is no ONNX file: {error}") from error
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [
        Input(value.name, _dtype(value.type.tensor_type.elem_type), _axes(value.type.tensor_type.shape))
        for value in model.graph.input
        if value.name not in weights
    ]
    if not inputs:
        raise InputError(f"{path} is no ONNX model with an input")
    return inputs


def find_data(folder: Path, model_name: str) -> dict[str, Path]:
    """Return what lies in a folder for calibration, evaluation and test.

    Raises:
        InputError: there is no such folder, or nothing of that name in it.
    """
    if not folder.is_dir():
        raise InputError(f"there is no data folder {folder}")
    found = {}
    for kind in KINDS:
        candidates = (folder / f"{model_name}_{kind}.npz", folder / f"{kind}.npz", folder / kind)
        there = next((path for path in candidates if path.exists()), None)
        if there is not None:
            found[kind] = there
    if not found:
        raise InputError(
            f"{folder} holds no calibration, evaluation or test data: put calibration.npz and evaluation.npz into it, or "
            f"{model_name}_calibration.npz and {model_name}_evaluation.npz, or folders of images named calibration and "
            "evaluation; test data likewise, if there is some (no sample may be in two of them)"
        )
    return found


def _look_at_range(path: Path, inputs: list[Input], calibration: Path | None) -> tuple[float, float] | None:
    """Return black and white of the output, judged by what calibration samples give; None where unknown."""
    if calibration is None or calibration.suffix != ".npz" or len(inputs) != 1:
        return None
    from ..spaces.session import infer, open_session

    try:
        with np.load(calibration, allow_pickle=False) as arrays:
            key = inputs[0].name if inputs[0].name in arrays.files else "input"
            samples = arrays[key]
        batch = inputs[0].shape[0]
        output = infer(open_session(path), {inputs[0].name: samples[: max(batch, 4)]}, batch)
    except (SlimfrontError, OSError, ValueError, KeyError, IndexError):
        return None
    return evident_range(float(output.min()), float(output.max()))


def evident_range(low: float, high: float) -> tuple[float, float]:
    """Return the usual range that values between ``low`` and ``high`` fit: 0..1, -1..1 or 0..255."""
    if high > 8.0:
        return (0.0, 255.0)
    return (-1.0, 1.0) if low < -0.4 else (0.0, 1.0)


def _model_lines(source: str, inputs: list[Input]) -> list[str]:
    lines = ["[model]", f"file = {_quoted(source)}"]
    if not inputs:
        shape = f"input_shape = [1, 3, {FREE_AXIS}, {FREE_AXIS}]"
        return [*lines, '# weights = "weights.safetensors"', f"{shape}  # the shape to measure at: check it"]
    for port in inputs:
        axes = ", ".join(str(axis) for axis in port.axes)
        lines.append(f"# input {_comment(port.name)}: {port.dtype} [{_comment(axes)}]")
    free = [port for port in inputs if port.free]
    if free:
        table = ", ".join(f"{_quoted(port.name)} = {port.shape}" for port in free)
        shape = str(free[0].shape) if free == inputs[:1] else f"{{ {table} }}"
        lines.append(f"input_shape = {shape}  # to measure at; a shipped file keeps its free axes")
    return lines


def _data_lines(found: Mapping[str, Path], value_range: tuple[float, float] | None, here: Path) -> list[str]:
    lines = ['[data]  # .npz files, folders of images (or of input/ and target/), or "data.py:function"']
    for kind in KINDS:
        if kind in found:
            lines.append(f"{kind} = {_quoted(_relative(found[kind], here))}")
        elif kind == "test":
            lines.append('# test = "test.npz"  # optional: measured at ship only')
        else:
            lines.append(f'{kind} = "{kind}.npz"  # fill in')
    low, high = value_range or (0.0, 1.0)
    why = "as its outputs on calibration data tell" if value_range else "check it"
    lines.append(f"range = [{low}, {high}]  # black and white in the model's output: {why}")
    if any(path.is_dir() for path in found.values()):
        lines.append("input_range = [0.0, 1.0]  # the same in its input, for images from a folder: check it")
    return lines


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder)).as_posix()


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are TOML's."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _dtype(element_type: int) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(element_type))
    except KeyError:
        return "unknown"


def _axes(shape: Any) -> tuple[int | str, ...]:
    return tuple(
        axis.dim_value if axis.WhichOneof("value") == "dim_value" else axis.dim_param or f"axis {i}"
        for i, axis in enumerate(shape.dim)
    )
