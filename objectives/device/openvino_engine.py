"""OpenVINO on the machine that this runs on, always in float32 where no integers run.

OpenVINO's own choice of precision is bfloat16 on processors that have it: what is compared with the reference would be the other
number format, not the compression. So the precision is pinned, for the reference as for candidates.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ...spaces.errors import BuildError, last_line, not_installed
from .engine import FIRST_RUNS, Progress, RawProfile, Rounds, profile_in_turn

PRECISION = "f32"
GEOMETRY = ("strides", "dilations", "kernel", "mode", "block_size")  # of an op, beside its shapes
FACTS = ("layerType", "primitiveType", "originalLayersNames")  # what OpenVINO says of a node, as far as it is asked for
MOVING = ("Reorder", "Transpose", "Reshape", "Convert")  # what may stand between stored weights and their kernel


@dataclass(frozen=True)
class OpenVinoEngine:
    """OpenVINO's processor plugin; for the graphs that it gives see `OpenVinoModel.graph`.

    Attributes:
        threads: of an inference.
    """

    threads: int = 1

    def open(self, model: Path | bytes) -> OpenVinoModel:
        """Return a session."""
        return OpenVinoModel(model, self.threads)

    def inspect(self, model: Path, shapes: Mapping[str, tuple[int, ...]]) -> tuple[OpenVinoModel, bytes]:
        """Return a session, and the graph that it runs for these shapes."""
        session = self.open(model)
        return session, session.graph(shapes)

    def profile(
        self, models: Sequence[Path], feed: Mapping[str, np.ndarray], rounds: Rounds, progress: Progress | None = None
    ) -> list[RawProfile]:
        """Run models in turn with OpenVINO's performance counters."""
        return profile_in_turn(partial(_Profiled, feed=feed, threads=self.threads), models, rounds, progress)


class OpenVinoModel:
    """A model in OpenVINO, run as ONNX Runtime's sessions are. Where shapes are free it is compiled for those it is given.

    Args:
        model: an ONNX file, or its bytes.
        threads: of an inference.
        profiling: whether the times of kernels are kept.

    Raises:
        InputError: OpenVINO is not installed.
        BuildError: it refuses the model.
    """

    def __init__(self, model: Path | bytes, threads: int = 1, profiling: bool = False) -> None:
        self._core = core()
        self._settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": PRECISION,
            "PERF_COUNT": profiling,
        }
        try:
            self._model = self._core.read_model(model if isinstance(model, bytes) else str(model))
        except Exception as error:
            raise _refused(error) from error
        self.is_free = self._model.is_dynamic()
        self._known: tuple[Any, Any] | None = None  # shapes, and the request for them
        if not self.is_free:
            self._request({})

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, np.ndarray], /) -> list[np.ndarray]:
        """Return all outputs for one batch, arrays by input name."""
        request = self._request({name: array.shape for name, array in feed.items()})
        request.infer(dict(feed), share_inputs=True)
        return [np.array(request.get_output_tensor(number).data) for number in range(len(self._model.outputs))]

    def graph(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> bytes:
        """Return the graph that OpenVINO made of the file, for these shapes where some are free, as JSON.

        ``nodes``, in their order: ``name``, ``facts`` (`FACTS`), ``inputs`` (name of the ``source`` and ``number`` of its
        output, name of the ``stored`` constant that it comes from or "", ``type``, ``shape`` or null, number of ``axes``) and
        ``outputs``. ``ops``, the file's: ``names`` (its own and those of the tensors that it writes), ``kind``, ``attributes``
        (`GEOMETRY`).
        """
        nodes = [_node(node) for node in self.compiled(shapes).get_runtime_model().get_ordered_ops()]
        return json.dumps({"nodes": nodes, "ops": [_op(op) for op in self._model.get_ops()]}).encode()

    def compiled(self, shapes: Mapping[str, tuple[int, ...]] | None = None) -> Any:
        """Return the compiled model, for these shapes where some are free."""
        return self._request(shapes or {}).get_compiled_model()

    def counters(self) -> list[Any]:
        """Return the performance counters of the last run."""
        assert self._known is not None
        return list(self._known[1].profiling_info)

    def _request(self, shapes: Mapping[str, tuple[int, ...]]) -> Any:
        wanted = dict(shapes) if self.is_free else None
        if self._known is None or self._known[0] != wanted:
            try:
                if wanted is not None:
                    self._model.reshape(dict(wanted))
                compiled = self._core.compile_model(self._model, "CPU", self._settings)
            except Exception as error:
                raise _refused(error) from error
            self._known = wanted, compiled.create_infer_request()
        return self._known[1]


class _Profiled:
    """A model that keeps the times of its kernels."""

    def __init__(self, path: Path, feed: Mapping[str, np.ndarray], threads: int) -> None:
        self._feed = feed
        self._session = OpenVinoModel(path, threads, profiling=True)
        self._graph = self._session.graph({name: array.shape for name, array in feed.items()})
        self._times: list[dict[str, float]] = []
        self._whole: list[float] = []

    def run(self) -> None:
        """Run once more."""
        start = time.perf_counter()
        try:
            self._session.run(None, self._feed)
        except Exception as error:
            raise BuildError(f"OpenVINO fails while running the model: {error}") from error
        self._whole.append(1000.0 * (time.perf_counter() - start))
        self._times.append(
            {each.node_name: each.real_time.total_seconds() * 1000.0 for each in self._session.counters()}
        )

    def close(self) -> RawProfile:
        """Return the profile; the first runs are left out where there are more."""
        first = FIRST_RUNS if len(self._whole) > FIRST_RUNS else 0
        names = list(dict.fromkeys(name for times in self._times for name in times))
        times = np.array([[times.get(name, 0.0) for name in names] for times in self._times], float)
        return RawProfile(self._graph, [("", name) for name in names], times[first:], np.array(self._whole)[first:])


def _node(node: Any) -> dict[str, Any]:
    told = node.get_rt_info()
    return {
        "name": node.get_friendly_name(),
        "facts": {name: _text(told[name]) for name in FACTS if name in told},
        "inputs": [
            _port(port) | _source(port.get_source_output()) | {"stored": _stored_name(port)} for port in node.inputs()
        ],
        "outputs": [_port(port) for port in node.outputs()],
    }


def _op(op: Any) -> dict[str, Any]:
    names = [op.get_friendly_name(), *(name for port in op.outputs() for name in port.get_names())]
    attributes = {key: _plain(value) for key, value in op.get_attributes().items() if key in GEOMETRY}
    return {"names": names, "kind": op.get_type_name(), "attributes": attributes}


def _source(output: Any) -> dict[str, Any]:
    return {"source": output.get_node().get_friendly_name(), "number": int(output.get_index())}


def _port(port: Any) -> dict[str, Any]:
    shape = port.get_partial_shape()
    return {
        "type": str(port.get_element_type().get_type_name()),
        "shape": list(port.get_shape()) if shape.is_static else None,
        "axes": len(shape) if shape.rank.is_static else 0,
    }


def _stored_name(port: Any) -> str:
    """Return the name of the constant that an input comes from, moved or not; "" where it is computed."""
    node = port.get_source_output().get_node()
    while (kind := _text(node.get_rt_info()["layerType"])) in MOVING and len(node.inputs()):
        node = node.inputs()[0].get_source_output().get_node()
    return str(node.get_friendly_name()) if kind == "Const" else ""


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else [int(each) for each in value]


def _text(value: Any) -> str:
    return str(value.astype(str) if hasattr(value, "astype") else value)


@lru_cache(maxsize=1)
def core() -> Any:
    """Return OpenVINO itself. Raises `InputError` where it is not installed."""
    try:
        import openvino
    except ImportError:
        raise not_installed("openvino", "OpenVINO") from None
    return openvino.Core()


def version() -> str:
    """Return the version of OpenVINO, and the precision that it runs in. Raises `InputError` where it is not installed."""
    core()
    import openvino

    return f"OpenVINO {openvino.__version__.split('-')[0]}, {PRECISION}"


def _refused(error: Exception) -> BuildError:
    return BuildError(f"OpenVINO cannot load the model: {last_line(str(error)) or error}")
