"""LSTM and GRU as layers: what their files compute, how large they are, what they lose, which of their units go."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.attribution import working_for
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import DYNAMIC, Candidate, LayerChoice
from slimfront.spaces.capture import capture_module, capture_onnx
from slimfront.spaces.graph import serialized
from slimfront.spaces.groups import channel_groups
from slimfront.spaces.narrow import kept_inputs, kept_outputs
from slimfront.spaces.packing import packed_bytes
from slimfront.spaces.prune import pruned, removed_entries
from slimfront.spaces.recurrent import inputs_name, with_inputs
from slimfront.spaces.rules import OPENVINO
from slimfront.spaces.session import open_session
from slimfront.spaces.space import make_space, uniform
from slimfront.spaces.torch_view import TorchView
from slimfront.spaces.weights import per_channel
from slimfront.spaces.work import multiply_adds

from .recurrent_models import CASES, HIDDEN, INPUTS, STEPS, Case, arrays, constants, expected, text

SAMPLES = 8


@pytest.fixture(scope="module")
def graphs(capture):
    """A function (case) that returns the captured graph."""
    found = {}

    def of(case: Case):
        if text(case) not in found:
            found[text(case)] = capture(text(case), **constants(case))
        return found[text(case)]

    return of


@pytest.fixture(scope="module")
def inputs(noise):
    """A function (case, seed) that returns one batch of inputs."""
    return lambda case, seed=0: 2 * noise(STEPS, case.batch, INPUTS, seed=seed)


@pytest.fixture(scope="module")
def builders(graphs, noise):
    """A function (case, rules=...) that returns a builder."""
    return lambda case, **more: Builder(
        graphs(case), {"x": 2 * noise(SAMPLES * STEPS, case.batch, INPUTS, seed=3)}, **more
    )


def rounded_weights(builder, candidate, name="core"):
    """Return W and R as a candidate's file has them, and what is added to the sums, by the layer's rounding."""
    layer = builder.equalised.layers[name]
    found = builder.static_layer(candidate, name)
    weight = found.codes * per_channel(layer, found.scale)
    return {"W": weight[..., :INPUTS], "R": weight[..., INPUTS:]}, found.shift.reshape(layer.shape[0], -1)


@pytest.mark.parametrize("name", CASES)
def test_a_captured_layer_computes_what_the_specification_says(name, graphs, inputs, reference):
    case = CASES[name]
    graph, x = graphs(case), inputs(case)
    layer = graph.layers["core"]
    assert (layer.op, layer.shape) == (case.op, (*arrays(case)["W"].shape[:2], INPUTS + HIDDEN))
    assert np.allclose(reference(graph, x), expected(case, x, {}), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_few_bits_computes_what_its_rounded_weights_say(name, builders, inputs, run):
    case = CASES[name]
    builder, x = builders(case), inputs(case)
    for bits in (2, 5, 8):
        candidate = Candidate({"core": LayerChoice(bits)})
        changed, shift = rounded_weights(builder, candidate)
        bias = constants(case).get("B", np.zeros((len(shift), 2 * shift.shape[1])))
        changed["B"] = bias + np.concatenate([shift, np.zeros_like(shift)], 1)
        assert np.allclose(run(builder.build(candidate), x), expected(case, x, changed), atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_weights_of_few_bits_are_unpacked_when_a_file_is_opened(name, builders, optimized):
    built = builders(CASES[name]).build(Candidate({"core": LayerChoice(3), "head": LayerChoice(3)}))
    ops = optimized(built).ops
    assert ops[CASES[name].op] == 1
    assert set(ops) <= {CASES[name].op, "Transpose", "Reshape", "Gemm"}


@pytest.mark.parametrize("name", CASES)
def test_the_view_in_pytorch_computes_what_the_runtime_does(name, graphs, inputs, reference):
    case = CASES[name]
    graph, x = graphs(case), inputs(case)
    view = TorchView(graph)
    found = view({"x": torch.from_numpy(x)})
    assert np.allclose(found.detach().numpy(), reference(graph, x), atol=1e-5)
    found.square().sum().backward()
    weight = view.weights[graph.layers["core"].weight].grad
    assert all(bool(part.any()) for part in (weight[..., :INPUTS], weight[..., INPUTS:]))


@pytest.mark.parametrize("op, bidirectional", [("LSTM", True), ("GRU", False)])
def test_a_module_of_pytorch_comes_out_as_the_op(op, bidirectional, noise):
    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = getattr(torch.nn, op)(INPUTS, HIDDEN, 2, batch_first=True, bidirectional=bidirectional)
            self.head = torch.nn.Linear(HIDDEN * (1 + bidirectional), 3)

        def forward(self, x):
            return torch.sigmoid(self.head(self.core(x)[0]))

    torch.manual_seed(0)
    graph = capture_module(Rows(), (4, STEPS, INPUTS))
    assert [layer.op for layer in graph.layers.values()] == [op, op, "MatMul"]
    builder = Builder(graph, {"input": noise(16, STEPS, INPUTS)})
    candidate = Candidate(
        {name: LayerChoice(4) for name in graph.layers}, dict.fromkeys(channel_groups(graph).groups, 0.25)
    )
    trainee, x = builder.to_torch(candidate), noise(4, STEPS, INPUTS, seed=5)
    found = open_session(builder.build(candidate).to_bytes()).run(None, {"input": x})[0]
    assert np.allclose(trainee(torch.from_numpy(x)).detach().numpy(), found, atol=1e-5)


@pytest.mark.parametrize("old", [False, True])
def test_files_of_both_exporters_of_pytorch_are_read(old, tmp_path, noise):
    module = torch.nn.LSTM(INPUTS, HIDDEN, batch_first=True).eval()
    path, x = tmp_path / "model.onnx", noise(1, STEPS, INPUTS)
    torch.onnx.export(module, (torch.from_numpy(x),), path, dynamo=not old, verbose=False)
    graph = capture_onnx(path)
    assert [layer.op for layer in graph.layers.values()] == ["LSTM"]
    built = Builder(graph, {graph.inputs[0].name: noise(8, STEPS, INPUTS)}).build(uniform(graph, {"weight_bits": 8})[0])
    found = open_session(built.to_bytes()).run(None, {graph.inputs[0].name: x})[0]
    assert np.abs(found - module(torch.from_numpy(x))[0].detach().numpy()).max() < 0.01


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_first_states_that_an_exporter_fills_with_zeros_are_left_out(op, noise, reference):
    torch.manual_seed(0)
    module = torch.nn.Sequential(getattr(torch.nn, op)(INPUTS, HIDDEN, batch_first=True), Last())
    graph = capture_module(module.eval(), (2, STEPS, INPUTS), free=(0,))
    (node,) = (node for node in graph.model.graph if node.op_type == op)
    assert all(value is None for value in node.inputs[5:])
    for batch in (1, 3):
        x = noise(batch, STEPS, INPUTS, seed=batch)
        assert np.allclose(reference(graph, x), module(torch.from_numpy(x)).detach().numpy(), atol=1e-5)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_hidden_units_can_be_removed_where_the_batch_is_free(op, noise):
    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.core = getattr(torch.nn, op)(INPUTS, HIDDEN, 2, batch_first=True)
            self.head = torch.nn.Linear(HIDDEN, 3)

        def forward(self, x):
            return self.head(self.core(x)[0])

    torch.manual_seed(0)
    module = Rows().eval()
    graph = capture_module(module, (2, STEPS, INPUTS), free=(0,))
    groups = channel_groups(graph).groups
    assert len(groups) == 2
    builder = Builder(graph, {"input": noise(16, STEPS, INPUTS)})
    pruned, whole = (
        builder.build(Candidate(dict.fromkeys(graph.layers, LayerChoice(8)), ratios)).to_bytes()
        for ratios in (dict.fromkeys(groups, 0.25), {})
    )
    for batch in (1, 5):
        x = noise(batch, STEPS, INPUTS, seed=batch)
        found = open_session(pruned).run(None, {"input": x})[0]
        assert found.shape == (batch, STEPS, 3)
        same = open_session(whole).run(None, {"input": x})[0]
        assert np.abs(same - module(torch.from_numpy(x)).detach().numpy()).max() < 0.01
    assert len(pruned) < len(whole)


class Last(torch.nn.Module):
    """Takes the states of a recurrent layer."""

    def forward(self, found):
        return found[0]


@settings(max_examples=15, deadline=None)
@given(name=st.sampled_from(sorted(CASES)), seed=st.integers(0, 99))
def test_more_bits_never_make_a_larger_error_of_the_gates(name, seed, builders):
    case = CASES[name]
    builder = builders(case, rounding=("second-order", "plain")[seed % 2])
    layer = builder.equalised.layers["core"]
    weight = builder.equalised.weight(layer)
    gram = builder.statistics.moments(layer)[0]
    errors = []
    for bits in (2, 3, 4, 5, 6, 7, 8):
        changed, _ = rounded_weights(builder, Candidate({"core": LayerChoice(bits)}))
        rows = (np.concatenate([changed["W"], changed["R"]], 2) - weight).reshape(layer.blocks, -1, weight.shape[-1])
        errors.append(float(np.einsum("grd,gde,gre->", rows, gram, rows)))
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16, 32])
def test_the_bytes_of_the_weights_are_those_of_their_codes(bits, builders):
    """Beside them a rounded layer has a scale for each row and, of two biases for each, the sum."""
    case = CASES["bidirectional lstm"]
    built = builders(case).build(Candidate({"core": LayerChoice(bits)}))
    data = [value.const_value for value in built.model.graph.initializers.values()]
    rows, columns = 2 * 4 * HIDDEN, INPUTS + HIDDEN
    stored = sum(tensor.nbytes for tensor in data if tensor.dtype.name in ("UINT8", "INT8", "FLOAT16"))
    plain = rows * columns
    if bits <= 8:
        offsets = {1, rows} if bits < 8 else {0}  # of the grid: shared, or one for each row
        assert stored - packed_bytes(plain, bits) in offsets
    else:
        floats = sum(tensor.nbytes for tensor in data if tensor.dtype.name == "FLOAT" and len(tensor.shape) == 3)
        states = 2 * 4 * 2 * case.batch * HIDDEN
        assert stored + floats - states == packed_bytes(plain, bits)


def test_rows_read_the_inputs_of_a_step_and_the_states_before(graphs, inputs):
    for name in ("bidirectional lstm", "reverse gru", "bidirectional gru"):
        case = CASES[name]
        graph, x = graphs(case), inputs(case)
        read = with_inputs(graph)
        model = read.with_outputs([inputs_name("core"), "s"])
        found, states = open_session(serialized(model)).run(None, {"x": x})
        first = arrays(case)["H"]
        blocks = found.reshape(graph.layers["core"].blocks, STEPS, case.batch, INPUTS + HIDDEN)
        each = len(blocks) // len(first)
        for d in range(len(first)):
            own = states[:, d]
            backward = d == 1 or case.attributes["direction"] == "reverse"
            before = np.concatenate([own[1:], first[d][None]] if backward else [first[d][None], own[:-1]])
            assert np.allclose(blocks[d * each, ..., :INPUTS], x)
            assert np.allclose(blocks[d * each, ..., INPUTS:], before, atol=1e-6)


def test_rounding_with_the_inputs_of_steps_beats_plain_rounding(builders, inputs, run):
    lost = Counter()
    for case in CASES.values():
        if "L" in case.inputs:
            continue
        for method in ("plain", "second-order"):
            builder = builders(case, rounding=method)
            for seed in (0, 1):
                x = inputs(case, 10 + seed)
                candidate = Candidate({"core": LayerChoice(3)})
                whole, found = (run(builder.build(each), x) for each in (Candidate(), candidate))
                lost[method] += float(np.mean((found - whole) ** 2) / np.var(whole))
    assert lost["second-order"] < 0.8 * lost["plain"]


@pytest.mark.parametrize("name", CASES)
def test_pruned_units_are_those_that_nobody_reads(name, graphs, builders, inputs, run):
    """Removed without any repair, the model is the reference whose weights for the states of these units are zero."""
    case = CASES[name]
    graph, x = graphs(case), inputs(case)
    channels = channel_groups(graph)  # a unit goes from all directions at once
    assert (channels.groups["core"].pieces, channels.groups["core"].channels) == (HIDDEN, HIDDEN)
    kept = np.array([0, 2, 3, 7])
    removed = removed_entries(channels, {"core": kept})
    gone = np.setdiff1d(np.arange(HIDDEN), kept)
    r, v = arrays(case)["R"].copy(), constants(case)["v"].copy()
    r[..., gone] = 0
    v.reshape(-1, HIDDEN, 7)[:, gone] = 0
    small = pruned(graph, removed)
    onnx.checker.check_model(onnx.load_from_string(serialized(small.model)), full_check=True)
    assert np.allclose(run(serialized(small.model), x), expected(case, x, {"R": r, "v": v}), atol=1e-5)
    layer = graph.layers["core"]
    assert len(kept_outputs(layer, removed)) == layer.channels // 2
    assert multiply_adds(small)["core"] == STEPS * case.batch * small.weight(small.layers["core"]).size


@pytest.mark.parametrize("name", ["lstm", "bidirectional gru", "lstm of sequences of several lengths"])
def test_a_pruned_and_rounded_layer_is_repaired(name, builders, inputs, run):
    builder, x = builders(CASES[name]), inputs(CASES[name], 7)
    whole = run(builder.build(Candidate()), x)
    for repair in ("static", "sequential"):
        layers = {"core": LayerChoice(8, sparsity=0.25), "head": LayerChoice(8)}
        found = run(builder.build(Candidate(layers, {"core": 0.25}, repair=repair)), x)
        assert np.mean((found - whole) ** 2) < 0.35 * np.var(whole)


def test_weights_that_are_computed_or_serve_others_are_held_with_the_reason(capture):
    values = constants(CASES["gru"])
    body = (
        text(CASES["gru"])
        .replace("[core] s = GRU", "n = Neg(W)\n m = Neg(n)\n [core] s = GRU")
        .replace("(x, W,", "(x, m,")
    )
    free = body.replace("float[6,1,5] x", "float[6,1,5] x, float[1,24,5] w").replace("n = Neg(W)", "n = Neg(w)")
    graph = capture(free, None, **{key: value for key, value in values.items() if key != "W"})
    assert graph.frozen == (("core", "its weight is not a constant"),)
    free = (
        text(CASES["gru"])
        .replace("float[6,1,5] x", "float[6,1,5] x, float[1,48] b")
        .replace("(x, W, R, B", "(x, W, R, b")
    )
    graph = capture(free, None, **{key: value for key, value in values.items() if key != "B"})
    assert graph.frozen == (("core", "its bias is not a constant"),)


def test_a_captured_graph_keeps_no_weights_but_the_joined_ones(graphs):
    graph = graphs(CASES["lstm"])
    assert graph.parameters == sum(layer.parameters for layer in graph.layers.values())


def test_weights_that_are_equal_stay_apart(capture, noise, reference):
    values = constants(CASES["gru"])
    values["W"] = values["R"] = noise(*values["R"].shape)
    hidden = values["R"].shape[2]
    graph = capture(text(CASES["gru"]).replace("float[6,1,5] x", f"float[6,1,{hidden}] x"), None, **values)
    x = noise(6, 1, hidden)
    assert graph.layers["core"].shape[-1] == 2 * hidden
    assert np.allclose(reference(graph, x), expected(CASES["gru"], x, {"W": values["W"], "R": values["R"]}), atol=1e-5)


def test_a_space_offers_float_arithmetic_only(graphs):
    graph = graphs(CASES["lstm"])
    for rules in ({}, {"rules": OPENVINO}):
        choices = make_space(graph, weight_bits=(4, 8, 32), pruning_ratios=(0.0, 0.5), step=4, **rules)
        assert {choice.activation_bits for choice in choices.choices["core"] if choice.form == "native"} == {32}
        assert {choice.weight_bits for choice in choices.choices["core"]} == {4, 8, 32}
        assert choices.ratios["core"] == (0.0, 0.5)


@pytest.mark.parametrize(
    "name", ["lstm", "gru that resets behind the product", "bidirectional lstm", "bidirectional gru"]
)
def test_files_for_openvino_compute_the_same_and_have_no_unpacking_left(name, builders, inputs, run):
    pytest.importorskip("openvino")
    from slimfront.objectives.openvino import OpenVinoSession

    case = CASES[name]
    builder, x = builders(case, rules=OPENVINO), inputs(case)
    for bits in (3, 8, 16):
        built = builder.build(Candidate({"core": LayerChoice(bits), "head": LayerChoice(bits)}))
        session = OpenVinoSession(built.to_bytes())
        owners = working_for(session.kernels(), built, builder.graph)
        assert [
            owner for kernel, owner in zip(session.kernels(), owners, strict=True) if kernel.short_op == case.op
        ] == (["core"] * builder.graph.layers["core"].directions)
        assert np.allclose(session.run(None, {"x": x})[0], run(built, x), atol=1e-5)
        assert {kernel.short_op for kernel in session.kernels()} <= {
            case.op,
            "MatMul",
            "Transpose",
            "Concatenation",
            "Reorder",
        }


@pytest.mark.parametrize(
    "name", ["lstm without biases", "gru", "bidirectional lstm", "lstm of sequences of several lengths"]
)
def test_the_skeleton_of_a_recurrent_candidate_runs_the_kernels_of_its_build(name, builders, tmp_path):
    """The latency predictor asks skeletons: their kernels have to be those of the file, and to be told apart by their work."""
    case = CASES[name]
    builder = builders(case)
    forms = ["native"] if case.op == "GRU" else ["native", DYNAMIC]
    path, keys = tmp_path / "model.onnx", set()
    for form in forms:
        choice = LayerChoice(4, 8, form=DYNAMIC) if form == DYNAMIC else LayerChoice(4)
        for groups in ({}, {"core": 0.5}):
            candidate = builder.fitting(Candidate({"core": choice, "head": LayerChoice(8)}, groups))
            found = []
            for make in (builder.build, builder.skeleton):
                make(candidate).save(path)
                found.append(OnnxRuntime("here").kernels(path, {"x": builder.graph.inputs[0].shape}))
            built, skeleton = (Counter(kernel.key for kernel in kernels) for kernels in found)
            assert built == skeleton
            (core,) = (kernel for kernel in found[0] if kernel.short_op.endswith(case.op))
            keys.add(core.key)
            small = builder.removed(candidate)
            layer = builder.equalised.layers["core"]
            rows, columns = (len(kept) if kept is not None else whole for kept, whole in (
                (kept_outputs(layer, small), layer.channels), (kept_inputs(layer, small), layer.shape[2])
            ))  # fmt: skip
            assert core.multiply_adds == STEPS * case.batch * rows * columns
            assert (core.integer, core.is_product) == (form == DYNAMIC, True)
            assert set(working_for(found[0], builder.build(candidate), builder.graph)) >= {"core", "head"}
    assert len(keys) == 2 * len(forms)
