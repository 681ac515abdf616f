"""The arena and the pattern: laws of any allocator, and ONNX Runtime's own account of what its arena asks the system for."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.objectives.arena import FIRST_REGION, Arena, Pattern
from slimfront.objectives.running_memory import rehearse
from slimfront.objectives.target import STOCK
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.space import uniform

STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3_000_000)), max_size=60)
EXTENDED = re.compile(r"Extended allocation by (\d+) bytes")
RUN = """
import sys, numpy, onnxruntime as ort
ort.set_default_logger_severity(1)
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
for _ in range(3):
    session.run(None, {port.name: numpy.zeros(port.shape, numpy.float32) for port in session.get_inputs()})
"""


@given(STEPS)
def test_chunks_that_are_in_use_never_overlap_and_free_neighbours_are_one(steps):
    """Each step gives back what stands at a place, where something does, and takes so many bytes there."""
    arena, taken = Arena(), {}
    for place, size in steps:
        arena.give_back(taken.pop(place, None))
        taken[place] = arena.take(size)
        for region in arena.regions:
            ends = [chunk.start + chunk.size for chunk in region.chunks]
            assert [chunk.start for chunk in region.chunks] == [0, *ends[:-1]]
            assert ends[-1] == region.size
            assert all(a.used or b.used for a, b in zip(region.chunks, region.chunks[1:], strict=False))
        used = sum(chunk.used for region in arena.regions for chunk in region.chunks)
        assert used == sum(each is not None for each in taken.values())
    before = arena.bytes
    for each in taken.values():
        arena.give_back(each)
    assert all(len(region.chunks) == 1 for region in arena.regions)
    assert arena.bytes == before  # it keeps what it has


def test_regions_double():
    arena = Arena()
    for _ in range(4):
        arena.take(FIRST_REGION)
    assert [region.size // FIRST_REGION for region in arena.regions] == [1, 2, 4]
    arena.take(9 * FIRST_REGION)
    assert arena.regions[-1].size == 16 * FIRST_REGION


@given(STEPS)
def test_blocks_of_a_pattern_never_overlap_and_it_holds_what_is_alive(steps):
    pattern, alive, most = Pattern(), {}, 0
    for number, (place, size) in enumerate(steps):
        if place in alive:
            pattern.give_back(alive.pop(place)[0])
        alive[place] = (number, size)
        pattern.take(number, size)
        most = max(most, sum(size for _, size in alive.values()))
        blocks = sorted(pattern._blocks)
        assert all(a[0] + a[1] <= b[0] for a, b in itertools.pairwise(blocks))
    assert pattern.bytes >= most


def convolutions(path: Path, upsample: bool) -> Path:
    """A network of 16 channels at 64 by 64 pixels, with a sum over a skip, and a transposed convolution at its end."""
    import onnx
    from onnx import numpy_helper

    last = (
        "y = ConvTranspose<strides=[2,2], pads=[1,1,1,1]>(u, wd)" if upsample else "y = Conv<pads=[1,1,1,1]>(u, wc, b)"
    )
    text = (
        '<ir_version: 8, opset_import: ["": 21]> g (float[1,16,64,64] x) => (float[n,c,h,w] y) {\n'
        "[a] p = Conv<pads=[1,1,1,1]>(x, wa, b) r = Relu(p) [b] q = Conv<pads=[1,1,1,1]>(r, wb, b) s = Sigmoid(q)\n"
        f"t = Mul(r, s) u = Concat<axis=1>(t, x) {last} }}"
    )
    model, random = onnx.parser.parse_model(text), np.random.default_rng(0)
    for name, shape in {"wa": (16, 16, 3, 3), "wb": (16, 16, 3, 3), "wc": (16, 32, 3, 3), "wd": (32, 16, 4, 4)}.items():
        if name != ("wc" if upsample else "wd"):
            values = random.standard_normal(shape).astype(np.float32) / 12.0
            model.graph.initializer.append(numpy_helper.from_array(values, name))
    model.graph.initializer.append(numpy_helper.from_array(np.full(16, 0.1, np.float32), "b"))
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


@pytest.mark.parametrize("upsample", [False, True], ids=["convolutions", "transposed"])
@pytest.mark.parametrize("values", [{}, {"weight_bits": 8, "activation_bits": 8}, {"weight_bits": 4}], ids=str)
def test_a_rehearsal_asks_for_the_regions_that_onnx_runtime_asks_for(upsample, values, tmp_path):
    """By the runtime's own log of three runs, in a process of its own."""
    graph = capture_onnx(convolutions(tmp_path / "network.onnx", upsample))
    inputs = np.random.default_rng(1).random((2, 16, 64, 64), dtype=np.float32)
    candidate = uniform(graph, values)[0] if values else Candidate()
    path = tmp_path / "model.onnx"
    Builder(graph, {"x": inputs}).build(candidate).save(path)
    done = subprocess.run([sys.executable, "-c", RUN, path], capture_output=True, text=True, check=True)
    asked: list[int] = []

    class Told(Arena):
        def _extend(self, size: int) -> None:
            super()._extend(size)
            asked.append(self.regions[-1].size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("slimfront.objectives.running_memory.Arena", Told)
        rehearse(STOCK.kernels(path, {"x": (1, 16, 64, 64)}), ["y"])
    assert asked == [int(size) for size in EXTENDED.findall(done.stderr)]
