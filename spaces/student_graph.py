"""A student as a graph: from the input's size down to the coarse size, blocks there, up to the fine size, and out.

Sizes are told as parts of the output's. On the way up the tensors of the way down are added (Ronneberger et al.: U-Net, MICCAI
2015, with sums in place of joining). The last layer writes all pixels of a fine position, which depth to space spreads out
(Shi et al.: Real-Time Single Image Super-Resolution, CVPR 2016). Where the input is an image of as many channels as the output
its nearest neighbours are added in the end, so that only the difference is learned.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .emit import IR_VERSION, OPSET
from .errors import BuildError
from .graph import Graph, Port
from .student import Student

if TYPE_CHECKING:
    import onnx_ir as ir

KERNEL = 3
SMALL = 0.1  # the first weights of what is added to something, in parts of their usual size
STEM, LAST = "stem", "out"  # the layers that read the input and write the output


def scale_of(inputs: Port, output: Port) -> int | None:
    """Return how many times larger than the input the output is along both axes; None where the input is no image.

    Raises:
        BuildError: no student has such an input or output: not [N, C, H, W] from [N, C, H, W] or [N, C], or no power of 2.
    """
    shapes = f"an input of shape {list(inputs.shape)} and an output of shape {list(output.shape)}"
    if len(output.shape) != 4 or len(inputs.shape) not in (2, 4):
        raise BuildError(f"no student for {shapes}: the output must be [N, C, H, W], the input that or [N, C]")
    if len(inputs.shape) == 2 or inputs.shape[2:] == (1, 1):
        return None
    scales = {large / small for small, large in zip(inputs.shape[2:], output.shape[2:], strict=True)}
    scale = min(scales)
    if len(scales) > 1 or scale < 1 or scale != int(scale) or int(scale) & (int(scale) - 1):
        raise BuildError(f"no student for {shapes}: the output must be 1, 2, 4, 8, ... times as large along both axes")
    return int(scale)


def student_graph(
    student: Student, inputs: Port, output: Port, weights: Mapping[str, NDArray] | None = None, seed: int = 0
) -> Graph:
    """Return a student's graph.

    Layers are named by their place ("stem 2", "down 4", "coarse 0 conv1", "up 2", "fine 0 conv1", "out 2"), so that students of
    other widths and depths have the same names: weights of a smaller one are the first channels of a larger one's.

    Args:
        student: the architecture.
        inputs, output: of the reference: their names, shapes and free axes are the student's too.
        weights: by name; those that are not given are drawn (He et al.: Delving Deep into Rectifiers, ICCV 2015).
        seed: of what is drawn.

    Raises:
        BuildError: the student does not fit the input and output.
    """
    import onnx_ir as ir

    writer = _Writer(weights or {}, seed)
    source = ir.Value(name=inputs.name, shape=ir.Shape(list(inputs.axes)), type=ir.TensorType(ir.DataType.FLOAT))
    value = _write(writer, student, source, inputs, output)
    value.name, value.type = output.name, ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(list(output.axes))
    graph = ir.Graph(
        [source],
        [value],
        nodes=writer.nodes,
        initializers=list(writer.constants.values()),
        opset_imports={"": OPSET},
        name="student",
    )
    found = Graph(ir.Model(graph, ir_version=IR_VERSION, producer_name="slimfront"), {inputs.name: inputs.shape})
    if found.outputs[0].shape != output.shape:
        raise BuildError(
            f"the student gives outputs of shape {list(found.outputs[0].shape)}, the reference {list(output.shape)}"
        )
    return found


def _write(writer: _Writer, student: Student, source: ir.Value, inputs: Port, output: Port) -> ir.Value:
    """Write a student's nodes; return what it gives."""
    scale = scale_of(inputs, output)
    sizes = student.sizes
    across: dict[int, ir.Value] = {}
    if scale is None:
        value = _from_noise(writer, student, source, inputs, output)
    else:
        begin = max(scale, student.fine)
        if begin not in sizes or any(side % (student.coarse // scale or 1) for side in inputs.shape[2:]):
            raise BuildError(
                f"the student's sizes 1/{student.coarse} to 1/{student.fine} of the output do not fit an input of 1/{scale} "
                f"of it, of shape {list(inputs.shape)}"
            )
        step = begin // scale
        value = writer.relu(
            writer.conv(f"{STEM} {begin}", source, inputs.shape[1], student.channels(begin), KERNEL * step, step)
        )
        for size in reversed(sizes[: sizes.index(begin)]):  # from begin down to coarse
            across[size // 2] = value
            narrow, wide = student.channels(size // 2), student.channels(size)
            value = writer.relu(writer.conv(f"down {size}", value, narrow, wide, KERNEL, 2))
    for number in range(student.depth):
        value = _block(writer, student, f"coarse {number}", value, student.width)
    for before, size in pairwise(sizes):
        value = _upsampled(writer, student, value, before, size)
        value = writer.relu(writer.add(value, across[size]) if size in across else value)
    for number in range(student.fine_depth):
        value = _block(writer, student, f"fine {number}", value, student.channels(student.fine))
    adds = scale is not None and inputs.shape[1] == output.shape[1]
    channels = output.shape[1] * student.fine**2
    value = writer.conv(
        f"{LAST} {student.fine}", value, student.channels(student.fine), channels, KERNEL, scale=SMALL if adds else 1.0
    )
    value = writer.spread(value, student.fine)
    return writer.add(value, writer.nearest(source, scale or 1)) if adds else value


def _from_noise(writer: _Writer, student: Student, source: ir.Value, inputs: Port, output: Port) -> ir.Value:
    """Write the first layer of a student that makes pictures of noise ``[N, C]`` or ``[N, C, 1, 1]``."""
    rest = [side % student.coarse for side in output.shape[2:]]
    if any(rest):
        raise BuildError(
            f"the student's coarse size is 1/{student.coarse} of the output, which does not divide its shape "
            f"{list(output.shape)}"
        )
    high, wide = (side // student.coarse for side in output.shape[2:])
    count = inputs.shape[1]
    flat = source if len(inputs.shape) == 2 else writer.reshaped(source, [-1, count])
    value = writer.product(f"{STEM} {student.coarse}", flat, count, high * wide * student.width)
    return writer.relu(writer.reshaped(value, [-1, student.width, high, wide]))


def _block(writer: _Writer, student: Student, name: str, value: ir.Value, width: int) -> ir.Value:
    if student.block == "plain":
        for part in ("plain1", "plain2"):
            value = writer.relu(writer.conv(f"{name} {part}", value, width, width, KERNEL))
        return value
    inner = value
    if student.block == "separable":
        for part in ("1", "2"):
            inner = writer.conv(f"{name} depthwise{part}", inner, width, width, KERNEL, group=width)
            last = part == "2"
            inner = writer.conv(f"{name} pointwise{part}", inner, width, width, 1, scale=SMALL if last else 1.0)
            inner = inner if last else writer.relu(inner)
    else:
        inner = writer.relu(writer.conv(f"{name} conv1", inner, width, width, KERNEL))
        inner = writer.conv(f"{name} conv2", inner, width, width, KERNEL, scale=SMALL)
    return writer.add(value, inner)


def _upsampled(writer: _Writer, student: Student, value: ir.Value, before: int, size: int) -> ir.Value:
    """Write the way from a size to the next finer one."""
    wide, narrow = student.channels(before), student.channels(size)
    if student.upsampling == "resize":
        return writer.nearest(writer.conv(f"up {size} resize", value, wide, narrow, 1), 2)
    return writer.spread(writer.conv(f"up {size}", value, wide, 4 * narrow, 1), 2)


class _Writer:
    """Collects a graph's nodes and weights; layers and weights are known by name."""

    def __init__(self, weights: Mapping[str, NDArray], seed: int) -> None:
        self.weights = weights
        self.seed = seed
        self.nodes: list[ir.Node] = []
        self.constants: dict[str, ir.Value] = {}

    def conv(
        self,
        name: str,
        value: ir.Value,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        group: int = 1,
        scale: float = 1.0,
    ) -> ir.Value:
        """Add a convolution that keeps the size, or divides it by the stride."""
        pads = [(kernel - stride + 1) // 2] * 2 + [(kernel - stride) // 2] * 2
        shape = (outputs, inputs // group, kernel, kernel)
        attributes = {"strides": [stride] * 2, "pads": pads, "group": group, "kernel_shape": [kernel] * 2}
        weight = self._weight(f"{name} weight", shape, inputs // group * kernel**2, scale)
        return self.node("Conv", name, [value, weight, self._bias(f"{name} bias", outputs)], attributes)

    def product(self, name: str, value: ir.Value, inputs: int, outputs: int) -> ir.Value:
        """Add a matrix product."""
        weight = self._weight(f"{name} weight", (inputs, outputs), inputs, 1.0)
        return self.node("Gemm", name, [value, weight, self._bias(f"{name} bias", outputs)])

    def relu(self, value: ir.Value) -> ir.Value:
        """Add a Relu."""
        return self.node("Relu", "", [value])

    def add(self, value: ir.Value, other: ir.Value) -> ir.Value:
        """Add a sum."""
        return self.node("Add", "", [value, other])

    def spread(self, value: ir.Value, times: int) -> ir.Value:
        """Add a depth to space in PyTorch's order, in which the first outputs come of the first inputs."""
        if times == 1:
            return value
        return self.node("DepthToSpace", "", [value], {"blocksize": times, "mode": "CRD"})

    def nearest(self, value: ir.Value, times: int) -> ir.Value:
        """Add an upsampling by nearest neighbours."""
        if times == 1:
            return value
        scales = self._constant(f"times {times}", np.array([1, 1, times, times], np.float32))
        how = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
        return self.node("Resize", "", [value, None, scales], how)

    def reshaped(self, value: ir.Value, shape: list[int]) -> ir.Value:
        """Add a Reshape."""
        text = " ".join(map(str, shape))
        return self.node("Reshape", "", [value, self._constant(f"shape {text}", np.array(shape, np.int64))])

    def node(
        self, op: str, name: str, inputs: list[ir.Value | None], attributes: Mapping[str, Any] | None = None
    ) -> ir.Value:
        """Add a node; return its output."""
        import onnx_ir as ir

        name = name or f"{op.lower()} {len(self.nodes)}"
        node = ir.node(op, inputs, dict(attributes or {}), name=name)
        node.outputs[0].name = f"{name} output"
        self.nodes.append(node)
        return node.outputs[0]

    def _weight(self, name: str, shape: tuple[int, ...], fan_in: int, scale: float) -> ir.Value:
        array = self.weights.get(name)
        if array is None:
            digest = hashlib.sha256(name.encode()).digest()
            random = np.random.default_rng([self.seed, int.from_bytes(digest[:4], "little")])
            array = random.standard_normal(shape) * scale * np.sqrt(2.0 / fan_in)
        return self._constant(name, np.asarray(array, np.float32))

    def _bias(self, name: str, count: int) -> ir.Value:
        return self._constant(name, np.asarray(self.weights.get(name, np.zeros(count)), np.float32))

    def _constant(self, name: str, array: NDArray) -> ir.Value:
        import onnx_ir as ir

        if name not in self.constants:
            self.constants[name] = ir.Value(
                name=name,
                shape=ir.Shape(array.shape),
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                const_value=ir.Tensor(array, name=name),
            )
        return self.constants[name]
