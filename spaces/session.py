"""ONNX Runtime sessions with the settings that every measurement shares, and inference over many samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import BuildError, InputError, SlimfrontError

if TYPE_CHECKING:
    import onnxruntime as ort

CPU = "CPUExecutionProvider"
WEIGHTS_APART_BYTES = 1 << 16  # initializers of an optimised graph, from which they lie in a file beside it


def open_session(
    model: bytes | Path,
    *,
    threads: int = 1,
    provider: str = CPU,
    optimize: bool = True,
    optimized_path: Path | None = None,
    profile_prefix: Path | None = None,
    spinning: bool = True,
) -> ort.InferenceSession:
    """Open a model as a stock ONNX Runtime would, with a fixed number of threads.

    Args:
        model: the file's bytes, or its path (needed where it has external data).
        threads: intra-op threads; inter-op is always 1.
        provider: an execution provider of this ONNX Runtime.
        optimize: False switches all graph optimisations off.
        optimized_path: where to write the optimised graph, for inspection.
        spinning: whether several threads wait busily, as is the default of ONNX Runtime; off where NumPy works beside it.
        profile_prefix: switches the per-node profile on; its file starts with this.

    Raises:
        InputError: the provider is not there.
        BuildError: ONNX Runtime refuses the model.
    """
    import onnxruntime as ort

    if provider not in ort.get_available_providers():
        available = ", ".join(ort.get_available_providers())
        raise InputError(f"target.provider {provider!r} is not in this ONNX Runtime; available: {available}")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning and threads > 1 else "0")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if optimized_path is not None:
        options.optimized_model_filepath = str(optimized_path)
        # beside it, so that unpacked weights of more than 2 GB can be written
        prefix = "session.optimized_model_external_initializers"
        options.add_session_config_entry(f"{prefix}_file_name", f"{optimized_path.name}.data")
        options.add_session_config_entry(f"{prefix}_min_size_in_bytes", str(WEIGHTS_APART_BYTES))
    if profile_prefix is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile_prefix)
    try:
        return ort.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=[provider])
    except Exception as error:
        raise BuildError(f"ONNX Runtime cannot load the model: {error}") from error


def batches(inputs: Mapping[str, np.ndarray], batch: int) -> Iterator[dict[str, np.ndarray]]:
    """Cut samples into feeds of the model's own batch size; a last incomplete batch is filled by repeating."""
    count = len(next(iter(inputs.values())))
    for start in range(0, count, batch):
        rows = np.arange(start, start + batch) % count if start + batch > count else slice(start, start + batch)
        yield {name: np.ascontiguousarray(array[rows]) for name, array in inputs.items()}


def infer(session: Any, inputs: Mapping[str, np.ndarray], batch: int, runtime: str = "ONNX Runtime") -> np.ndarray:
    """Return the first output for all samples, shape ``[N, ...]``.

    Args:
        session: ONNX Runtime's, or another runtime's that is run as that is.
        inputs: by name, ``[N, ...]``.
        batch: the model's own.
        runtime: its name, for people.

    Raises:
        BuildError: the runtime fails, or an output is not finite.
    """
    count = len(next(iter(inputs.values())))
    try:
        outputs = [session.run(None, feed)[0] for feed in batches(inputs, batch)]
    except SlimfrontError:  # a session elsewhere says itself what is wrong
        raise
    except Exception as error:
        raise BuildError(f"{runtime} fails while running the model: {error}") from error
    result = np.concatenate(outputs)[:count]
    if not np.isfinite(result).all():
        raise BuildError("the model's output has NaN or infinite values")
    return result
