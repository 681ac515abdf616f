"""What really runs: the kernels of the graph that ONNX Runtime made of a file."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .kernel_shapes import INT8, UINT8, Tensor, tensors
from .recurrent import GATES

if TYPE_CHECKING:
    import onnx

DYNAMIC = ("DynamicQuantizeMatMul", "DynamicQuantizeLSTM")  # integer kernels that read float
INTEGER = ("QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "MatMulInteger", *DYNAMIC)
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "FusedGemm", *GATES)
QUANTISING = ("QuantizeLinear", "DequantizeLinear")
RECURRENT = tuple(GATES)
REORDERING = ("ReorderInput", "ReorderOutput", "Reorder")
BLOCKED_ENDING = "_nchwc"
TYPES = {1: "float", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "double"}


@dataclass(frozen=True)
class Kernel:
    """One node of the graph that a runtime made of a file.

    Attributes:
        node: its own name, that of a tensor of the file with an ending, where the runtime made one.
        output: name of its first output.
        op: with its domain in front unless that is ONNX's own: "Add", "com.microsoft.QLinearConv".
        inputs: type and shape of each input, None where there is none.
        outputs: of each output, None where it is not known.
        constants: which inputs are stored in the file.
        attributes: whole numbers and texts, by name.
        input_names: of the tensors that are read.
        output_names: of the tensors that are written.
    """

    node: str
    output: str
    op: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor | None, ...]
    constants: tuple[bool, ...]
    attributes: tuple[tuple[str, Any], ...]
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()

    @property
    def short_op(self) -> str:
        """The op without its domain."""
        return self.op.rsplit(".", 1)[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors of the file that tell what it was written for, the one that tells most first."""
        return (self.output, self.node.split(BLOCKED_ENDING)[0], *self.output_names)

    @cached_property
    def key(self) -> str:
        """What its time depends on: op, types, shapes and layout. Equal for kernels that do the same work."""
        ports = [
            ("=" if constant else "") + _text(tensor)
            for tensor, constant in zip(self.inputs, self.constants, strict=True)
        ]
        outputs = [_text(tensor) for tensor in self.outputs]
        attributes = [f"{name}={value}" for name, value in self.attributes]
        return " ".join([self.op, *ports, "->", *outputs, *attributes])

    @property
    def is_product(self) -> bool:
        """Whether it is a convolution or a matrix product."""
        return self.short_op in INTEGER or self.short_op in FLOAT

    @property
    def integer(self) -> bool:
        """Whether it works on 8-bit integers."""
        if self.short_op in DYNAMIC:
            return True
        data = next((t for t, constant in zip(self.inputs, self.constants, strict=True) if t and not constant), None)
        return data is not None and data.dtype in (UINT8, INT8)

    @cached_property
    def weight(self) -> Tensor | None:
        """The stored weight of a convolution or a product with a constant."""
        stored = [t for t, constant in zip(self.inputs, self.constants, strict=True) if t and constant and t.shape]
        return next((t for t in stored if len(t.shape or ()) >= 2), None) if self.is_product else None

    @cached_property
    def multiply_adds(self) -> int:
        """Multiply-adds of a convolution or a product; 0 for other ops and unknown shapes."""
        output = self.outputs[0] if self.outputs else None
        if not self.is_product or output is None or output.shape is None:
            return 0
        if self.short_op.endswith(RECURRENT):
            return _recurrent_work(self.inputs)
        if self.weight is not None and self.weight.shape is not None:
            shape = self.weight.shape
            if self.short_op in ("Gemm", "MatMul") or "MatMul" in self.op or "Gemm" in self.op:
                return math.prod(output.shape) * math.prod(shape[-2:]) // max(output.shape[-1], 1)
            if self.short_op == "ConvTranspose" and self.inputs[0] is not None and self.inputs[0].shape is not None:
                return math.prod(self.inputs[0].shape) * math.prod(shape[1:])
            return math.prod(output.shape) * math.prod(shape[1:])
        first = self.inputs[0]
        return math.prod(output.shape) * first.shape[-1] if first is not None and first.shape else 0

    @cached_property
    def elements(self) -> int:
        """Values that are read and written, those of stored inputs left out; unknown shapes count as nothing."""
        read = [t for t, constant in zip(self.inputs, self.constants, strict=True) if t is not None and not constant]
        every = [*read, *(t for t in self.outputs if t is not None)]
        return sum(math.prod(tensor.shape) for tensor in every if tensor.shape is not None)


def read_kernels(optimized: Path | bytes, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
    """Return the kernels of an optimised graph in the order in which they stand there.

    Args:
        optimized: what `session.open_session` wrote with ``optimized_path``, or its bytes.
        inputs: the shapes to measure at, by input name.
    """
    return node_kernels(loaded(optimized), inputs)


def node_kernels(model: onnx.ModelProto, inputs: Mapping[str, tuple[int, ...]]) -> list[Kernel]:
    """Return each node of a graph as a kernel, in their order; ``inputs`` are the shapes to measure at, by name."""
    known = tensors(model, inputs)
    stored = {value.name for value in model.graph.initializer}
    return [_kernel(node, known, stored) for node in model.graph.node]


def kernel_owners(
    kernels: Sequence[Kernel], owners: Mapping[str, str], weights: Mapping[str, str] | None = None
) -> list[str]:
    """Return the captured node that each kernel works for; "" where none is known.

    The runtime keeps the names of a file's tensors where it can, and names a kernel in the blocked layout after the tensor
    that it wrote. What it puts in between (transposes, reorderings) belongs to what stands before it.

    Args:
        kernels: in the order of the graph.
        owners: captured nodes by the name of the first output of what was written for them (`build.Built.owners`).
        weights: captured nodes by the name of an integer kernel's weights (`build.Built.integer_tensors`).
    """
    found: list[str] = []
    written: dict[str, str] = {}
    for kernel in kernels:
        stored = (name for name, constant in zip(kernel.input_names, kernel.constants, strict=True) if constant)
        owner = next((weights[name] for name in stored if name in weights), "") if weights else ""
        owner = owner or next((owners[name] for name in kernel.names if name in owners), "")
        owner = owner or next((written[name] for name in kernel.input_names if written.get(name)), "")
        written |= dict.fromkeys((kernel.output, *kernel.output_names), owner)
        found.append(owner)
    return found


def _kernel(node: onnx.NodeProto, known: Mapping[str, Tensor], stored: set[str]) -> Kernel:
    import onnx

    attributes = [
        (a.name, _plain(onnx.helper.get_attribute_value(a)))
        for a in node.attribute
        if a.type in (a.INT, a.INTS, a.STRING)
    ]
    return Kernel(
        node=node.name,
        output=node.output[0] if node.output else "",
        op=f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type,
        inputs=tuple(known.get(name) for name in node.input),
        outputs=tuple(known.get(name) for name in node.output if name),
        constants=tuple(name in stored for name in node.input),
        attributes=tuple(sorted(attributes)),
        input_names=tuple(node.input),
        output_names=tuple(node.output),
    )


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else tuple(value) if hasattr(value, "__iter__") else value


def _text(tensor: Tensor | None) -> str:
    if tensor is None:
        return "-"
    sizes = "?" if tensor.shape is None else ",".join(map(str, tensor.shape))
    return f"{TYPES.get(tensor.dtype, tensor.dtype)}[{sizes}]"


def _recurrent_work(inputs: Sequence[Tensor | None]) -> int:
    """Return the multiply-adds of an LSTM or GRU: every step of every sequence meets all of both weights."""
    shapes = [None if tensor is None else tensor.shape for tensor in inputs[:3]]
    if len(shapes) < 3 or any(shape is None for shape in shapes):
        return 0
    return math.prod(shapes[0][:-1]) * sum(math.prod(shape) for shape in shapes[1:] if shape)  # type: ignore[index]


def integer_reads(optimized: Path | bytes) -> Counter[str]:
    """Return how many convolutions and matrix products in integers read each tensor of an optimised graph.

    `session.open_session` with ``optimized_path`` writes such a graph.
    """
    graph = loaded(optimized).graph
    return Counter(name for node in graph.node if node.op_type in INTEGER for name in node.input if name)


def loaded(optimized: Path | bytes) -> onnx.ModelProto:
    """Return a graph; weights that lie beside it are left there."""
    import onnx

    if isinstance(optimized, bytes):
        return onnx.load_model_from_string(optimized)
    return onnx.load(optimized, load_external_data=False)
