"""Packed weights, against bit arithmetic in NumPy and against the unpacking function in a real session."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.emit import IR_VERSION, OPSET
from slimfront.spaces.packing import DOMAIN, pack, packed_bytes, planes, unpack_function
from slimfront.spaces.rounding import Grid

WIDTHS = (2, 3, 4, 5, 6, 7)
widths = st.sampled_from(WIDTHS)


def unpacked_bit_by_bit(packed: list[np.ndarray], bits: int, count: int) -> np.ndarray:
    """Read the planes with Python integers, one code at a time."""
    codes = [0] * count
    low = bits
    for plane, width in zip(packed, planes(bits), strict=True):
        low -= width
        for position in range(count):
            byte, part = position % len(plane), position // len(plane)
            codes[position] |= (int(plane[byte]) >> (part * width) & (1 << width) - 1) << low
    return np.array(codes, np.uint8)


@given(bits=widths, count=st.integers(1, 70), data=st.data())
def test_planes_hold_every_bit_of_every_code(bits, count, data):
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=count, max_size=count)), np.uint8)
    packed = pack(codes, bits)
    assert all(plane.dtype == np.uint8 for plane in packed)
    assert np.array_equal(unpacked_bit_by_bit(packed, bits, count), codes)


@given(bits=widths, count=st.integers(1, 10_000))
def test_packed_size_is_the_bits_of_the_count_rounded_up_to_eight(bits, count):
    stored = sum(plane.nbytes for plane in pack(np.zeros(count, np.uint8), bits))
    assert stored == packed_bytes(count, bits)
    assert bits * count / 8 <= stored < bits * (count + 8) / 8


def test_eight_bits_take_a_byte_each():
    assert packed_bytes(13, 8) == 13


@pytest.mark.parametrize("bits", WIDTHS)
def test_planes_are_powers_of_two_that_add_up(bits):
    assert sum(planes(bits)) == bits
    assert all(width & (width - 1) == 0 for width in planes(bits))


def unpacking_model(bits: int, steps: np.ndarray, zero: np.ndarray) -> bytes:
    """A model whose output is the unpacked int8 tensor, as int32."""
    import onnx_ir as ir

    def stored(name: str, array: np.ndarray) -> ir.Value:
        kind = ir.TensorType(ir.DataType.from_numpy(array.dtype))
        return ir.Value(name=name, shape=ir.Shape(array.shape), type=kind, const_value=ir.tensor(array))

    constants = [stored(f"p{i}", plane) for i, plane in enumerate(pack(steps, bits))]
    constants += [stored("shape", np.array(steps.shape, np.int64)), stored("zero", zero)]
    call = ir.node(f"Unpack{bits}", constants, domain=DOMAIN)
    cast = ir.node("Cast", [call.outputs[0]], {"to": ir.DataType.INT32})
    call.outputs[0].name, cast.outputs[0].name = "codes", "y"
    cast.outputs[0].type = ir.TensorType(ir.DataType.INT32)
    cast.outputs[0].shape = ir.Shape(steps.shape)
    graph = ir.Graph(
        [],
        [cast.outputs[0]],
        nodes=[call, cast],
        initializers=constants,
        opset_imports={"": OPSET, DOMAIN: 1},
        name="g",
    )
    model = ir.Model(graph, ir_version=IR_VERSION, functions=[unpack_function(bits, OPSET)])
    return ir.to_proto(model).SerializeToString()


@settings(max_examples=40, deadline=None)
@given(
    bits=widths,
    shape=st.sampled_from([(1,), (3, 5), (2, 3, 3, 3), (4, 1, 5, 5), (16, 8), (1, 1, 1, 1), (7, 9)]),
    per_channel=st.booleans(),
    optimize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_session_unpacks_exactly_the_codes(bits, shape, per_channel, optimize, seed):
    from slimfront.spaces.session import open_session

    random = np.random.default_rng(seed)
    steps = random.integers(0, 2**bits, shape).astype(np.uint8)
    offsets = Grid(bits).zeros
    zero = random.choice(offsets, (shape[0], *[1] * (len(shape) - 1))) if per_channel else offsets[0]
    session = open_session(unpacking_model(bits, steps, np.asarray(zero, np.uint8)), optimize=optimize)
    expected = Grid(bits).step * steps.astype(np.int64) - np.asarray(zero)
    assert expected.min() >= -128 and expected.max() <= 127
    assert np.array_equal(session.run(None, {})[0], expected)


@pytest.mark.parametrize("bits", WIDTHS)
def test_unpacking_disappears_when_the_file_is_opened(bits, tmp_path):
    from slimfront.spaces.session import open_session

    steps = np.arange(40, dtype=np.uint8).reshape(8, 5) % 2**bits
    path = tmp_path / "optimized.onnx"
    open_session(unpacking_model(bits, steps, np.asarray(Grid(bits).zeros[0], np.uint8)), optimized_path=path)
    assert len(onnx.load(path).graph.node) == 0
