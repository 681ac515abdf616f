"""Sparsity: exact counts, weights that are least squares, masks near the best there is; and the files of sparse layers."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.spaces import sparsity as sparsity_module
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.lowering import Lowering
from slimfront.spaces.packing import DOMAIN, sparse_widths
from slimfront.spaces.repaired import RoundedLayer
from slimfront.spaces.rounding import METHODS as ROUNDING
from slimfront.spaces.rounding import damped, output_error
from slimfront.spaces.rules import ONNX_RUNTIME
from slimfront.spaces.sparsity import METHODS
from slimfront.spaces.weights import per_channel

from .random_layers import layers_of, weights_and_inputs

METHOD_NAMES = sorted(METHODS)


def a_layer(seed: int, rows: int, inputs: int, samples: int, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Return weights [R, D] and the Gram matrix of random correlated inputs; few samples make it singular."""
    weights, x = weights_and_inputs(seed, rows, inputs, samples, scale)
    return weights, (x.T @ x / samples).astype(np.float32)


layers = layers_of(a_layer)
fractions = st.one_of(st.sampled_from([0.0, 0.5, 0.75]), st.floats(0, 1, exclude_max=True))


@pytest.mark.parametrize("method", METHOD_NAMES)
@settings(max_examples=60, deadline=None)
@given(layer=layers, sparsity=fractions, structural=st.booleans(), with_gram=st.booleans())
def test_exactly_the_fraction_of_the_weights_that_are_there_is_zeroed(method, layer, sparsity, structural, with_gram):
    weights, gram = layer
    present = np.random.default_rng(0).random(weights.shape) < 0.7 if structural else np.ones(weights.shape, bool)
    found = METHODS[method]().sparsify(
        weights * present, gram if with_gram else None, sparsity, present if structural else None
    )
    kept, sparse = found
    assert kept.dtype == bool and sparse.dtype == np.float32 and kept.shape == sparse.shape == weights.shape
    assert kept.sum() == present.sum() - round(sparsity * present.sum())
    assert not kept[~present].any() and not sparse[~kept].any()
    assert np.isfinite(sparse).all()


@given(layer=layers, sparsity=fractions)
def test_magnitude_keeps_the_largest_weights_as_they_are(layer, sparsity):
    weights, gram = layer
    kept, sparse = METHODS["magnitude"]().sparsify(weights, gram, sparsity)
    assert np.array_equal(sparse[kept], weights[kept])
    if kept.any() and not kept.all():
        assert np.abs(weights[kept]).min() >= np.abs(weights[~kept]).max()


@settings(max_examples=60, deadline=None)
@given(layer=layers, sparsity=fractions)
def test_second_order_is_never_worse_than_magnitude_on_its_own_objective(layer, sparsity):
    weights, gram = layer
    hessian = damped(gram)
    errors = [
        output_error(weights.astype(float), METHODS[name]().sparsify(weights, gram, sparsity)[1], hessian).sum()
        for name in ("magnitude", "second-order")
    ]
    assert errors[1] <= errors[0]


@pytest.mark.parametrize("sparsity", [0.5, 0.75])
def test_second_order_leaves_less_than_half_the_output_error_where_inputs_are_correlated(sparsity):
    weights, gram = a_layer(1, 16, 64, 1000)
    errors = [
        output_error(weights, METHODS[name]().sparsify(weights, gram, sparsity)[1], gram).sum()
        for name in ("magnitude", "second-order")
    ]
    assert errors[1] < 0.5 * errors[0]


def least_squares(weights: np.ndarray, gram: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Solve each row by NumPy's own least squares: on inputs that have the damped Gram matrix, the kept ones only."""
    x = np.linalg.cholesky(damped(gram)).T  # x^T x = gram
    solved = np.zeros(weights.shape)
    for row, allowed in enumerate(kept):
        solved[row, allowed] = np.linalg.lstsq(x[:, allowed], x @ weights[row], rcond=None)[0]
    return solved


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), sparsity=st.sampled_from([0.25, 0.5, 0.75]))
def test_the_kept_weights_solve_the_masked_least_squares_problem(seed, sparsity):
    weights, gram = a_layer(seed, 6, 12, 200)
    kept, sparse = METHODS["second-order"]().sparsify(weights, gram, sparsity)
    best = least_squares(weights, gram, kept)
    hessian = damped(gram)
    least = output_error(weights, best, hessian).sum()
    assert output_error(weights, sparse, hessian).sum() <= 1.001 * least
    assert np.abs(sparse - best).max() < 0.02 * np.abs(weights).max()


def test_the_mask_is_close_to_the_best_of_all_masks():
    ratios = {name: [] for name in METHOD_NAMES}
    for seed in range(20):
        weights, gram = a_layer(seed, 1, 8, 100)
        hessian = damped(gram)
        errors = []
        for zeroed in itertools.combinations(range(8), 4):
            kept = np.ones((1, 8), bool)
            kept[:, zeroed] = False
            errors.append(output_error(weights, least_squares(weights, gram, kept), hessian).sum())
        for name in METHOD_NAMES:
            sparse = METHODS[name]().sparsify(weights, gram, 0.5)[1]
            ratios[name].append(output_error(weights, sparse, hessian).sum() / min(errors))
    assert np.median(ratios["second-order"]) < 1.1
    assert np.median(ratios["magnitude"]) > 2


def test_weights_of_inputs_that_never_change_go_first():
    random = np.random.default_rng(2)
    weights = (random.choice([-1, 1], (4, 20)) * random.uniform(0.5, 1.5, (4, 20))).astype(np.float32)
    alive = np.repeat([True, False], 10)
    kept, sparse = METHODS["second-order"]().sparsify(weights, np.diag(alive).astype(np.float32), 0.5)
    assert kept[:, alive].all() and not kept[:, ~alive].any()
    assert np.allclose(sparse[:, alive], weights[:, alive], atol=1e-5)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_without_sparsity_nothing_changes(method):
    weights, gram = a_layer(3, 4, 20, 100)
    kept, sparse = METHODS[method]().sparsify(weights, gram, 0.0)
    assert kept.all() and np.array_equal(sparse, weights)


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_the_same_weights_are_zeroed_a_few_rows_at_a_time(method, monkeypatch):
    weights, gram = a_layer(4, 12, 30, 100)
    whole = METHODS[method]().sparsify(weights, gram, 0.6)
    monkeypatch.setattr(sparsity_module, "VALUES_AT_ONCE", 100)
    parts = METHODS[method]().sparsify(weights, gram, 0.6)
    assert np.array_equal(whole[0], parts[0]) and np.allclose(whole[1], parts[1], atol=1e-5)


# --- files ----------------------------------------------------------------------------------------------------------

SHAPES = {"Conv": (16, 12, 3, 3), "ConvTranspose": (12, 16, 4, 4), "MatMul": (48, 32), "Gemm": (32, 48)}
ATTRIBUTES = {"Conv": "<pads=[1,1,1,1]>", "ConvTranspose": "<strides=[2,2],pads=[1,1,1,1]>", "Gemm": "<transB=1>"}
FILES = [(op, bits, activation) for op in SHAPES for bits in (2, 4, 7, 8) for activation in (8, 32)]
FILES += [(op, bits, 32) for op in SHAPES for bits in (16, 32)]


def network(op: str, shape: tuple[int, ...]) -> str:
    """Return a model of one layer in ONNX's text form."""
    output = ",".join(f"n{axis}" for axis in range(len(shape)))
    return f"(float{list(shape)} x) => (float[{output}] y) {{ [k] y = {op}{ATTRIBUTES.get(op, '')}(x, w) }}"


class Sparse:
    """A model of one layer, sparsified and rounded without statistics, and its file."""

    def __init__(self, capture, op: str, weight: np.ndarray, choice: LayerChoice, left_out: bool | None = None) -> None:
        shape = [1, weight.shape[0] if op in ("ConvTranspose", "MatMul") else weight.shape[1]]
        shape += [9, 11] if "Conv" in op else []
        shape = [1, 5, shape[1]] if op == "MatMul" else shape
        kept, sparse = METHODS["magnitude"]().sparsify(weight.reshape(len(weight), -1), None, choice.sparsity)
        self.weight = sparse.reshape(weight.shape)
        self.graph = capture(network(op, tuple(shape)), w=self.weight)
        layer = self.graph.layers["k"]
        self.rounded = None
        if choice.rounded:
            self.rounded = self._round(layer, kept.reshape(weight.shape), choice.weight_bits, left_out)
            self.weight = (self.rounded.codes * per_channel(layer, self.rounded.scale)).astype(np.float32)
        if choice.weight_bits == 16:
            self.weight = self.weight.astype(np.float16).astype(np.float32)
        self.input_shape = tuple(shape)
        self.model = self.file(choice)

    def file(self, choice: LayerChoice) -> onnx.ModelProto:
        """Return the layer's weights written as another choice would."""
        import onnx_ir as ir

        candidate = Candidate({"k": choice})
        integer = ONNX_RUNTIME.integer_nodes(self.graph, candidate)
        lowering = Lowering(self.graph, candidate, integer, lambda name: (-3.0, 3.0), lambda name: self.rounded)
        return ir.to_proto(lowering.run())

    def _round(self, layer, kept: np.ndarray, bits: int, left_out: bool | None) -> RoundedLayer:
        axis = layer.channel_axis
        rows, mask = (np.moveaxis(values, axis, 0).reshape(layer.channels, -1) for values in (self.weight, kept))
        sparse = sparse_widths(kept.size, int(kept.sum()), (bits,)) if left_out is None else (bits,) * left_out
        found = ROUNDING["plain"]().round(rows, None, None, (bits,), np.arange(len(rows)), mask, sparse=sparse)[bits]
        moved = np.moveaxis(self.weight, axis, 0).shape
        return RoundedLayer(
            np.ascontiguousarray(np.moveaxis(found.codes.reshape(moved), 0, axis)), found.scale, found.zero, found.shift
        )

    @property
    def functions(self) -> list[str]:
        return [function.name for function in self.model.functions]


@pytest.mark.parametrize(("op", "bits", "activation"), FILES)
def test_a_sparse_layer_runs_like_its_dense_weights_and_its_form_disappears(
    op, bits, activation, capture, weight, noise, run, reference, optimized
):
    made = Sparse(capture, op, weight(*SHAPES[op]), LayerChoice(bits, activation, 0.75))
    assert f"Sparse{bits}" in made.functions and f"Unpack{bits}" not in made.functions
    onnx.checker.check_model(made.model, full_check=True)
    data, x = made.model.SerializeToString(), noise(*made.input_shape)
    for optimize in (True, False):
        found = run(data, x, optimize=optimize)
        if activation == 8:  # the same codes, a byte each
            dense = made.file(LayerChoice(8, 8)).SerializeToString()
            assert np.array_equal(found, run(dense, x, optimize=optimize))
        else:
            expected = reference(capture(network(op, made.input_shape), w=made.weight), x)
            assert np.abs(found - expected).max() < 1e-5
    look = optimized(data)
    unpacking = {node.op_type for function in made.model.functions for node in function.node} | {"Cast", "Mul"}
    assert not set(look.ops) & (unpacking - {"Reshape", "Slice", "DequantizeLinear"})  # these also serve the kernels
    if activation == 8 and op.startswith("Conv"):
        assert look.ops["QLinearConv"] == 1


@pytest.mark.parametrize("activation", [8, 32])
def test_at_three_quarters_zeros_and_four_bits_a_weight_takes_at_most_2_1_bits(activation, capture, weight):
    """All that a convolution's weights add to a file counts: data, scales, headers and decoding nodes."""
    made = Sparse(capture, "Conv", weight(64, 64, 3, 3), LayerChoice(4, activation, 0.75))
    nodes, constants = weight_parts(made.model.graph)
    assert any(node.op_type == "Sparse4" for node in nodes)
    size = sum(part.ByteSize() + 4 for part in [*nodes, *constants])  # each has a tag and a length in the graph
    assert size * 8 <= 2.1 * made.weight.size


def weight_parts(graph: onnx.GraphProto) -> tuple[list, list]:
    """Return the nodes and the initializers that the convolution's weight comes from."""
    writers = {name: node for node in graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    (conv,) = (node for node in graph.node if node.op_type == "Conv")
    names, nodes, constants = [conv.input[1]], [], {}
    while names:
        name = names.pop()
        if name in tensors:
            constants[name] = tensors[name]
        elif name in writers:
            nodes.append(writers[name])
            names += writers[name].input
    return nodes, list(constants.values())


@pytest.mark.parametrize(("bits", "sparsity"), [(2, 0.4), (4, 0.1), (8, 0.05)])
def test_a_layer_with_few_zeros_is_stored_densely(bits, sparsity, capture, weight):
    made = Sparse(capture, "Conv", weight(16, 12, 3, 3), LayerChoice(bits, 32, sparsity))
    assert made.functions == ([] if bits == 8 else [f"Unpack{bits}"])
    assert DOMAIN not in {node.domain for node in made.model.graph.node} or bits < 8
    assert not made.rounded.codes[made.weight == 0].any()
    assert np.mean(made.weight == 0) >= round(sparsity, 2) - 0.01


def test_codes_of_a_grid_without_zero_are_exact_even_if_few_are_zero(capture, weight, noise, run, reference):
    made = Sparse(capture, "Conv", weight(16, 12, 3, 3), LayerChoice(4, 32, 0.05), left_out=True)
    assert made.functions == ["Sparse4"]
    x = noise(*made.input_shape)
    expected = reference(capture(network("Conv", made.input_shape), w=made.weight), x)
    assert np.abs(run(made.model.SerializeToString(), x) - expected).max() < 1e-5
