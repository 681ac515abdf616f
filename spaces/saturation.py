"""Whether this machine's integer kernels saturate.

On x86 processors without VNNI, ONNX Runtime adds the products of uint8 activations and int8 weights in pairs to 16 bits, and
what does not fit is cut off: 2 * 255 * 127 is 64,770, the largest is 32,767. Weights of at most 7 bits always fit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .emit import IR_VERSION, OPSET
from .session import CPU, infer, open_session
from .space import Space

ACTIVATION, WEIGHT = 255, 127  # the largest there are
SHAPES = {"Conv": ((1, 16, 8, 8), (16, 16, 3, 3), (1, 16, 6, 6)), "MatMul": ((1, 9, 16), (16, 16), (1, 9, 16))}


@lru_cache
def saturates(provider: str = CPU) -> bool:
    """Return whether a convolution or a matrix product with 8-bit weights comes out wrong here.

    Both are run once in a process, on the largest integers there are, whose sums are known.

    Raises:
        InputError: the provider is not there.
        BuildError: it runs no integers.
    """
    return not all(_is_exact(op, lambda model: open_session(model, provider=provider)) for op in SHAPES)


def saturation_notes(space: Space, provider: str = CPU, opened: Callable[[bytes], Any] | None = None) -> list[str]:
    """Say it where a search may give integer layers 8-bit weights on a machine that saturates.

    Args:
        space: of the search.
        provider: execution provider.
        opened: opens a model where the search's models run, where that is another machine than this.
    """
    choices = (choice for options in space.choices.values() for choice in options)
    if not any(choice.integer and choice.weight_bits == 8 for choice in choices):
        return []
    if not (saturates(provider) if opened is None else not all(_is_exact(op, opened) for op in SHAPES)):
        return []
    return [
        "8-bit integer weights saturate on this processor (it has no VNNI), which costs quality; "
        "target.saturation_safe = true keeps integer weights to at most 7 bits"
    ]


def _is_exact(op: str, opened: Callable[[bytes], Any]) -> bool:
    """Return whether the largest products add up to what they should: the largest output."""
    from onnx import numpy_helper, parser

    read, weights, written = SHAPES[op]
    scale = math.prod(weights) // 16 * WEIGHT  # of the output: its code is then the activation's
    model = parser.parse_model(
        f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]> largest '
        f"(uint8{list(read)} x) => (uint8{list(written)} y) {{ a = DequantizeLinear(x, one, zero)\n"
        f"b = DequantizeLinear(w, one)\n c = {op}(a, b)\n y = QuantizeLinear(c, scale, zero) }}"
    )
    constants = {
        "one": np.float32(1),
        "zero": np.uint8(0),
        "scale": np.float32(scale),
        "w": np.full(weights, WEIGHT, np.int8),
    }
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    session = opened(model.SerializeToString())
    found = infer(session, {"x": np.full(read, ACTIVATION, np.uint8)}, 1)
    return bool((found == ACTIVATION).all())
