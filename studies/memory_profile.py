"""Where the reference's memory goes, and what compressing each layer alone would save: memory is short, which layers first?"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..objectives.liveness import tensor_bytes
from ..objectives.predicted_memory import PredictedMemory
from ..spaces.attribution import Place, attribute
from ..spaces.candidate import Candidate, LayerChoice
from ..spaces.errors import BuildError
from ..spaces.groups import channel_groups
from ..spaces.statistics import Progress

if TYPE_CHECKING:
    from ..spaces.build import Built
    from .study import Study

BITS = 8
RATIO = 0.25


def memory_profile(study: Study, progress: Progress | None = None) -> dict[str, Any] | None:
    """Predict the reference's memory, and that of it with each layer and each channel group alone compressed.

    Returns:
        ``peak_bytes``, ``loading_bytes``, ``running_bytes``; ``fullest``, the layer or op while which most bytes of tensors are
        alive, ``live_bytes`` and ``alive`` (tensor, bytes, by), the largest tensors then and what they were written by;
        ``layers`` by name (weight_bytes, as its kernels hold them, alive_bytes, of the tensors at the peak that it wrote,
        saved_bytes at 8 bits, of activations too where it has an integer kernel) and ``groups`` by name (saved_bytes with a
        quarter of its channels removed). What is saved is below 0 where memory grows. None where the runtime's memory cannot be
        told.

    Raises:
        BuildError: the runtime refuses the model.
    """
    found = _foretold(study, Candidate())
    if found is None:
        return None
    reference, built = found
    places = attribute(reference.kernels, built, study.graph)
    fullest = reference.fullest
    alive = [
        {"tensor": buffer.tensors[-1], "bytes": buffer.size, "by": places[buffer.first].name}
        for buffer in reference.alive(fullest)
    ]
    singles = _singles(study)
    saved = {}
    for number, (what, candidate) in enumerate(singles.items()):
        if progress is not None:
            progress("memory of single layers", number / len(singles))
        saved[what] = _saved(study, candidate, reference.peak_bytes)
    weights = _weights(reference, places)
    return {
        "peak_bytes": reference.peak_bytes,
        "loading_bytes": reference.loading_bytes,
        "running_bytes": reference.running_bytes,
        "fullest": places[fullest].name,
        "live_bytes": sum(each["bytes"] for each in alive),
        "alive": alive,
        "layers": {
            name: {
                "weight_bytes": weights.get(name, 0),
                "alive_bytes": sum(each["bytes"] for each in alive if each["by"] == name),
                "saved_bytes": saved.get(("layer", name)),
            }
            for name in study.graph.layers
        },
        "groups": {name: {"saved_bytes": saved.get(("group", name))} for name in channel_groups(study.graph).groups},
    }


def _singles(study: Study) -> Mapping[tuple[str, str], Candidate]:
    """Return the candidates in which one layer, or one group, alone is compressed."""
    graph = study.graph
    found = {}
    for name, layer in graph.layers.items():
        activations = BITS if study.rules.has_integer_kernel(graph, layer) else 32
        found["layer", name] = Candidate({name: LayerChoice(BITS, activations)})
    for name in channel_groups(graph).groups:
        found["group", name] = Candidate({}, {name: RATIO})
    return found


def _saved(study: Study, candidate: Candidate, whole: int) -> int | None:
    """Return the bytes by which a candidate's peak lies below another; None where it cannot be built."""
    try:
        found = _foretold(study, study.builder.fitting(candidate))
    except BuildError:
        return None
    return None if found is None else whole - found[0].peak_bytes


def _foretold(study: Study, candidate: Candidate) -> tuple[PredictedMemory, Built] | None:
    """Return the memory of a model with a candidate's kernels, and that model."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "model.onnx"
        built = study.predictor.save_model(candidate, path)
        told = study.target.predicted_memory(path, {port.name: port.shape for port in study.graph.inputs})
    return None if told is None else (told, built)


def _weights(memory: PredictedMemory, places: Sequence[Place]) -> dict[str, int]:
    """Return the bytes of stored tensors that the kernels of each layer read, by its name."""
    found: dict[str, dict[str, int]] = {}
    for kernel, place in zip(memory.kernels, places, strict=True):
        stored = zip(kernel.input_names, kernel.inputs, kernel.constants, strict=True)
        found.setdefault(place.name, {}).update(
            {name: tensor_bytes(tensor) for name, tensor, constant in stored if constant}
        )
    return {name: sum(sizes.values()) for name, sizes in found.items()}
