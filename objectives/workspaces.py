"""What ONNX Runtime's kernels take from the arena beside their tensors: weights packed at the start, buffers while they run.

After the kernels' sources (core/providers/cpu/nn/conv_transpose.cc, core/providers/cpu/quantization, core/mlas/lib). Kernels
that are not named here take nothing, or next to nothing. Which of two ways an integer convolution goes depends on the processor:
here as on x86 with AVX2 and later.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..spaces.kernel_shapes import INT8, Tensor
from ..spaces.kernels import Kernel

FLOAT_BYTES = INT32_BYTES = 4
POINTER_BYTES = 8
OVERRUN = 256  # bytes that kernels may read beyond a buffer
COLUMN_BYTES = 128 * 128 * FLOAT_BYTES  # of a float convolution that unrolls its input part by part
CHANNEL_BLOCK, INPUT_BLOCK = 16, 4  # channels written and read that integer kernels fill up to


@dataclass(frozen=True)
class _Convolution:
    """An integer convolution.

    Attributes:
        filters, inputs, window, group: channels written, channels read by each group, pixels of the window, groups.
        pixels: that are written for an image.
        image_bytes: of the input of one image.
        last: whether channels come last, as the kernel wants them.
        symmetric: whether it goes without a product in int32 first.
        pointwise: whether it reads each pixel once, as it lies there.
    """

    filters: int
    inputs: int
    window: int
    group: int
    pixels: int
    image_bytes: int
    last: bool
    symmetric: bool
    pointwise: bool

    @property
    def depthwise(self) -> bool:
        return self.inputs == 1 and self.filters == self.group


def packed_bytes(kernel: Kernel) -> list[int]:
    """Return the bytes of each chunk that a kernel's weights are packed into when a file is opened, and which it keeps."""
    if kernel.short_op == "ConvTranspose":
        weight = _shape(kernel, 1)
        return [FLOAT_BYTES * math.prod(weight)] if len(weight) > 2 and weight[0] > 1 else []
    if kernel.short_op == "QLinearConv" and (found := _convolution(kernel)) is not None:
        inputs = -(-found.inputs // INPUT_BLOCK) * INPUT_BLOCK if not found.depthwise else 1
        filters = -(-found.filters // found.group // CHANNEL_BLOCK) * CHANNEL_BLOCK
        if found.depthwise:
            return [-(-found.group // CHANNEL_BLOCK) * CHANNEL_BLOCK * found.window]
        sums = 0 if found.symmetric else INT32_BYTES * filters
        return [found.group * (filters * inputs * found.window + sums)]
    return []


def workspace_bytes(kernel: Kernel) -> list[int]:
    """Return the bytes of each chunk that a kernel takes while it runs, in the order in which it takes them."""
    op = kernel.short_op
    if op == "ConvTranspose":
        weight, image = _shape(kernel, 1), _shape(kernel, 0)
        return [FLOAT_BYTES * math.prod(weight[1:]) * math.prod(image[2:])] if weight and image else []
    if op == "QLinearConv" and (found := _convolution(kernel)) is not None:
        return _integer_buffers(found)
    if op in ("Conv", "FusedConv") and ".nchwc." not in kernel.op:
        return [] if math.prod(_shape(kernel, 1)[2:]) == 1 else [COLUMN_BYTES]
    if op in ("QLinearMatMul", "QGemm") and kernel.outputs and kernel.outputs[0] is not None:
        return [INT32_BYTES * math.prod((kernel.outputs[0].shape or ())[-2:])]
    return []


def _integer_buffers(found: _Convolution) -> list[int]:
    written = found.filters * found.pixels
    product = [] if found.symmetric else [INT32_BYTES * written]
    moved = [] if found.last else [found.image_bytes + OVERRUN, written]
    if found.depthwise or (found.symmetric and not found.pointwise):
        return [*product, *moved, POINTER_BYTES * found.window * found.pixels]
    unrolled = [] if found.pointwise else [found.inputs * found.window * found.pixels + OVERRUN]
    return [*product, *moved, *unrolled]


def _convolution(kernel: Kernel) -> _Convolution | None:
    image, weight, written = _shape(kernel, 0), _shape(kernel, 3), _output_shape(kernel)
    if len(weight) < 3 or len(image) != len(weight) or len(written) != len(weight):
        return None
    attributes = dict(kernel.attributes)
    last, group = bool(attributes.get("channels_last", 0)), int(attributes.get("group", 1))
    filters, inputs, window = weight[0], weight[1], math.prod(weight[2:])
    depthwise = inputs == 1 and filters == group
    signed = kernel.inputs[3] is not None and kernel.inputs[3].dtype == INT8
    dense = group == 1 and filters >= CHANNEL_BLOCK and inputs % INPUT_BLOCK == 0
    still = all(step == 1 for step in attributes.get("strides", ())) and not any(attributes.get("pads", ()))
    return _Convolution(
        filters=filters,
        inputs=inputs,
        window=window,
        group=group,
        pixels=math.prod(written[1:-1] if last else written[2:]),
        image_bytes=math.prod(image[1:]),
        last=last,
        symmetric=signed and (dense or depthwise),
        pointwise=window == 1 and still,
    )


def _shape(kernel: Kernel, number: int) -> tuple[int, ...]:
    return _sizes(kernel.inputs[number]) if number < len(kernel.inputs) else ()


def _output_shape(kernel: Kernel) -> tuple[int, ...]:
    return _sizes(kernel.outputs[0]) if kernel.outputs else ()


def _sizes(tensor: Tensor | None) -> tuple[int, ...]:
    return tuple(tensor.shape) if tensor is not None and tensor.shape is not None else ()
