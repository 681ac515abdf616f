"""Other people's models: captured, built, checked in the optimised graph. Skipped where the zoo is absent."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.forms import valid_forms

ZOO = Path(os.environ.get("SLIMFRONT_ZOO", Path(__file__).parents[2].resolve().parent / "shared" / "zoo"))
LEAST_PSNR = {  # of the 8/8 candidate (7/8 where 8 bits saturate) with plain rounding, against the reference's output
    "carn_m_x2": 36,
    "dcgan_digits": 30,
    "dncnn_25": 40,
    "mobilesr_x4": 34,
    "rlfn_s_x2": 36,
    "taef2_decoder": 33,
    "waifu2x_upconv7_x2": 36,
}
models = [name if name == "dcgan_digits" else pytest.param(name, marks=pytest.mark.slow) for name in LEAST_PSNR]

pytestmark = pytest.mark.skipif(not (ZOO / "models").is_dir(), reason="the zoo is not there (SLIMFRONT_ZOO)")


@pytest.mark.parametrize("name", models)
def test_models_of_the_zoo_run_in_integers_close_to_the_reference(
    name, run, reference, optimized, uniform_candidate, exact_bits
):
    with np.load(ZOO / "data" / f"{name}_calibration.npz") as stored:
        x = stored["input"][:4]
    session_input = onnx.load(ZOO / "models" / f"{name}.onnx", load_external_data=False).graph.input[0]
    axes = [axis.dim_value for axis in session_input.type.tensor_type.shape.dim]
    shape = tuple(axis or (size if i else 1) for i, (axis, size) in enumerate(zip(axes, x.shape, strict=True)))
    graph = capture_onnx(ZOO / "models" / f"{name}.onnx", shape)
    calibration = {graph.inputs[0].name: x}
    built = Builder(graph, calibration, rounding="plain").build(uniform_candidate(graph, exact_bits, 8))
    data = built.to_bytes()
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    assert built.integer_kernels > 0
    assert not optimized(built).lacking
    one = {graph.inputs[0].name: x[: graph.batch]}
    expected = reference(graph, one)
    error = np.mean((run(built, one) - expected) ** 2)
    assert 10 * np.log10(np.ptp(expected) ** 2 / error) > LEAST_PSNR[name]


@pytest.mark.slow
def test_the_decoders_upsampled_convolutions_are_exact_in_phases(
    run, reference, optimized, uniform_candidate, exact_bits
):
    graph = capture_onnx(ZOO / "models" / "taef2_decoder.onnx", None)
    with np.load(ZOO / "data" / "taef2_decoder_calibration.npz") as stored:
        calibration = {graph.inputs[0].name: stored["input"][:2]}
    formed = [name for name, layer in graph.layers.items() if "phases" in valid_forms(graph, layer)]
    assert len(formed) == 3
    builder = Builder(graph, calibration, rounding="plain")
    one = calibration[graph.inputs[0].name][:1]
    expected = reference(graph, one)
    plain = builder.build(Candidate(dict.fromkeys(formed, LayerChoice(form="phases"))))
    assert np.abs(run(plain, one) - expected).max() < 1e-4 * np.ptp(expected)
    layers = dict(uniform_candidate(graph, exact_bits, 8).layers)
    layers |= dict.fromkeys(formed, LayerChoice(exact_bits, 8, form="phases"))
    built = builder.build(Candidate(layers))
    assert not optimized(built).lacking and not optimized(built).ops["ConvTranspose"]
    error = np.mean((run(built, one) - expected) ** 2)
    assert 10 * np.log10(np.ptp(expected) ** 2 / error) > LEAST_PSNR["taef2_decoder"]
