"""A graph that a mobile lowering wrote, as PyTorch exports it: fixed shapes, integers between explicit rounding ops.

QuantizeLinear and DequantizeLinear become the ops `quantized_decomposed`, of which LiteRT's and ExecuTorch's converters make
integer kernels. What hangs on shapes and constants alone is worked out before. Integers are int8: uint8 with zero point z says
the same as int8 with z - 128.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import BuildError, last_line
from .mobile_ops import NUMBERED, OPS, PER_TENSOR, Op, rounded_weight
from .recurrent import GATES, R, W
from .torch_view import SIZES

if TYPE_CHECKING:
    import onnx_ir as ir

Known = Tensor | list[Tensor] | np.ndarray | None


class MobileModule(nn.Module):
    """A lowered graph in PyTorch.

    Args:
        model: with ops of ONNX alone.
        shapes: to run at, by input name.
        stored: whether weights are integers from the first; LiteRT's converter wants floats on the grid, rounded by an op.
        ops: what is exported for each op.

    Raises:
        BuildError: an op has no form in PyTorch here, or fails; it is named.
    """

    def __init__(
        self,
        model: ir.Model,
        shapes: Mapping[str, tuple[int, ...]],
        stored: bool = True,
        ops: Mapping[str, Op] = OPS,
    ) -> None:
        super().__init__()
        self._stored = stored
        self._ops = ops
        nodes = list(model.graph)
        lacking = sorted({node.op_type for node in nodes if node.op_type not in OPS or node.domain})
        if lacking:
            raise BuildError(f"no form in PyTorch for {', '.join(lacking)}")
        self.inputs = sorted(value.name or "" for value in model.graph.inputs)
        self.outputs = [value.name or "" for value in model.graph.outputs]
        constants = {
            name: value.const_value.numpy() for name, value in model.graph.initializers.items() if value.const_value
        }
        types = {value.name or "": value.dtype.numpy() for value in model.graph.inputs if value.dtype is not None}
        self.samples = tuple(torch.zeros(shapes[name], dtype=_torch_type(types[name])) for name in self.inputs)
        self._numbers, self._nodes = _worked_out(nodes, constants, dict(zip(self.inputs, self.samples, strict=True)))
        self._dequantising = {
            node.outputs[0].name or "": node for node in self._nodes if node.op_type == "DequantizeLinear"
        }
        self._own: dict[str, str] = {}
        for name in dict.fromkeys(self._read()):
            self._keep(name, self._numbers[name])
        for name in dict.fromkeys(self._read_by_direction()):
            for number, matrix in enumerate(self._numbers[name]):
                self._keep(f"{name} {number}", matrix)
        for node in self._nodes:
            if is_weight(node):
                self._keep_weight(node)

    def forward(self, *arrays: Tensor) -> tuple[Tensor, ...]:
        """Return all outputs; inputs are in the alphabetical order of their names."""
        values: dict[str, Tensor] = dict(zip(self.inputs, arrays, strict=True))
        for node in self._nodes:
            if node.op_type != "DequantizeLinear":
                given = [self._given(node, index, values) for index in range(len(node.inputs))]
                values |= _outputs(node, given, self._ops)
        return tuple(self._tensor(name, values) for name in self.outputs)

    def exported(self) -> torch.export.ExportedProgram:
        """Return it as PyTorch exports it. Raises `BuildError` where that fails."""
        try:
            with torch.no_grad():
                return torch.export.export(self.eval(), self.samples)
        except Exception as error:
            raise BuildError(f"PyTorch cannot export the model: {last_line(str(error)) or error}") from error

    def _keep(self, name: str, array: np.ndarray) -> None:
        """Make a constant one that is exported with the module."""
        self._own[name] = f"constant_{len(self._own)}"
        self.register_buffer(self._own[name], torch.from_numpy(np.array(array)))

    def _keep_weight(self, node: ir.Node) -> None:
        """Keep what a weight is made of: its integers, or floats on the grid, its scales, and zero points."""
        codes, scale = (value.name or "" for value in node.inputs[:2] if value is not None)
        weight = self._numbers[codes] if self._stored else _decoded(node, self._numbers).numpy()
        self._keep(f"{codes} weight", weight)
        self._keep(f"{codes} scale", self._numbers[scale])
        self._keep(f"{codes} zero", np.zeros(self._numbers[scale].shape, np.int64))

    def _weight(self, node: ir.Node) -> Tensor:
        codes = node.inputs[0].name if node.inputs[0] is not None else ""
        weight, scale, zero = (getattr(self, self._own[f"{codes} {part}"]) for part in ("weight", "scale", "zero"))
        return rounded_weight(weight, scale, zero, node.attributes.get_int("axis", 1))

    def _given(self, node: ir.Node, index: int, values: Mapping[str, Tensor]) -> Known:
        value = node.inputs[index]
        if value is None:
            return None
        name = value.name or ""
        if is_number(node, index):
            return self._numbers[name]
        if has_directions(node, index) and name in self._numbers:
            return [getattr(self, self._own[f"{name} {number}"]) for number in range(len(self._numbers[name]))]
        return self._tensor(name, values)

    def _tensor(self, name: str, values: Mapping[str, Tensor]) -> Tensor:
        """Return a tensor; in float from integers by an op for each reader, as ExecuTorch's partitioner needs it."""
        if name in values:
            return values[name]
        if name in self._own:
            return getattr(self, self._own[name])  # type: ignore[no-any-return]
        node = self._dequantising[name]
        if is_weight(node):
            return self._weight(node)
        given = [self._given(node, index, values) for index in range(len(node.inputs))]
        return OPS["DequantizeLinear"](node, *given)  # type: ignore[return-value]

    def _read(self) -> list[str]:
        """Return the names of the constants that nodes read as tensors, and of those that are outputs."""
        found = [name for node, index, name in self._constants() if not has_directions(node, index)]
        return [*found, *(name for name in self.outputs if name in self._numbers)]

    def _read_by_direction(self) -> list[str]:
        """Return the names of the constants that are kept as a matrix for each direction of a recurrent node."""
        return [name for node, index, name in self._constants() if has_directions(node, index)]

    def _constants(self) -> Iterator[tuple[ir.Node, int, str]]:
        """Give the constant inputs of nodes that are no numbers: node, which input, name."""
        for node in self._nodes:
            for index, value in enumerate(node.inputs):
                constant = value is not None and value.name in self._numbers
                if constant and not (is_weight(node) or is_number(node, index)):
                    yield node, index, value.name or ""  # type: ignore[union-attr]


def is_weight(node: ir.Node) -> bool:
    """Whether a node makes a weight of stored integers."""
    return node.op_type == "DequantizeLinear" and node.inputs[0] is not None and node.inputs[0].const_value is not None


def has_directions(node: ir.Node, index: int) -> bool:
    """Whether an input is weights of a recurrent node: ExecuTorch's partitioner wants matrices that nothing is cut out of."""
    return node.op_type in GATES and index in (W, R)


def is_number(node: ir.Node, index: int) -> bool:
    """Whether a constant input is numbers that the op is made with, not a tensor that it computes with."""
    return index > 0 and node.op_type in (*NUMBERED, *PER_TENSOR)


def _worked_out(
    nodes: list[ir.Node], stored: Mapping[str, np.ndarray], samples: Mapping[str, Tensor]
) -> tuple[dict[str, np.ndarray], list[ir.Node]]:
    """Run a graph once; return all tensors that hang on shapes and constants alone, and the nodes that are left."""
    constants = dict(stored)
    values: dict[str, Any] = dict(samples)
    left = []
    for node in nodes:
        names = [None if value is None else value.name or "" for value in node.inputs]
        hangs = any(name in values for name in names) and node.op_type not in SIZES
        if is_weight(node):
            found = {node.outputs[0].name or "": _decoded(node, constants)}
        else:
            given = [_as_given(node, index, name, values, constants) for index, name in enumerate(names)]
            found = _outputs(node, given)
        if hangs or node.op_type in PER_TENSOR:
            left.append(node)
            values |= found
        else:
            constants |= {name: value.numpy() for name, value in found.items()}
    return constants, left


def _decoded(node: ir.Node, constants: Mapping[str, np.ndarray]) -> Tensor:
    """Return the weight that stored integers stand for, in float."""
    codes, scale = (constants[value.name or ""] for value in node.inputs[:2] if value is not None)
    axis = node.attributes.get_int("axis", 1)
    return torch.from_numpy(codes * scale.reshape([-1 if i == axis else 1 for i in range(codes.ndim)]))


def _as_given(
    node: ir.Node, index: int, name: str | None, values: Mapping[str, Tensor], constants: Mapping[str, np.ndarray]
) -> Known:
    if name is None:
        return None
    if name in values:
        return values[name]
    if is_number(node, index):
        return constants[name]
    return torch.from_numpy(np.array(constants[name]))


def _outputs(node: ir.Node, given: list[Any], ops: Mapping[str, Op] = OPS) -> dict[str, Tensor]:
    try:
        found = ops[node.op_type](node, *given)
    except Exception as error:
        raise BuildError(f"{node.op_type} fails in PyTorch: {error}") from error
    values = [found] if isinstance(found, Tensor) else list(found)
    return {value.name or "": each for value, each in zip(node.outputs, values, strict=False)}


def _torch_type(dtype: np.dtype) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype)).dtype
