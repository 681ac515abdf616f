"""Writing a new ONNX graph: values, constants stored once, short names, local functions."""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .packing import DOMAIN, bias_function, sparse_function, unpack_function

if TYPE_CHECKING:
    import onnx_ir as ir

OPSET = 21
FLOAT = 1  # ONNX's number of the type
IR_VERSION = 10  # of opset 21: ONNX Runtime 1.20 and later


class Emitter:
    """Collects the nodes of a new graph. Nodes remember the layer they were written for, for profiles and checks."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[ir.Node] = []
        self.owners: dict[int, str] = {}
        self.owner = ""
        self._constants: dict[Any, ir.Value] = {}
        self._functions: dict[str, ir.Function] = {}

    def constant(self, array: Any, *, shared: bool = True) -> ir.Value:
        """Return an initializer; equal small arrays are stored once."""
        import onnx_ir as ir

        array = np.ascontiguousarray(array) if np.ndim(array) else np.asarray(array)
        key: Any = (
            (array.dtype.str, array.shape, array.tobytes()) if shared and array.nbytes <= 4096 else len(self._constants)
        )
        if key not in self._constants:
            value = ir.Value(
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.Tensor(array),  # what `ir.tensor` makes of an array, without asking what it is
            )
            self._constants[key] = value
        return self._constants[key]

    def op(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> ir.Value:
        """Add a node with one output and return that."""
        return self.ops(op_type, inputs, 1, domain=domain, attributes={**(attributes or {}), **more})[0]

    def ops(
        self,
        op_type: str,
        inputs: Any,
        outputs: int,
        *,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> list[ir.Value]:
        """Add a node with several outputs."""
        import onnx_ir as ir

        node = ir.node(op_type, list(inputs), attributes or {}, domain=domain, num_outputs=outputs)
        node.name = ""
        self.nodes.append(node)
        self.owners[id(node)] = self.owner
        return list(node.outputs)

    def unpack(self, bits: int, planes: list[np.ndarray], shape: tuple[int, ...], zero: np.ndarray) -> ir.Value:
        """Call the function that unpacks weights of ``bits``."""
        return self._unpack(f"Unpack{bits}", lambda: unpack_function(bits, self.opset), planes, shape, zero)

    def unpack_sparse(
        self, bits: int, packed: list[np.ndarray], shape: tuple[int, ...], zero: np.ndarray | None = None
    ) -> ir.Value:
        """Call the function that puts the weights that are not zero where the bitmask says (`packing.pack_sparse`).

        ``zero`` is for weights below 8 bits.
        """
        return self._unpack(f"Sparse{bits}", lambda: sparse_function(bits, self.opset), packed, shape, zero)

    def integer_bias(self, bias: np.ndarray, input_scale: ir.Value, weight_scale: ir.Value) -> ir.Value:
        """Call the function that turns a float bias into the int32 one of an integer kernel."""
        self._need("Bias", lambda: bias_function(self.opset))
        return self.op("Bias", self.constant(bias, shared=False), input_scale, weight_scale, domain=DOMAIN)

    def finish(self, inputs: list[ir.Value], outputs: list[tuple[str, ir.Value]]) -> ir.Model:
        """Return the model; ``outputs`` are (name, value), and all other values get short names."""
        import onnx_ir as ir
        import onnx_ir.passes.common as passes

        final = []
        for name, value in outputs:
            if value.producer() is None or value.name is not None:
                value = self.op("Identity", value)
            value.name = name
            final.append(value)
        taken = {value.name for value in [*inputs, *final]}
        names = (name for name in _short_names() if name not in taken)
        used = {id(value) for node in self.nodes for value in node.inputs if value is not None}
        constants = [value for value in self._constants.values() if id(value) in used]
        for value in constants:
            value.name = next(names)
        for node in self.nodes:
            for value in node.outputs:
                if value.name is None:
                    value.name = next(names)
        domains = {node.domain for node in self.nodes} - {"", "ai.onnx", DOMAIN}
        imports = {"": self.opset} | ({DOMAIN: 1} if self._functions else {}) | dict.fromkeys(sorted(domains), 1)
        graph = ir.Graph(inputs, final, nodes=self.nodes, initializers=constants, opset_imports=imports, name="g")
        functions = [self._functions[name] for name in sorted(self._functions)]
        model = ir.Model(graph, ir_version=IR_VERSION, producer_name="slimfront", functions=functions)
        passes.RemoveUnusedNodesPass()(model)
        return model

    def _unpack(
        self,
        name: str,
        make: Callable[[], ir.Function],
        packed: list[np.ndarray],
        shape: tuple[int, ...],
        zero: np.ndarray | None,
    ) -> ir.Value:
        self._need(name, make)
        stored = [self.constant(array, shared=False) for array in packed]
        arguments = [
            *stored,
            self.constant(np.array(shape, np.int64)),
            *([] if zero is None else [self.constant(zero)]),
        ]
        return self.op(name, *arguments, domain=DOMAIN)

    def _need(self, name: str, make: Callable[[], ir.Function]) -> None:
        if name not in self._functions:
            self._functions[name] = make()


def _short_names() -> Iterator[str]:
    for length in itertools.count(1):
        for letters in itertools.product(string.ascii_letters, repeat=length):
            yield "".join(letters)
