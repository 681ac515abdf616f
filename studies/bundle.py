"""What lies in a bundle besides the model: its facts (bundle.json) and samples to check it by (check.npz).

model.onnx       the file that was measured (above 2 GB with model.onnx.data); model.tflite or model.pte for other runtimes
candidate.json   the candidate and its measured numbers
card.md          the same for people
bundle.json      what verify needs: checksum, study, environment, expected readings
check.npz        a few inputs, the model's own outputs for them, and targets where there are some

A shipment of several members (`shipment`) has a bundle for each, what its loader reads (shipment.json), and the loader (load.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objectives.samples import Samples
from ..spaces.errors import InputError
from ..spaces.formats import ONNX, Format
from .document import read_document

MODEL = "model"  # what the model file's name begins with
CANDIDATE_FILE = "candidate.json"
CARD_FILE = "card.md"
BUNDLE_FILE = "bundle.json"
CHECK_FILE = "check.npz"
SHIPMENT_FILE = "shipment.json"
LOADER_FILE = "load.py"
VERSION = 1

CHECK_SAMPLES = 4
CHECK_BYTES = 16_000_000  # of inputs and outputs together; at least one batch is kept

LEAST_RUNTIME = "1.22"  # files with integer layers were run on it and gave the same outputs; older ones lack kernels
# The first ONNX Runtime that loads a model of this opset and IR version, tried with the releases 1.17 to 1.25.
LEAST_RUNTIME_OF_OPSET = ((20, "1.17"), (21, "1.18"), (22, "1.21"), (23, "1.23"), (25, "1.24"), (26, "1.25"))
LEAST_RUNTIME_OF_IR = ((9, "1.17"), (10, "1.18"), (11, "1.23"), (13, "1.24"))


@dataclass(frozen=True)
class OnnxVersions:
    """What an ONNX file asks of a runtime: opset, IR version, and the least ONNX Runtime version (or None)."""

    opset: int
    ir_version: int

    @property
    def least_runtime(self) -> str | None:
        """The least ONNX Runtime version that runs it; None where it is newer than what was tried."""
        of_opset = next((version for most, version in LEAST_RUNTIME_OF_OPSET if self.opset <= most), None)
        of_ir = next((version for most, version in LEAST_RUNTIME_OF_IR if self.ir_version <= most), None)
        if of_opset is None or of_ir is None:
            return None
        return max(of_opset, of_ir, LEAST_RUNTIME, key=lambda version: tuple(map(int, version.split("."))))


def model_name(format: Format) -> str:
    """Return the name of a model file of this form."""
    return f"{MODEL}{format.suffix}"


def model_file(facts: Mapping[str, Any]) -> str:
    """Return the name of a bundle's model file; older ones do not tell it."""
    return str(facts.get("model", model_name(ONNX)))


def model_format(path: Path) -> OnnxVersions:
    """Read an ONNX file's opset and IR version."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return OnnxVersions(opset, model.ir_version)


def read_bundle(folder: Path) -> dict[str, Any]:
    """Return a bundle's facts. Raises `InputError` where the folder is no bundle."""
    missing = f"{folder} is no bundle: it has no {BUNDLE_FILE}; `slimfront ship` makes one"
    return read_document(folder / BUNDLE_FILE, "bundle", VERSION, missing)


def is_shipment(folder: Path) -> bool:
    """Whether a folder holds several members."""
    return (folder / SHIPMENT_FILE).exists()


def read_shipment(folder: Path) -> dict[str, Any]:
    """Return what a shipment's loader reads. Raises `InputError` where the folder is none, or it is damaged."""
    return read_document(folder / SHIPMENT_FILE, "shipment", VERSION, f"{folder} is no shipment: no {SHIPMENT_FILE}")


def few_samples(samples: Samples, output_bytes: int, batch: int) -> Samples:
    """Return the samples that a bundle keeps: whole batches, `CHECK_SAMPLES` or fewer where they are large."""
    each = output_bytes + sum(array.nbytes // len(array) for array in samples.inputs.values())
    wanted = max(1, min(CHECK_SAMPLES, CHECK_BYTES // max(1, each)))
    return samples.first(-(-wanted // batch) * batch)


def save_samples(path: Path, samples: Samples, outputs: NDArray | None = None) -> None:
    """Write samples, and outputs where given, as one .npz file."""
    arrays: dict[str, Any] = {f"input:{name}": array for name, array in samples.inputs.items()}
    arrays["range"] = np.array([samples.low, samples.high])
    if samples.target is not None:
        arrays["target"] = samples.target
    if samples.group is not None:
        arrays["group"] = samples.group
    if outputs is not None:
        arrays["output"] = outputs
    np.savez_compressed(path, **arrays)


def load_samples(path: Path) -> tuple[Samples, NDArray | None]:
    """Read what `save_samples` wrote. Raises `InputError` where the file is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            inputs = {key.removeprefix("input:"): stored[key] for key in stored.files if key.startswith("input:")}
            target = stored["target"] if "target" in stored.files else None
            group = stored["group"] if "group" in stored.files else None
            output = stored["output"] if "output" in stored.files else None
            low, high = map(float, stored["range"])
    except FileNotFoundError:
        raise InputError(f"{path.parent} is no whole bundle: it has no {path.name}") from None
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        raise InputError(f"{path} is damaged: {error}") from error
    return Samples(inputs, target, low, high, group), output
