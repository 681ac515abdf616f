"""In which steps of output channels this machine's convolutions get cheaper: what makes a width worth pruning to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..spaces.cache import Store, content_hash
from ..spaces.widths import STEP
from .device.engine import Slot

if TYPE_CHECKING:
    from .target import Target

STEPS = (4, 8, 16, 32)
WIDTH = 64  # channels of the convolution that is timed, on [1, 64, SIDE, SIDE]
SIDE = 24
ROUNDS = 60
EXPECTED = 0.3  # of what the multiply-adds promise: a step that saves less is none
VERSION = 1


def kernel_step(target: Target, integer: bool) -> int:
    """Return the step in which the time of a 3x3 convolution falls with its output channels: 4, 8, 16 or 32.

    Measured once for each target, by its fingerprint, and kept in the user's cache, so that a
    study offers the same widths each time. Convolutions of 64 - s outputs are timed in turn with that of 64; s is a step
    where a good part of what the multiply-adds promise is saved.
    """
    store = Store(content_hash("widths", VERSION, target.fingerprint, integer))
    known = store.arrays("step")
    if known is None:
        ratios = _time_ratios(target, integer)
        steps = [step for step in STEPS if 1 - ratios[step] >= EXPECTED * step / WIDTH]
        known = {"step": np.array(min(steps, default=STEP))}
        store.put_arrays("step", known)
    return int(known["step"])


def _time_ratios(target: Target, integer: bool) -> dict[int, float]:
    """Return the time of a convolution of 64 - s outputs in parts of that of 64, for each step s."""
    random = np.random.default_rng(0)
    feed = {"x": random.random((1, WIDTH, SIDE, SIDE), np.float32)}
    form = target.rules.format
    models = [_convolution(WIDTH - step, integer, random, form.pack is not None) for step in (0, *STEPS)]
    slots = [Slot(target.open(form.packed(model, {"x": feed["x"].shape})), feed) for model in models]
    with target.alone():
        times = np.array([target.timed(slots) for _ in range(ROUNDS)])
    ratios = np.median(times / times[:, :1], axis=0)  # within a round: what disturbs one disturbs the others
    return dict(zip(STEPS, ratios[1:].tolist(), strict=True))


def _convolution(outputs: int, integer: bool, random: np.random.Generator, float_ends: bool = False) -> bytes:
    """Return a model of four 3x3 convolutions from 64 channels to ``outputs``, in float or integer kernels.

    Args:
        outputs: channels.
        integer: whether integer kernels run.
        random: draws weights.
        float_ends: whether what they write is given in float, as files of some runtimes have it.
    """
    from onnx import TensorProto, helper, numpy_helper

    tensors, nodes = [], []

    def constant(name: str, array: Any) -> str:
        tensors.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def op(kind: str, *inputs: str, output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    grid = (constant("scale", np.float32(0.01)), constant("zero", np.uint8(0)))
    x = "x"
    if integer:
        x = op("DequantizeLinear", op("QuantizeLinear", "x", *grid, output="xq"), *grid, output="xd")
    results = []
    for number in range(4):
        shape = (outputs, WIDTH, 3, 3)
        if integer:
            codes = constant(f"w{number}", random.integers(-127, 128, shape).astype(np.int8))
            scales = constant(f"s{number}", np.full(outputs, 0.01, np.float32))
            weight = op("DequantizeLinear", codes, scales, output=f"wd{number}", axis=0)
        else:
            weight = constant(f"w{number}", random.random(shape, np.float32))
        y = op("Conv", x, weight, output=f"c{number}", pads=[1, 1, 1, 1])
        y = op("QuantizeLinear", y, *grid, output=f"q{number}") if integer else y
        results.append(op("DequantizeLinear", y, *grid, output=f"y{number}") if integer and float_ends else y)
    kind = TensorProto.UINT8 if integer and not float_ends else TensorProto.FLOAT
    outs = [helper.make_tensor_value_info(name, kind, [1, outputs, SIDE, SIDE]) for name in results]
    ins = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, WIDTH, SIDE, SIDE])]
    graph = helper.make_graph(nodes, "widths", ins, outs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return bytes(model.SerializeToString())
