"""LiteRT and ExecuTorch as targets: sessions like ONNX Runtime's on real files, their kernels and their profiles."""

from __future__ import annotations

import gc
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from slimfront.objectives.device import executorch_engine, litert_engine
from slimfront.objectives.device.heard import hearing
from slimfront.objectives.kernel_profile import Rounds
from slimfront.objectives.memory import measure_once
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.runtimes import RUNTIMES, make_target
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import Slot
from slimfront.objectives.timing import Timing
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError, InputError

from ..runners import running
from . import packed

SUFFIX = {"litert": ".tflite", "executorch": ".pte"}


@pytest.fixture(scope="module", params=packed.RUNTIMES)
def runtime(request):
    for module in packed.MODULES[request.param]:
        pytest.importorskip(module)
    return request.param


@pytest.fixture(scope="module")
def given():
    """What `packed.Mixed` is given, by the names of a study: its inputs in their alphabetical order."""
    random = np.random.default_rng(0)
    return {
        "whole": np.array([[1, 2, 3]], np.int64),
        "image": random.random((1, 3, 16, 16), np.float32),
        "a_shift": random.random((1, 8, 1, 1), np.float32),
    }


@pytest.fixture(scope="module")
def mixed(runtime, given, tmp_path_factory):
    """The file of `packed.Mixed`, and what PyTorch says of it."""
    module = packed.Mixed()
    tensors = [torch.from_numpy(given[name]) for name in sorted(given)]
    path = tmp_path_factory.mktemp("mixed") / f"mixed{SUFFIX[runtime]}"
    path.write_bytes(packed.packed(runtime, module, tensors))
    with torch.no_grad():
        return SimpleNamespace(path=path, outputs=[output.numpy() for output in module(*tensors)])


@pytest.fixture(scope="module")
def candidates(runtime, residual_model, pictures, tmp_path_factory):
    """The residual network's reference and an all-integer candidate: graphs as lowered, files, and what was built."""
    target = make_target(runtime)
    builder = Builder(capture_onnx(residual_model), {"x": pictures(4, 1)}, rules=target.rules, rounding="plain")
    folder = tmp_path_factory.mktemp("candidates")
    built = [
        builder.build(candidate)
        for candidate in (Candidate(), Candidate({name: LayerChoice(8, 8) for name in builder.graph.layers}))
    ]
    graphs, files = [], []
    for number, each in enumerate(built):
        graphs.append(folder / f"{number}.onnx")
        files.append(folder / f"{number}{target.rules.format.suffix}")
        each.save_graph(graphs[-1])
        each.save(files[-1])
    return SimpleNamespace(built=built, graphs=graphs, files=files)


def test_a_session_gives_what_pytorch_gives(runtime, mixed, given):
    target = make_target(runtime)
    for model in (mixed.path, mixed.path.read_bytes()):
        found = target.open(model).run(None, given)
        for output, expected in zip(found, mixed.outputs, strict=True):
            np.testing.assert_allclose(output, expected, atol=1e-5)


def test_a_feed_is_cast_to_what_the_file_reads(runtime, mixed, given):
    wide = {"a_shift": given["a_shift"].astype(float), "image": given["image"].astype(float)}
    narrow = {"whole": given["whole"].astype(np.int32)}
    found = make_target(runtime).open(mixed.path).run(None, wide | narrow)
    np.testing.assert_allclose(found[0], mixed.outputs[0], atol=1e-5)
    assert (found[1] == mixed.outputs[1]).all()


def test_what_cannot_be_written_to_is_read_and_left_alone(runtime, mixed, given):
    fixed = {name: array.copy() for name, array in given.items()}
    for array in fixed.values():
        array.flags.writeable = False
    session = make_target(runtime).open(mixed.path)
    np.testing.assert_allclose(session.run(None, fixed)[0], mixed.outputs[0], atol=1e-5)


def test_outputs_of_one_run_stay_when_the_next_begins(runtime, mixed, given):
    session = make_target(runtime).open(mixed.path)
    first = session.run(None, given)[0]
    before = first.copy()
    session.run(None, given | {"image": -given["image"]})
    assert (first == before).all()


def test_a_file_that_is_none_or_not_whole_is_one_clear_line(runtime, mixed, tmp_path):
    target = make_target(runtime)
    damaged = tmp_path / "model"
    damaged.write_bytes(mixed.path.read_bytes()[:-200])
    for model in (b"nothing", b"", b"\x0a\x02ab\x83\xff" + 99 * b"\x8f", damaged, tmp_path / "absent"):
        with pytest.raises(BuildError, match=f"{target.runtime} cannot load the model: .") as caught:
            target.open(model)
        assert "\n" not in str(caught.value)


def test_a_feed_of_another_shape_is_told_with_both(runtime, mixed, given):
    session = make_target(runtime).open(mixed.path)
    with pytest.raises(BuildError, match=r"'image' of shape \[1, 3, 16, 16\], but was fed \[1, 3, 8, 16\]"):
        session.run(None, given | {"image": given["image"][:, :, :8]})
    with pytest.raises(BuildError, match="3 inputs, but was fed 2: image, whole"):
        session.run(None, {name: given[name] for name in ("image", "whole")})
    np.testing.assert_allclose(session.run(None, given)[0], mixed.outputs[0], atol=1e-5)


def test_opening_and_running_says_nothing(runtime, mixed):
    """In a process of its own: LiteRT speaks when a process opens its first model."""
    code = (
        "import sys; from pathlib import Path; from slimfront.objectives.runtimes import make_target\n"
        "import numpy as np\n"
        "session = make_target(sys.argv[1], threads=1).open(Path(sys.argv[2]))\n"
        "feed = {'a': np.zeros((1, 8, 1, 1)), 'b': np.zeros((1, 3, 16, 16)), 'c': np.zeros((1, 3))}\n"
        "print(len(session.run(None, feed)))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code, runtime, mixed.path], capture_output=True, check=True)
    assert (done.stdout.strip(), done.stderr) == (b"2", b"")


def test_what_others_say_meanwhile_is_passed_on(capfd):
    with hearing(re.compile("NOTE: ")) as heard:
        os.write(2, b"NOTE: first\nof another \xff\nNOTE: second\n")
        print("NOTE: third\nof Python", file=sys.stderr)
        assert heard == []
    assert sorted(heard) == ["first", "second", "third"]
    found = capfd.readouterr().err
    assert "of another" in found and "of Python" in found and "NOTE" not in found


@pytest.mark.parametrize("runtime", ["litert"], indirect=True)
def test_litert_takes_as_many_threads_as_it_is_told(candidates, runtime):
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("needs Linux")
    gc.collect()
    before = len(list(tasks.iterdir()))
    alone = make_target(runtime, threads=1).open(candidates.files[0])
    assert len(list(tasks.iterdir())) == before
    three = make_target(runtime, threads=3).open(candidates.files[0])
    assert len(list(tasks.iterdir())) == before + 2
    feed = {"x": np.ones((1, 3, 16, 16), np.float32)}
    np.testing.assert_allclose(alone.run(None, feed)[0], three.run(None, feed)[0], atol=1e-5)


@pytest.mark.parametrize("runtime", ["executorch"], indirect=True)
def test_models_in_executorch_outlive_a_change_of_threads(candidates, runtime, pictures):
    """Threads are the whole process's: what was open holds on to some that have ended, and is opened anew."""
    feed = {"x": pictures(1, 0)}
    opened = {threads: make_target(runtime, threads=threads).open(candidates.files[1]) for threads in (1, 2)}
    expected = opened[2].run(None, feed)[0]
    for threads in (1, 2, 1, 1):
        assert (opened[threads].run(None, feed)[0] == expected).all()
        assert executorch_engine.bindings()._threadpool_get_thread_count() == threads


def test_a_version_says_the_precision(runtime):
    assert RUNTIMES[runtime].version().endswith(", float32")


@pytest.mark.parametrize(
    ("name", "known", "absent"),
    [
        ("litert", litert_engine.interpreter, ["ai_edge_litert.interpreter"]),
        (
            "executorch",
            executorch_engine.bindings,
            [f"{executorch_engine.PYBINDINGS}.{n}" for n in executorch_engine.BINDINGS],
        ),
        ("executorch", executorch_engine.bindings, ["torch"]),
    ],
)
def test_what_is_not_installed_is_named_with_what_to_install(name, known, absent, monkeypatch):
    known.cache_clear()
    for module in absent:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=rf'pip install "slimfront\[{name}\]"'):
        RUNTIMES[name].version()
    known.cache_clear()


def test_candidates_compute_what_their_graph_says(runtime, candidates, pictures):
    import onnxruntime

    target, feed = make_target(runtime), {"x": pictures(1, 3)}
    for graph, file, least_db in zip(candidates.graphs, candidates.files, (80, 35), strict=True):
        expected = onnxruntime.InferenceSession(graph).run(None, feed)[0]
        found = target.open(file).run(None, feed)[0]
        assert 20 * np.log10(np.ptp(expected) / np.sqrt(np.mean((found - expected) ** 2) + 1e-12)) > least_db


def test_integer_products_of_a_file_are_counted(runtime, candidates):
    target, shapes = make_target(runtime), {"x": (1, 3, 16, 16)}
    seen = [target.inspected(file, shapes)[1] for file in candidates.files]
    if runtime == "executorch":
        assert seen == [None, None]
        return
    assert (
        [sum(counter.values()) for counter in seen] == [built.integer_kernels for built in candidates.built] == [0, 5]
    )
    assert candidates.built[1].fallbacks(seen[1]) == []
    assert len(candidates.built[1].fallbacks(seen[0])) == 5


def test_a_profile_shares_whole_runs_among_the_kernels_of_the_graph(runtime, candidates, pictures):
    target, told = make_target(runtime), []
    profiles = target.profiles(
        candidates.graphs, {"x": pictures(1, 0)}, Rounds(3, 3), lambda what, part: told.append(part)
    )
    for profile, graph in zip(profiles, candidates.graphs, strict=True):
        assert profile.kernels == target.kernels(graph, {"x": (1, 3, 16, 16)})
        assert profile.times_ms.shape == (3, len(profile.kernels)) and (profile.times_ms > 0).all()
        np.testing.assert_allclose(profile.times_ms.sum(axis=1), profile.whole_ms)
    assert told[-1] == 1.0


def test_models_are_timed_in_turn_like_any(runtime, candidates, pictures):
    target, samples = make_target(runtime), Samples({"x": pictures(2, 0)})
    subject = Subject(*(OpenModel(file, samples, 1, target) for file in reversed(candidates.files)))
    readings = Timing(seconds=0.2, longest=0.4).measure(subject)
    assert readings["speedup"].low <= readings["speedup"].value <= readings["speedup"].high


def test_memory_is_measured_and_not_foretold(runtime, candidates, pictures):
    target = make_target(runtime)
    taken = measure_once(OpenModel(candidates.files[0], Samples({"x": pictures(1, 0)}), 1, target))
    assert 0 < max(taken.values()) < 50e6
    assert target.predicted_memory(candidates.graphs[0], {"x": (1, 3, 16, 16)}) is None


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with running(tmp_path_factory.mktemp("device") / "runner") as found:
        yield found


def test_a_device_does_what_this_machine_does(runtime, candidates, pictures, runner):
    here, there = make_target(runtime), make_target(runtime, device=runner.engine(runtime=runtime))
    assert there.runtime == f"{here.runtime} on {runner.address}"
    assert there.engine.connection.facts["runtime"] == RUNTIMES[runtime].version()
    feed, shapes = {"x": pictures(1, 0)}, {"x": (1, 3, 16, 16)}
    sessions = []
    for file in candidates.files:
        session, seen = there.inspected(file, shapes)
        assert seen == here.inspected(file, shapes)[1]
        assert (session.run(None, feed)[0] == here.open(file).run(None, feed)[0]).all()
        sessions.append(session)
    assert min(there.timed([Slot(session, feed) for session in sessions])) > 0
    for profile in there.profiles(candidates.graphs, feed, Rounds(2, 2)):
        assert profile.whole_ms.shape == (2,) and profile.times_ms.shape == (2, len(profile.kernels))
    with pytest.raises(BuildError, match=f"{here.runtime} cannot load the model"):
        there.open(b"nothing")
    with pytest.raises(BuildError, match=r"'x' of shape \[1, 3, 16, 16\], but was fed \[1, 3, 16, 8\]"):
        sessions[0].run(None, {"x": feed["x"][..., :8]})
    assert "Traceback" not in "".join(runner.log)
