"""Whether this machine's integer kernels saturate: against NumPy and the processor's flags; and who is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slimfront.spaces import saturation
from slimfront.spaces.errors import InputError
from slimfront.spaces.saturation import saturates, saturation_notes
from slimfront.spaces.space import make_space
from slimfront.studies.study import Study

ZERO = 128  # of the outputs
MULTIPLIER = np.float32(2**-11)  # a power of two: what is rounded is exact
GRAPHS = {
    "QLinearConv": "(uint8[1,16,7,9] x) => (uint8[n,c,h,w] y)",
    "QLinearMatMul": "(uint8[11,48] x) => (uint8[r,s] y)",
    "QLinearMatMul of one row": "(uint8[1,48] x) => (uint8[r,s] y)",
}


def codes(bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return int8 weights [inputs, outputs] of a width: one output of its lowest, one of its highest, the rest random."""
    lowest, highest = max(-(2 ** (bits - 1)), -127), 2 ** (bits - 1) - 1
    found = np.random.default_rng(bits).integers(lowest, highest + 1, shape).astype(np.int8)
    found[:, 0], found[:, 1] = lowest, highest
    return found


def exact(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the outputs of rows of uint8 activations times int8 weights, added up in 64 bits."""
    total = x.astype(np.int64) @ weight.astype(np.int64)
    return np.clip(np.rint(total * MULTIPLIER) + ZERO, 0, 255).astype(np.uint8)


def is_exact(name: str, bits: int, onnx_file, run) -> bool:
    """Run an integer op of ONNX Runtime on random activations and compare with NumPy."""
    op = name.split(" ")[0]
    sizes = {"QLinearConv": (1, 16, 7, 9), "QLinearMatMul": (11, 48), "QLinearMatMul of one row": (1, 48)}[name]
    x = np.random.default_rng(1).integers(0, 256, sizes).astype(np.uint8)
    x.reshape(-1)[: x.size // 2] = 255
    if op == "QLinearConv":
        weight = codes(bits, (16 * 9, 20))
        windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))[0]  # [channel, y, x, 3, 3]
        rows = windows.transpose(1, 2, 0, 3, 4).reshape(-1, 16 * 9)
        expected = exact(rows, weight).T.reshape(1, 20, 5, 7)
        weight = weight.T.reshape(20, 16, 3, 3)
    else:
        weight = codes(bits, (48, 20))
        expected = exact(x, weight)
    path = onnx_file(
        f"{GRAPHS[name]} {{ y = {op}(x, one, none, w, one, nothing, scale, zero) }}",
        w=weight, one=np.float32(1), none=np.uint8(0), nothing=np.int8(0),
        scale=1 / MULTIPLIER, zero=np.uint8(ZERO),
    )  # fmt: skip
    return np.array_equal(run(path, x), expected)


def test_it_is_what_8_bits_do_and_7_bits_never(onnx_file, run):
    assert all(is_exact(name, 7, onnx_file, run) for name in GRAPHS)
    assert saturates() == (not all(is_exact(name, 8, onnx_file, run) for name in GRAPHS))


def test_it_agrees_with_the_flags_of_an_x86_processor():
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    if "avx2" not in flags:
        pytest.skip("/proc/cpuinfo names no x86 processor with AVX2")
    assert saturates() == flags.isdisjoint({"avx512_vnni", "avx_vnni"})


def test_an_unknown_provider_is_refused():
    with pytest.raises(InputError, match=r"target\.provider 'NoProvider' is not in this ONNX Runtime"):
        saturates("NoProvider")


@pytest.fixture
def on_machine(monkeypatch):
    """A function (answer) that makes this machine one that saturates, or one that does not."""
    return lambda answer: monkeypatch.setattr(saturation, "saturates", lambda *_: answer)


@pytest.mark.parametrize(
    ("offered", "warns"),
    [
        ({"weight_bits": (4, 8)}, True),
        ({"weight_bits": (4,), "fixed": {"k": {"weight_bits": 8, "activation_bits": 8}}}, True),
        ({"weight_bits": (2, 7, 16, 32)}, False),
        ({"weight_bits": (8,), "activation_bits": (32,)}, False),
        ({"weight_bits": (4, 8), "saturation_safe": True}, False),
    ],
)
def test_a_space_with_8_bits_in_integer_layers_warns_where_they_saturate(offered, warns, capture, weight, on_machine):
    graph = capture("(float[1,4,8,8] x) => (float[n,c,h,w] y) { [k] y = Conv(x, w) }", w=weight(8, 4, 3, 3))
    space = make_space(graph, **offered)
    on_machine(True)
    notes = saturation_notes(space)
    assert len(notes) == warns
    assert all("target.saturation_safe = true" in note and "\n" not in note for note in notes)
    on_machine(False)
    assert saturation_notes(space) == []


@pytest.mark.parametrize(("here", "safe", "warns"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_checking_a_study_warns_once(here, safe, warns, study_folder, on_machine):
    on_machine(here)
    path = study_folder / "study.toml"
    path.write_text(path.read_text() + f"[target]\nsaturation_safe = {str(safe).lower()}\n")
    study = Study.from_file(path)
    study.check()
    study.check()
    assert sum("8-bit integer weights saturate" in note for note in study.warnings) == warns
