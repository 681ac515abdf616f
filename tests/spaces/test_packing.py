"""Packed weights, against bit arithmetic in NumPy and against the unpacking function in a real session."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces.emit import IR_VERSION, OPSET
from slimfront.spaces.packing import (
    DOMAIN,
    is_sparse,
    pack,
    pack_sparse,
    packed_bytes,
    planes,
    sparse_bytes,
    sparse_function,
    sparse_widths,
    stored_bytes,
    unpack_function,
)
from slimfront.spaces.rounding import Grid

WIDTHS = (2, 3, 4, 5, 6, 7)
ALL_WIDTHS = (*WIDTHS, 8, 16, 32)
TYPES = {8: np.int8, 16: np.float16, 32: np.float32}
widths = st.sampled_from(WIDTHS)
shapes = st.sampled_from([(1,), (3, 5), (2, 3, 3, 3), (4, 1, 5, 5), (16, 8), (1, 1, 1, 1), (7, 9)])


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


def calling_model(function, arrays: list[np.ndarray], shape: tuple[int, ...]) -> bytes:
    """A model whose output is what an unpacking function makes of the arrays, as float32."""
    import onnx_ir as ir

    constants = [
        ir.Value(
            name=f"c{number}",
            shape=ir.Shape(array.shape),
            type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
            const_value=ir.tensor(array),
        )
        for number, array in enumerate(arrays)
    ]
    call = ir.node(function.name, constants, domain=DOMAIN)
    cast = ir.node("Cast", [call.outputs[0]], {"to": ir.DataType.FLOAT})
    call.outputs[0].name, cast.outputs[0].name = "w", "y"
    cast.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    cast.outputs[0].shape = ir.Shape(shape)
    graph = ir.Graph(
        [],
        [cast.outputs[0]],
        nodes=[call, cast],
        initializers=constants,
        opset_imports={"": OPSET, DOMAIN: 1},
        name="g",
    )
    model = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION, functions=[function]))
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def unpacking_model(bits: int, steps: np.ndarray, zero: np.ndarray) -> bytes:
    """A model whose output are the codes that steps and offset stand for."""
    arrays = [*pack(steps, bits), np.array(steps.shape, np.int64), zero]
    return calling_model(unpack_function(bits, OPSET), arrays, steps.shape)


@settings(max_examples=40, deadline=None)
@given(
    bits=widths,
    shape=shapes,
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


# --- bitmask and values ---------------------------------------------------------------------------------------------


def sparse_weights(bits: int, shape: tuple[int, ...], sparsity: float, per_channel: bool, seed: int):
    """Return a mask, values to store, the offset of codes below 8 bits, and the weights that these are."""
    random = np.random.default_rng(seed)
    mask = random.random(shape) >= sparsity
    if bits >= 8:
        values = np.clip(90 * random.standard_normal(shape), -127, 127).astype(TYPES[bits])
        return mask, values, None, np.where(mask, values, 0).astype(np.float32)
    steps = random.integers(0, 2**bits, shape).astype(np.int16)
    offsets = Grid(bits).zeros
    zero = random.choice(offsets, (shape[0], *[1] * (len(shape) - 1))) if per_channel else offsets[0]
    codes = np.where(mask, Grid(bits).step * steps - np.asarray(zero), 0)
    return mask, steps, np.asarray(zero, np.uint8), codes.astype(np.float32)


def sparse_model(bits: int, mask: np.ndarray, values: np.ndarray, zero: np.ndarray | None) -> bytes:
    arrays = [*pack_sparse(mask, values, bits), np.array(mask.shape, np.int64), *([] if zero is None else [zero])]
    return calling_model(sparse_function(bits, OPSET), arrays, mask.shape)


@settings(max_examples=60, deadline=None)
@given(
    bits=st.sampled_from(ALL_WIDTHS),
    shape=shapes,
    sparsity=st.sampled_from([0.0, 0.3, 0.75, 0.95, 1.0]),
    per_channel=st.booleans(),
    optimize=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_a_session_puts_the_values_where_the_mask_says(bits, shape, sparsity, per_channel, optimize, seed):
    from slimfront.spaces.session import open_session

    mask, values, zero, expected = sparse_weights(bits, shape, sparsity, per_channel, seed)
    session = open_session(sparse_model(bits, mask, values, zero), optimize=optimize)
    assert np.array_equal(session.run(None, {})[0], expected)


@pytest.mark.parametrize("bits", ALL_WIDTHS)
def test_the_sparse_form_disappears_when_the_file_is_opened(bits, tmp_path):
    from slimfront.spaces.session import open_session

    mask, values, zero, _ = sparse_weights(bits, (8, 5, 3, 3), 0.75, True, 0)
    path = tmp_path / "optimized.onnx"
    open_session(sparse_model(bits, mask, values, zero), optimized_path=path)
    assert len(onnx.load(path).graph.node) == 0


@given(bits=st.sampled_from(ALL_WIDTHS), shape=shapes, sparsity=st.floats(0, 1), seed=st.integers(0, 1000))
def test_the_sparse_form_takes_a_bit_a_weight_and_the_values(bits, shape, sparsity, seed):
    mask, values, _, _ = sparse_weights(bits, shape, sparsity, False, seed)
    packed = pack_sparse(mask, values, bits)
    assert sum(array.nbytes for array in packed) == sparse_bytes(mask.size, int(mask.sum()), bits)
    assert np.array_equal(unpacked_bit_by_bit(packed[:1], 1, mask.size), mask.reshape(-1))


@given(bits=st.sampled_from(ALL_WIDTHS), count=st.integers(1, 10**6), kept=st.floats(0, 1))
def test_weights_are_stored_in_the_form_that_is_smaller(bits, count, kept):
    kept = round(kept * count)
    forms = packed_bytes(count, bits), sparse_bytes(count, kept, bits)
    assert stored_bytes(count, kept, bits) in forms
    assert stored_bytes(count, kept, bits) <= min(forms) + 64  # what a longer call takes
    assert (stored_bytes(count, kept, bits) != forms[0]) == is_sparse(count, kept, bits)
    if kept:
        assert is_sparse(count, kept - 1, bits) or not is_sparse(count, kept, bits)


@pytest.mark.parametrize(("sparsity", "smallest"), [(0.1, 16), (0.3, 4), (0.5, 3), (0.75, 2)])
def test_zeros_are_left_out_where_they_save_more_than_a_bit_a_weight(sparsity, smallest):
    count = 100_000
    found = sparse_widths(count, round((1 - sparsity) * count), ALL_WIDTHS)
    assert found == {bits for bits in ALL_WIDTHS if bits * sparsity > 1} == {b for b in ALL_WIDTHS if b >= smallest}
