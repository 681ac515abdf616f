"""Samples of a study: read from .npz files, folders of images or a function, and checked against the model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.samples import Samples
from ..spaces.capture import load_function
from ..spaces.errors import InputError, nearest, one_line
from ..spaces.graph import Graph, Port

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
GROUP = "group"  # what each sample belongs to
ACCEPTED = "give an array [N, ...], a dict of arrays by input name, or a pair of inputs and target"
Range = tuple[float, float]
Arrays = dict[str, NDArray]


def read_arrays(
    source: str, folder: Path, key: str, graph: Graph, input_range: Range, note: Callable[[str], None]
) -> Arrays:
    """Read the raw arrays of one entry of ``[data]``.

    Args:
        source: as the study file has it: a .npz file, a folder of images, or "data.py:function".
        folder: what paths are relative to.
        key: "data.calibration" and the like, for errors.
        graph: says how large images must be.
        input_range: black and white of input images.
        note: is told what was done to the images that the user may not expect.

    Raises:
        InputError: missing, of another kind, unreadable.
    """
    file, colon, function = source.rpartition(".py:")
    if colon:
        return _call(folder / f"{file}.py", function, key)
    path = folder / source
    if path.is_dir():
        return _read_folder(path, key, graph, input_range, note)
    if not path.exists():
        raise InputError(f"{key}: there is no file or folder {path}")
    if path.suffix != ".npz":
        raise InputError(f"{key} must be a .npz file, a folder of images or 'data.py:function', but got {source!r}")
    if not zipfile.is_zipfile(path):
        raise InputError(f"{key}: {path} cannot be read as .npz (truncated, or of another kind)")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except Exception as error:
        raise InputError(f"{key}: {path} cannot be read as .npz: {str(error).splitlines()[0]}") from error


def as_inputs(arrays: Mapping[str, Any], graph: Graph, key: str) -> Arrays:
    """Return the model's inputs from raw arrays, in the model's types.

    Raises:
        InputError: an input is missing, of the wrong shape or type, empty, or holds NaN.
    """
    if len({port.shape[:1] for port in graph.inputs}) > 1:
        shapes = {port.name: list(port.shape) for port in graph.inputs}
        raise InputError(f"the model's inputs must share their first axis, the batch, but have shapes {shapes}")
    inputs = {}
    for port in graph.inputs:
        name = "input" if len(graph.inputs) == 1 and "input" in arrays else port.name
        if name not in arrays:
            wanted = "'input'" if len(graph.inputs) == 1 else f"{port.name!r}"
            raise InputError(f"{key} must hold {wanted}, but has {', '.join(map(repr, arrays)) or 'nothing'}")
        inputs[port.name] = _as_input(arrays[name], port, f"{key}: {name}")
    known = [*inputs, *(["input"] if len(inputs) == 1 else []), "target", GROUP]
    unread = [name for name in arrays if name not in known]
    if unread:
        raise InputError(
            f"{key} holds {unread[0]!r}, which nothing reads{nearest(unread[0], known)}; known: {', '.join(map(repr, known))}"
        )
    counts = {name: len(array) for name, array in inputs.items()}
    if len(set(counts.values())) > 1:
        raise InputError(f"{key}: the inputs must have equally many samples, but got {counts}")
    return inputs


def as_samples(arrays: Mapping[str, Any], graph: Graph, key: str, value_range: Range) -> Samples:
    """Return inputs with their target; a uint8 target is scaled from 0..255 to ``value_range``.

    Raises:
        InputError: as `as_inputs`, or a target that does not fit the model's output.
    """
    inputs = as_inputs(arrays, graph, key)
    target = arrays.get("target")
    if target is not None:
        count = len(next(iter(inputs.values())))
        target = _as_target(_as_array(target, f"{key}: target"), graph.outputs[0], count, f"{key}: target", value_range)
    return Samples(inputs, target, *value_range, _group_of(arrays, inputs, f"{key}: {GROUP}"))


def _group_of(arrays: Mapping[str, Any], inputs: Arrays, what: str) -> NDArray | None:
    """Return what each sample belongs to ``[N]``; None where nothing is said of it."""
    if GROUP not in arrays or GROUP in inputs:
        return None
    group, count = _as_array(arrays[GROUP], what), len(next(iter(inputs.values())))
    if group.dtype.kind not in "iuU":
        raise InputError(f"{what} must hold whole numbers or texts, one a sample, but got {group.dtype.name}")
    if group.shape != (count,):
        raise InputError(f"{what} must have shape {[count]}, one value a sample, but got {list(group.shape)}")
    return group


def check_distinct(sets: Mapping[str, Arrays]) -> None:
    """Raise `InputError` where two of the sets share a sample, naming both."""
    seen: dict[str, tuple[str, int]] = {}
    for key, inputs in sets.items():
        for index, digest in enumerate(sample_digests(inputs)):
            other, other_index = seen.setdefault(digest, (key, index))
            if other != key:
                raise InputError(
                    f"{key} shares a sample with {other} (sample {index} is sample {other_index} there): "
                    "a front chosen on data it has seen says nothing; take separate samples"
                )


def sample_digests(inputs: Arrays) -> list[str]:
    """Return a hash of each sample, over all inputs."""
    count = len(next(iter(inputs.values())))
    digests = [hashlib.sha256() for _ in range(count)]
    for _, array in sorted(inputs.items()):
        for digest, row in zip(digests, array, strict=True):
            digest.update(np.ascontiguousarray(row).tobytes())
    return [digest.hexdigest() for digest in digests]


def _call(file: Path, function: str, key: str) -> Arrays:
    try:
        arrays = load_function(file, function, key)()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{key}: {function}() of {file} fails: {type(error).__name__}: {error}") from error
    if not isinstance(arrays, Mapping):
        raise InputError(f"{key}: {function}() of {file} must return a dict of arrays, but got {type(arrays).__name__}")
    return {str(name): _as_array(array, f"{key}: {name}") for name, array in arrays.items()}


def _as_input(array: Any, port: Port, what: str) -> NDArray:
    array = _as_array(array, what)
    wanted = np.dtype(port.dtype)
    if array.dtype != wanted and not (array.dtype.kind == "f" and wanted.kind == "f"):
        raise InputError(f"{what} must be {wanted.name}, but got {array.dtype.name}")
    if array.ndim != len(port.shape) or array.shape[1:] != port.shape[1:]:
        shape = ", ".join(["N", *map(str, port.shape[1:])])
        raise InputError(f"{what} must have shape [{shape}], but got {list(array.shape)}{_shape_hint(port)}")
    if not len(array):
        raise InputError(f"{what} must have at least one sample, but is empty")
    with np.errstate(over="ignore"):
        array = np.ascontiguousarray(array, dtype=wanted)
    _check_finite(array, what)
    return array


def _as_array(values: Any, what: str) -> NDArray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, RuntimeError) as error:  # ragged lists; tensors with a gradient or on a GPU
        raise InputError(f"{what} cannot be read as an array; {ACCEPTED}: {one_line(error)}") from error
    if array.dtype == object:
        raise InputError(f"{what} cannot be read as an array, but is {type(values).__name__}; {ACCEPTED}")
    return array


def _shape_hint(port: Port) -> str:
    free = any(isinstance(axis, str) for axis in port.axes[1:])
    return "; model.input_shape says which shape to measure at" if free else ""


def _as_target(target: NDArray, port: Port, count: int, what: str, value_range: Range) -> NDArray[np.float32]:
    low, high = value_range
    if target.dtype.kind != "f" and target.dtype != np.uint8:
        raise InputError(f"{what} must be float32 in the model's range or uint8 in 0..255, but got {target.dtype.name}")
    if target.shape != (count, *port.shape[1:]):
        raise InputError(f"{what} must have shape {[count, *port.shape[1:]]}, but got {list(target.shape)}")
    _check_finite(target, what)
    if target.dtype == np.uint8:
        return (low + target.astype(np.float32) * np.float32((high - low) / 255.0)).astype(np.float32)
    beyond = (high - low) / 2
    if target.min() < low - beyond or target.max() > high + beyond:
        raise InputError(
            f"{what} has values in {target.min():g}..{target.max():g}, far outside data.range {[low, high]}; "
            "set data.range to black and white of the model's output"
        )
    return target.astype(np.float32)


def _check_finite(array: NDArray, what: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        index = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(f"{what} has NaN or infinite values (sample {index})")


def _read_folder(path: Path, key: str, graph: Graph, input_range: Range, note: Callable[[str], None]) -> Arrays:
    if len(graph.inputs) > 1 or len(graph.inputs[0].shape) != 4:
        raise InputError(f"{key}: a folder of images goes with a model of one input [N, C, H, W]; use a .npz file")
    inputs, outputs = graph.inputs[0].shape[1:], graph.outputs[0].shape[1:]
    paired = (path / "input").is_dir() or (path / "target").is_dir()
    if not paired:
        return {"input": _scaled(_read_images(_images(path, key), inputs, key, note), input_range)}
    files, targets = (_images(path / side, key) for side in ("input", "target"))
    if [file.stem for file in files] != [file.stem for file in targets]:
        odd = sorted({file.stem for file in files} ^ {file.stem for file in targets})
        raise InputError(f"{key}: {path} must have an image of the same name in input/ and target/; alone: {odd[0]!r}")
    pictures = _read_images(files, inputs, key, None)
    return {"input": _scaled(pictures, input_range), "target": _read_images(targets, outputs, key, None)}


def _images(folder: Path, key: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{key}: there is no folder {folder}")
    files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{key}: {folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return files


def _read_images(
    files: Sequence[Path], shape: Sequence[int], key: str, note: Callable[[str], None] | None
) -> NDArray[np.uint8]:
    """Return uint8 ``[N, C, H, W]``; with ``note``, larger images are cut to their middle, and it is told."""
    images = [_read_image(file, shape[0], key) for file in files]
    height, width = shape[1:]
    cut = [image.shape[:2] != (height, width) for image in images]
    for file, image in zip(files, images, strict=True):
        tall, wide = image.shape[:2]
        if (tall, wide) != (height, width) and (note is None or tall < height or wide < width):
            raise InputError(f"{key}: {file} must be {width} x {height} pixels, but is {wide} x {tall}")
    if note is not None and any(cut):
        note(f"{key}: {sum(cut)} of {len(images)} images are larger than the model's input; their middle is taken")
    middles = []
    for image in images:
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        middles.append(image[top : top + height, left : left + width])
    return np.ascontiguousarray(np.stack(middles).transpose(0, 3, 1, 2))


def _read_image(file: Path, channels: int, key: str) -> NDArray[np.uint8]:
    from PIL import Image

    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise InputError(f"{key}: images have 1, 3 or 4 channels, but the model has {channels}; use a .npz file")
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert(modes[channels]))
    except Exception as error:
        raise InputError(f"{key}: {file} cannot be read as an image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _scaled(images: NDArray[np.uint8], input_range: Range) -> NDArray[np.float32]:
    low, high = input_range
    return (low + images.astype(np.float32) * np.float32((high - low) / 255.0)).astype(np.float32)
