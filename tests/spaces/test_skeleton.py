"""The skeleton of a candidate runs the kernels that its build runs, shape by shape, without a single weight of it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slimfront.objectives.calibration import draw
from slimfront.objectives.target import OnnxRuntime
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import DYNAMIC, Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.forms import valid_forms
from slimfront.spaces.groups import fitting
from slimfront.spaces.skeleton import structure
from slimfront.spaces.space import make_space

from .networks import HEAD, NETWORKS, TAIL, C, network, shape

ZOO = Path(os.environ.get("SLIMFRONT_ZOO", Path(__file__).parents[2].resolve().parent / "shared" / "zoo"))
CHOSEN = (
    *("sum", "concat", "grouped conv", "depthwise conv with multiplier", "transposed conv", "grouped transposed conv"),
    *(
        "pixel shuffle",
        "constant matrices",
        "flatten then gemm",
        "group norm",
        "layer norm",
        "window attention",
        "prelu",
    ),
    *("split", "layer twice", "resize by scales", "pooling"),
)
MORE = {
    "two branches alike": network(
        "[b] r = Conv<pads=[1,1,1,1]>(p, w, v) [c] s = Conv<pads=[1,1,1,1]>(p, u, t) g = Sigmoid(r) q = Mul(g, s)",
        8,
        w=(8, 8, 3, 3), u=(8, 8, 3, 3), v=(8,), t=(8,),
    ),
    "clipped": network("r = Relu(p) [b] s = Conv(r, w) l = LeakyRelu(s) c = Clip(l, m, n) q = Mul(c, k)", 8,
        w=(8, 8, 1, 1), m=np.float32(-0.1), n=np.float32(0.1), k=C),
    "upsampled": network(
        'r = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(p, , f)'
        " [b] q = Conv<pads=[1,1,1,1]>(r, w, v)", 8, w=(8, 8, 3, 3), v=(8,), f=np.array([1, 1, 2, 2], np.float32)),
    "tokens": network("r = Reshape(p, s) t = Transpose<perm=[0,2,1]>(r) [b] m = MatMul(t, w) a = Add(m, v)"
        "u = Transpose<perm=[0,2,1]>(a) q = Reshape(u, f)", 8, w=(8, 8), v=(8,), s=shape(2, 8, 64), f=shape(2, 8, 8, 8)),
}  # fmt: skip


def kernels(builder: Builder, make: Callable, candidate: Candidate, folder: Path) -> Counter[str]:
    """The keys of what ONNX Runtime makes of a file, that of the build or of the skeleton."""
    make(candidate).save(folder / "model.onnx")
    shapes = {port.name: port.shape for port in builder.graph.inputs}
    return Counter(kernel.key for kernel in OnnxRuntime("here").kernels(folder / "model.onnx", shapes))


def drawn(builder: Builder, count: int, step: int) -> list[Candidate]:
    """All in integers; then random bits, ratios, sparsities and forms, every third repaired sequentially."""
    graph, random = builder.graph, np.random.default_rng(0)
    bits = {"weight_bits": (2, 5, 8, 16, 32), "sparsities": (0.0, 0.5)}
    space = make_space(graph, pruning_ratios=(0.0, 0.25, 0.5), step=step, **bits)
    able = [name for name, choices in space.choices.items() if any(choice.integer for choice in choices)]
    found = [Candidate(dict.fromkeys(able, LayerChoice(8, 8))), Candidate(dict.fromkeys(space.choices, LayerChoice(4)))]
    for number in range(count):
        candidate = draw(space, random)
        layers = {}
        for name, layer in graph.layers.items():
            for form in (form for form in valid_forms(graph, layer)[1:] if random.random() < 0.5):
                layers[name] = (
                    LayerChoice(5, 8, form=form) if form == DYNAMIC else replace(candidate.choice(name), form=form)
                )
        repair = "sequential" if number % 3 == 2 else "static"
        found.append(replace(candidate, layers={**candidate.layers, **layers}, repair=repair))
    return [fitting(graph, candidate) for candidate in found]


@pytest.mark.parametrize("name", [*CHOSEN, *MORE])
def test_the_skeleton_runs_the_kernels_of_the_build(name, capture, weight, noise, tmp_path):
    made = {**NETWORKS, **MORE}[name]
    constants = {
        key: weight(*value, seed=i) if isinstance(value, tuple) else value
        for i, (key, value) in enumerate(made.constants.items())
    }
    constants |= {"wa": weight(8, 4, 3, 3), "ba": weight(8), "wz": weight(3, made.channels, 1, 1)}
    graph = capture(f"(float[2,4,8,8] x) => (float[a0,b0,c0,d0] y) {{ {HEAD} {made.middle} {TAIL} }}", **constants)
    builder = Builder(graph, {"x": noise(4, 4, 8, 8)}, rounding="plain", sparsify="magnitude")
    for candidate in drawn(builder, 3, step=1):
        expected = kernels(builder, builder.build, candidate, tmp_path)
        assert kernels(builder, builder.skeleton, candidate, tmp_path) == expected, candidate.to_json()
        assert not [key for key in expected if "?" in key], "all shapes are known"


def test_the_skeleton_of_the_tiny_model_runs_the_kernels_of_the_build(tiny_model, pictures, tmp_path):
    builder = Builder(capture_onnx(tiny_model), {"x": pictures(4, 1)})
    for candidate in drawn(builder, 9, step=4):
        expected = kernels(builder, builder.build, candidate, tmp_path)
        assert kernels(builder, builder.skeleton, candidate, tmp_path) == expected, candidate.to_json()


def test_the_skeleton_knows_equalised_layers_and_two_inputs(capture, weight, noise, tmp_path):
    graph = capture(
        "(float[1,3,8,8] x, float[1,8] s) => (float[n,c,h,w] y) { [a] p = Conv<pads=[1,1,1,1]>(x, w0) [m] g = MatMul(s, w1)"
        " u = Unsqueeze(g, ax) q = Mul(p, u) r = Relu(q) [b] y = Conv(r, w2, b2) }",
        w0=weight(16, 3, 3, 3) * np.logspace(-2, 1, 16, dtype=np.float32)[:, None, None, None], w1=weight(8, 16),
        w2=weight(3, 16, 1, 1), b2=weight(3), ax=shape(2, 3),
    )  # fmt: skip
    builder = Builder(graph, {"x": noise(4, 3, 8, 8), "s": noise(4, 8)}, rounding="plain", sparsify="magnitude")
    for candidate in drawn(builder, 3, step=4):
        expected = kernels(builder, builder.build, candidate, tmp_path)
        assert kernels(builder, builder.skeleton, candidate, tmp_path) == expected, candidate.to_json()


def test_candidates_that_run_the_same_kernels_have_one_structure():
    layers = {"a": LayerChoice(4, 8), "b": LayerChoice(16), "c": LayerChoice(3, 32, 0.5)}
    other = {"a": LayerChoice(8, 8, 0.25), "b": LayerChoice(), "c": LayerChoice(8)}
    assert structure(Candidate(layers, repair="sequential")) == structure(Candidate(other))
    assert structure(Candidate({"b": LayerChoice(16)})) == Candidate()
    for changed in ({"a": LayerChoice(4)}, {"c": LayerChoice()}, {"b": LayerChoice(8)}):
        assert structure(Candidate({**layers, **changed})) != structure(Candidate(layers))
    assert structure(Candidate(layers, {"a": 0.5})) != structure(Candidate(layers))
    assert structure(Candidate({"a": LayerChoice(form="phases")})) != Candidate()


@pytest.mark.slow
@pytest.mark.skipif(not (ZOO / "models").is_dir(), reason="the zoo is not there (SLIMFRONT_ZOO)")
@pytest.mark.parametrize("name", ["dcgan_digits", "mobilesr_x4", "rlfn_s_x2"])
def test_skeletons_of_the_zoo_run_the_kernels_of_the_builds(name, tmp_path):
    with np.load(ZOO / "data" / f"{name}_calibration.npz") as stored:
        x = stored["input"][:2]
    graph = capture_onnx(ZOO / "models" / f"{name}.onnx")
    builder = Builder(graph, {graph.inputs[0].name: x}, rounding="plain", sparsify="magnitude")
    for candidate in drawn(builder, 3, step=16):
        expected = kernels(builder, builder.build, candidate, tmp_path)
        assert kernels(builder, builder.skeleton, candidate, tmp_path) == expected, candidate.to_json()
        assert not [key for key in expected if "?" in key], "all shapes are known"
