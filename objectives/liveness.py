"""Which buffers the tensors of a model lie in, and when each is alive: ONNX Runtime's plan for one stream.

After core/framework/allocation_planner.cc: an output is written over an input that is read for the last time where the kernel
allows it, else into a buffer of the same shape that nobody needs any more, else into one of its own. Tensors of the file and
inputs of the model are no buffers.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..spaces.kernel_shapes import Tensor
from ..spaces.kernels import Kernel

ELEMENT_BYTES = {
    1: 4,
    2: 1,
    3: 1,
    4: 2,
    5: 2,
    6: 4,
    7: 8,
    9: 1,
    10: 2,
    11: 8,
    12: 4,
    13: 8,
    16: 2,
}  # by onnx's number of a type
# Kernels whose output is their input, and those that may write over one of theirs (which).
VIEWS = ("Identity", "Reshape", "Unsqueeze", "Squeeze", "Flatten")
IN_PLACE = {
    **dict.fromkeys(("Relu", "LeakyRelu", "Elu", "Selu", "ThresholdedRelu", "Sigmoid", "HardSigmoid", "Tanh"), 0),
    **dict.fromkeys(("Softplus", "Softmax", "LogSoftmax", "Clip", "Cast"), 0),
    "com.microsoft.nchwc.Conv": 3,  # the sum that is fused into it
    "com.microsoft.FusedConv": 3,
}


@dataclass
class Buffer:
    """Memory that tensors lie in, one after another.

    Attributes:
        size: bytes.
        first, last: the kernels, by number, from which and to which it is alive, both included.
        tensors: that lie in it, by name.
        is_output: whether the model gives it out: it is then alive to the end.
    """

    size: int
    first: int
    last: int
    tensors: list[str]
    is_output: bool = False


def tensor_bytes(tensor: Tensor | None) -> int:
    """Return the bytes of a tensor; 0 of one whose shape is not known."""
    if tensor is None or tensor.shape is None:
        return 0
    return ELEMENT_BYTES.get(tensor.dtype, 4) * math.prod(tensor.shape)


def buffers(kernels: Sequence[Kernel], outputs: Sequence[str]) -> list[Buffer]:
    """Return the buffers of a model in the order in which they are taken.

    Args:
        kernels: in the order in which they run.
        outputs: names of the tensors that the model gives out.
    """
    return _Plan(kernels, outputs).buffers


def live_bytes(found: Sequence[Buffer], steps: int) -> list[int]:
    """Return the bytes that are alive while each of so many kernels runs."""
    change = [0] * (steps + 1)
    for buffer in found:
        change[buffer.first] += buffer.size
        change[buffer.last + 1] -= buffer.size
    alive, total = [], 0
    for step in range(steps):
        total += change[step]
        alive.append(total)
    return alive


class _Plan:
    """Assigns buffers, kernel by kernel."""

    def __init__(self, kernels: Sequence[Kernel], outputs: Sequence[str]) -> None:
        self.buffers: list[Buffer] = []
        self._end = len(kernels) - 1
        self._outputs = set(outputs)
        self._reads = Counter(name for kernel in kernels for name in _read(kernel))
        self._of: dict[str, Buffer] = {}
        self._left: dict[int, int] = {}  # reads to come, by a buffer's identity
        self._shapes: dict[int, Tensor] = {}  # of the first tensor of a buffer
        self._free: list[Buffer] = []  # that nobody needs any more, the last one first
        for step, kernel in enumerate(kernels):
            for number, name in enumerate(kernel.output_names):
                if name:
                    self._write(step, kernel, name, number)
            self._release(step, kernel)

    def _write(self, step: int, kernel: Kernel, name: str, number: int) -> None:
        tensor = kernel.outputs[number] if number < len(kernel.outputs) else None
        given = name in self._outputs
        if not given and number == 0 and self._views_stored(kernel):
            return
        found = None if given else self._over_input(kernel, tensor, number) or self._unneeded(tensor)
        if found is None:
            found = Buffer(tensor_bytes(tensor), step, self._end if given else step, [], given)
            self.buffers.append(found)
            self._left[id(found)] = int(given)  # whoever gets the output reads it once more
            self._shapes[id(found)] = tensor or Tensor(1, None)
        found.tensors.append(name)
        self._of[name] = found
        self._left[id(found)] += self._reads[name] + 1  # the kernel itself holds it while it runs

    def _over_input(self, kernel: Kernel, tensor: Tensor | None, number: int) -> Buffer | None:
        """Return the buffer of an input that the output is, or may be, written over."""
        if number:
            return None
        if kernel.op in VIEWS:
            return self._of.get(kernel.input_names[0])
        place = IN_PLACE.get(kernel.op, len(kernel.inputs))
        if place >= len(kernel.inputs) or not _same_size(kernel.inputs[place], tensor):
            return None
        found = self._of.get(kernel.input_names[place])
        return found if found is not None and self._left[id(found)] == 1 else None

    def _unneeded(self, tensor: Tensor | None) -> Buffer | None:
        """Return the buffer of the same shape that was freed last."""
        if tensor is None or not tensor.shape:
            return None
        found = next((free for free in self._free if _same_size(self._shapes[id(free)], tensor)), None)
        if found is not None:
            self._free = [free for free in self._free if free is not found]
        return found

    def _views_stored(self, kernel: Kernel) -> bool:
        """Whether the output is a tensor of the file or an input of the model: it takes no memory."""
        return kernel.op in VIEWS and kernel.input_names[0] not in self._of

    def _release(self, step: int, kernel: Kernel) -> None:
        for name in (*_read(kernel), *(name for name in kernel.output_names if name)):
            buffer = self._of.get(name)
            if buffer is None:
                continue
            buffer.last = max(buffer.last, step)
            self._left[id(buffer)] -= 1
            if self._left[id(buffer)] == 0:
                self._free.insert(0, buffer)


def _read(kernel: Kernel) -> Iterator[str]:
    """Yield the names of the tensors that a kernel reads and that are not stored, each as often as it is read."""
    for name, constant in zip(kernel.input_names, kernel.constants, strict=True):
        if name and not constant:
            yield name


def _same_size(first: Tensor | None, second: Tensor | None) -> bool:
    """Whether two tensors have the same known shape and elements of as many bytes."""
    if first is None or second is None or first.shape is None or first.shape != second.shape:
        return False
    return ELEMENT_BYTES.get(first.dtype) == ELEMENT_BYTES.get(second.dtype)
