"""The rules of a runtime: what its integer kernels cover, which nodes of a candidate run in integers, and how it is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from . import executorch_file, litert_file, mobile_domains, openvino_domains
from .candidate import DYNAMIC, NATIVE, WEIGHT_BITS, Candidate, LayerChoice
from .domains import Domains, has_integer_kernel
from .errors import BuildError
from .formats import ONNX, Format
from .forms import DYNAMIC_OPS, valid_forms
from .graph import Graph, Layer
from .lowering import Lowering
from .matrix import has_matrix
from .mobile_lowering import MobileLowering
from .openvino_lowering import OpenVinoLowering


class NodeDomains(Protocol):
    """Which nodes of a graph run in integers, for any choice of layers.

    Attributes:
        nodes: names, in the order of the graph.
        tensors: names of those whose elements count.
        elements: how many elements those have, over 2**20, ``[1, tensors]``.
    """

    nodes: tuple[str, ...]
    tensors: tuple[str, ...]

    @property
    def elements(self) -> NDArray[np.float64]: ...  # noqa: D102

    def integer(self, layers: NDArray[np.bool_], elements: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return which nodes run in integers ``[M, nodes]``.

        Args:
            layers: which layers have to, ``[M, layers]`` in the order of the graph's layers.
            elements: of ``tensors``, over 2**20, ``[M or 1, tensors]``.
        """
        ...


@dataclass(frozen=True)
class Rules:
    """How candidates are made for a runtime.

    Attributes:
        runtime: its name in a study file.
        has_integer_kernel: whether an integer kernel can run a layer of a graph.
        domains: says which nodes of a graph run in integers.
        lowering: writes a candidate.
        sparse: whether weights at zero can be left out of a file.
        dynamic: ops whose inputs its kernels can put on a grid at each inference.
        format: of its files.
        stored: by activation bits, the weight bits that its files store as such.
    """

    runtime: str
    has_integer_kernel: Callable[[Graph, Layer], bool]
    domains: Callable[[Graph], NodeDomains]
    lowering: type[Lowering]
    sparse: bool = True
    dynamic: tuple[str, ...] = ()
    format: Format = ONNX
    stored: Mapping[int, tuple[int, ...]] = field(default_factory=lambda: {8: WEIGHT_BITS, 32: WEIGHT_BITS})

    def forms(self, graph: Graph, layer: Layer) -> tuple[str, ...]:
        """Return the forms that a layer can take, "native" first."""
        able = layer.op in self.dynamic
        return tuple(form for form in valid_forms(graph, layer) if able or form != DYNAMIC)

    def activation_bits(self, graph: Graph, layer: Layer, form: str = NATIVE) -> tuple[int, ...]:
        """Return the activation bits that a layer can have in a form."""
        if form == DYNAMIC:
            return (8,)
        return (8, 32) if self.has_integer_kernel(graph, layer) else (32,)

    def can_be_sparse(self, layer: Layer) -> bool:
        """Whether weights of a layer may be at zero, and are left out of the file where that is smaller."""
        return self.sparse and has_matrix(layer)

    def stores(self, choice: LayerChoice) -> bool:
        """Whether files store weights of a choice in as many bits as it says."""
        return choice.weight_bits in self.stored[choice.activation_bits]

    def check_stored(self, candidate: Candidate) -> None:
        """Raise `BuildError` where files would not store a layer's weights in as many bits as a candidate says."""
        for name, choice in candidate.layers.items():
            if not self.stores(choice):
                raise BuildError(f"layer {name!r}: {self.not_stored(choice)}")

    def not_stored(self, choice: LayerChoice) -> str:
        """Return what to say of a choice whose weights files would not store so."""
        able = " or ".join(map(str, self.stored[choice.activation_bits]))
        return (
            f"with activation_bits {choice.activation_bits} files for {self.runtime} store weights in {able} bits: "
            f"weight_bits {choice.weight_bits} would be no smaller"
        )

    def check(self, graph: Graph, candidate: Candidate) -> None:
        """Raise `BuildError` where a layer cannot have what a candidate chooses for it."""
        for name, choice in candidate.layers.items():
            if choice.sparsity and not self.sparse:
                raise BuildError(f"layer {name!r}: files for {self.runtime} store all weights: sparsity must be 0")
            if choice.form == DYNAMIC and graph.layers[name].op not in self.dynamic:
                raise BuildError(f"layer {name!r}: {self.not_dynamic(graph.layers[name])}")
            if choice.calibrated and not self.has_integer_kernel(graph, graph.layers[name]):
                raise no_integer_kernel(graph.layers[name])

    def not_dynamic(self, layer: Layer) -> str:
        """Return what to say of a layer that cannot take the form "dynamic"."""
        return f"{self.runtime} has no {layer.op} that finds the grid of its inputs at each inference, as form {DYNAMIC!r} asks"

    def integer_nodes(self, graph: Graph, candidate: Candidate) -> frozenset[str]:
        """Return the names of the nodes that run in integers for a candidate.

        Raises:
            BuildError: a layer with activation bits 8 that no integer kernel can run.
        """
        self.check(graph, candidate)
        if not any(choice.calibrated for choice in candidate.layers.values()):
            return frozenset()
        domains = self.domains(graph)
        integer = np.array([[candidate.choice(name).calibrated for name in graph.layers]], bool)
        found = domains.integer(integer, domains.elements)[0]
        return frozenset(name for name, runs in zip(domains.nodes, found, strict=True) if runs)


def no_integer_kernel(layer: Layer) -> BuildError:
    """Return the error of a candidate with activation bits 8 for a layer that no integer kernel can run."""
    return BuildError(f"layer {layer.name!r} ({layer.op}) has no integer kernel: activation_bits must be 32")


ONNX_RUNTIME = Rules("onnxruntime", has_integer_kernel, Domains, Lowering, dynamic=DYNAMIC_OPS)
OPENVINO = Rules(
    "openvino", openvino_domains.has_integer_kernel, openvino_domains.CarriedDomains, OpenVinoLowering, sparse=False
)
LITERT = Rules(
    "litert",
    mobile_domains.has_integer_kernel,
    mobile_domains.MobileDomains,
    MobileLowering,
    sparse=False,
    format=Format(".tflite", litert_file.pack),
    stored={8: (8,), 32: (8, 32)},
)
EXECUTORCH = replace(
    LITERT, runtime="executorch", format=Format(".pte", executorch_file.pack), stored={8: (8,), 32: (32,)}
)
RULES = {rules.runtime: rules for rules in (ONNX_RUNTIME, OPENVINO, LITERT, EXECUTORCH)}
