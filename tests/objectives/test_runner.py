"""A runner in a process of its own, over loopback: what it gives is what this machine gives, whatever goes wrong between."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from slimfront.objectives import connection as module
from slimfront.objectives.connection import Blob, parse_address
from slimfront.objectives.device.frames import HEAD, MAGIC, Channel, DamagedError
from slimfront.objectives.device.pack import PACKED, ROOT
from slimfront.objectives.kernel_profile import Rounds
from slimfront.objectives.protocol import OpenModel, Subject
from slimfront.objectives.quality import Quality
from slimfront.objectives.runtimes import make_target
from slimfront.objectives.samples import Samples
from slimfront.objectives.target import OnnxRuntime, Slot
from slimfront.objectives.timing import Timing
from slimfront.spaces.errors import BuildError, InputError

from ..runners import TOKEN, Network, Runner, running

ENDLESS = (
    '<ir_version: 8, opset_import: ["": 21]> g (float[1] x) => (float[1] y) {'
    "  n = Constant<value_int = 9000000000000000000>()  t = Cast<to = 9>(n)"
    "  y = Loop(n, t, x)<body = b (int64 i, bool c, float[1] v) => (bool d, float[1] w) { d = Identity(c) w = Cos(v) }>"
    "}"
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    with running(tmp_path_factory.mktemp("device") / "runner") as found:
        yield found


@pytest.fixture
def soon(monkeypatch):
    """Tries follow one another fast."""
    monkeypatch.setattr(module, "FIRST_WAITS", (0.05, 0.1))
    monkeypatch.setattr(module, "WAITS", (0.05, 0.1, 0.2, 0.5, 1.0, 2.0))


@pytest.fixture
def samples(pictures):
    return Samples({"x": pictures(3, 0)}, pictures(3, 1))


def targets(runner: Runner, runtime: str = "onnxruntime"):
    """The runtime here, and on the device."""
    return make_target(runtime), make_target(runtime, device=runner.engine(runtime=runtime))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_device_gives_what_this_machine_gives(runtime, runner, tiny_model, samples):
    pytest.importorskip(runtime)
    here, there = targets(runner, runtime)
    opened = [OpenModel(tiny_model, samples, 1, target) for target in (here, there)]
    assert (opened[0].outputs == opened[1].outputs).all()
    assert opened[0].integer_reads == opened[1].integer_reads
    readings = [Quality().measure(Subject(model, model)) for model in opened]
    assert {name: reading.value for name, reading in readings[0].items()} == {
        name: reading.value for name, reading in readings[1].items()
    }


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_kernels_and_profiles_of_a_device_are_those_of_this_machine(runtime, runner, tiny_model, pictures):
    pytest.importorskip(runtime)
    here, there = targets(runner, runtime)
    shapes = {"x": (1, 3, 16, 16)}
    expected = [kernel.key for kernel in here.kernels(tiny_model, shapes)]  # OpenVINO counts names of its own
    assert [kernel.key for kernel in there.kernels(tiny_model, shapes)] == expected
    profiles = there.profiles([tiny_model, tiny_model], {"x": pictures(1, 0)}, Rounds(3, 3))
    for profile in profiles:
        assert [kernel.key for kernel in profile.kernels] == expected
        assert profile.times_ms.shape == (3, len(expected)) and (profile.whole_ms > 0).all()


def test_models_are_timed_in_turn_on_a_device_by_its_own_clock(runner, tiny_model, samples):
    _, there = targets(runner)
    subject = Subject(OpenModel(tiny_model, samples, 1, there), OpenModel(tiny_model, samples, 1, there))
    begun = time.perf_counter()
    readings = Timing(least_rounds=6, most_rounds=6, slot_seconds=0.0).measure(subject)
    passed_ms = 1000.0 * (time.perf_counter() - begun)
    assert set(readings) == {"speedup", "reference_ms", "reference_drift", "disturbed"}
    assert readings["speedup"].low <= readings["speedup"].value <= readings["speedup"].high
    assert 0 < readings["reference_ms"].value < passed_ms / 8, "8 runs of each, and the way there and back"


def test_times_do_not_hold_the_way_to_the_device(runner, tiny_model, pictures, monkeypatch):
    """Every request takes a fifth of a second more: nothing of it is in the seconds that the device tells."""
    engine = runner.engine()
    slot = Slot(engine.open(tiny_model), {"x": pictures(1, 0)}, 3)
    send = Channel.send

    def slowly(*arguments, **named):
        time.sleep(0.2)
        send(*arguments, **named)

    monkeypatch.setattr(Channel, "send", slowly)
    assert min(min(engine.timed([slot, slot])) for _ in range(5)) < 0.05


def test_a_device_says_what_it_is_as_this_machine_does(runner):
    from slimfront.studies.environment import current_environment, device_environment

    facts = runner.connection().facts
    assert device_environment(facts, "CPUExecutionProvider", 1) == current_environment("CPUExecutionProvider", 1)


def test_a_wrong_token_is_told_at_once(runner):
    with pytest.raises(InputError, match="another token: SLIMFRONT_TOKEN"):
        _ = runner.connection(token="a wrong secret").facts
    assert runner.notes == [], "another try would change nothing"
    assert runner.connection().facts, "it serves on"


def test_the_token_never_goes_over_the_network(runner, monkeypatch):
    seen = bytearray()
    receive = Channel._exactly

    def watched(self, size):
        found = receive(self, size)
        seen.extend(found)
        return found

    monkeypatch.setattr(Channel, "_exactly", watched)
    monkeypatch.setattr(Channel, "send", _spied(seen))
    assert runner.connection().facts
    assert b"nonce" in seen and TOKEN.encode() not in seen and TOKEN.encode().hex().encode() not in seen


def _spied(seen):
    send = Channel.send

    def spied(self, header, payload=(), size=0):
        seen.extend(json.dumps(header).encode())
        send(self, header, payload, size)

    return spied


def test_who_does_not_know_the_token_is_no_runner(soon):
    """It answers as a runner does, but cannot show that it knows the token."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pretend():
        channel = Channel(listener.accept()[0])
        channel.send({"runner": 1, "slimfront": module.__version__, "nonce": "00"})
        channel.receive()
        channel.send({"proof": "00"})

    threading.Thread(target=pretend, daemon=True).start()
    with pytest.raises(InputError, match="does not know the token"):
        _ = _connection(listener.getsockname()[1]).facts


def _connection(port: int):
    return module.Connection(f"127.0.0.1:{port}", TOKEN, "onnxruntime", 1, "CPUExecutionProvider", lambda text: None)


def test_a_runner_of_another_version_is_named_with_what_to_do(runner, monkeypatch):
    monkeypatch.setattr(module, "__version__", "9.9")
    with pytest.raises(InputError, match=r"slimfront 0\.1\.0, here it is 9\.9: bring the same .*--pack"):
        _ = runner.connection().facts


def test_a_search_of_another_version_is_refused_by_the_runner(runner):
    channel = Channel(socket.create_connection(("127.0.0.1", runner.port), timeout=10))
    channel.receive()
    channel.send({"runner": 1, "slimfront": "9.9", "nonce": "00", "proof": "00"})
    assert "not '9.9'" in channel.receive()[0]["refused"]


def test_a_server_that_is_no_runner_is_told(soon):
    listener = socket.create_server(("127.0.0.1", 0))

    def answer():
        listener.accept()[0].sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + 100 * b" ")

    threading.Thread(target=answer, daemon=True).start()
    with pytest.raises(InputError, match="no runner of slimfront's"):
        _ = _connection(listener.getsockname()[1]).facts


def test_where_nothing_listens_it_is_said_what_to_start(runner, soon):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    connection = runner.connection(f"127.0.0.1:{port}")
    with pytest.raises(InputError, match=rf"'127.0.0.1:{port}' does not answer.*3 tries.*start slimfront runner"):
        _ = connection.facts
    assert len(runner.notes) == 2 and "1 of 2" in runner.notes[0]


@pytest.mark.parametrize("after", [100, 900, 4000, 9000])
def test_a_cut_connection_is_tried_again_and_nothing_is_lost(after, runner, tiny_model, samples, tmp_path, soon):
    path = tmp_path / "model.onnx"
    path.write_bytes(_changed(tiny_model, runner, after))
    network = Network(runner.port, cut_after=after, times=2)
    engine = runner.engine(network.address)
    model = OpenModel(path, samples, 1, OnnxRuntime(device=engine))
    assert (model.outputs == OpenModel(tiny_model, samples).outputs).all()
    assert network.connections == 3 and len(runner.notes) == 2 and all("trying again" in note for note in runner.notes)


def test_a_connection_that_is_cut_while_it_times_goes_on_with_the_next_round(runner, tiny_model, samples, soon):
    network = Network(runner.port)
    engine = runner.engine(network.address)
    model = OpenModel(tiny_model, samples, 1, OnnxRuntime(device=engine))
    timed, rounds = engine.timed, []

    def cut_once(slots):
        rounds.append(len(slots))
        if len(rounds) == 5:
            engine.connection._channel.connection.shutdown(socket.SHUT_RDWR)
        return timed(slots)

    engine.timed = cut_once
    subject = Subject(OpenModel(tiny_model, samples, 1, model.target), model)
    readings = Timing(least_rounds=6, most_rounds=6, slot_seconds=0.0).measure(subject)
    assert "6 rounds" in readings["speedup"].how and sum(rounds) == 4 + 6 * 2
    assert any("lost" in note for note in runner.notes) and network.connections == 2


def test_a_file_that_is_damaged_on_the_way_is_sent_again(runner, tiny_model, pictures, soon):
    network = Network(runner.port, flip_at=3000)
    runs = runner.engine(network.address)
    found = runs.open(_changed(tiny_model, runner, 1)).run(None, {"x": pictures(1, 0)})
    assert found[0].shape == (1, 3, 16, 16)
    assert network.connections == 2 and "changed on the way" in runner.notes[0]


def test_files_that_always_arrive_damaged_are_told(runner, tiny_model, soon):
    network = Network(runner.port, flip_at=3000, times=99)
    with pytest.raises(InputError, match="arrives damaged \\(3 tries\\)"):
        runner.engine(network.address).open(_changed(tiny_model, runner, 2))


def _changed(path: Path, runner: Runner, number: int) -> bytes:
    """A model that the runner has not yet, of some kilobytes that cannot be packed."""
    model = onnx.load(path)
    noise = np.random.default_rng([number, runner.port]).random(4000).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(noise, "unused"))
    return model.SerializeToString()


def test_a_runner_that_was_killed_and_started_again_goes_on(tmp_path, tiny_model, pictures, monkeypatch):
    monkeypatch.setattr(module, "WAITS", 20 * (0.5,))
    feed = {"x": pictures(1, 0)}
    with running(tmp_path / "runner", "--space", "1MB") as runner:
        session = runner.engine().open(tiny_model)
        before = session.run(None, feed)
        runner.end()
        time.sleep(2.0)  # what it had begun looks twice a second whether it is there
        for file in (tmp_path / "runner" / "files").iterdir():
            file.unlink()  # as where the folder is a temporary one
        threading.Timer(1.0, runner.start).start()
        assert (session.run(None, feed)[0] == before[0]).all()
        assert any("is lost" in note for note in runner.notes)


def test_a_runner_that_stays_away_is_told(tmp_path, tiny_model, pictures, soon):
    with running(tmp_path / "runner") as runner:
        session = runner.engine().open(tiny_model)
        runner.end()
        time.sleep(2.0)
        with pytest.raises(InputError, match=r"does not answer.*7 tries.*the same command continues"):
            session.run(None, {"x": pictures(1, 0)})
        assert len(runner.notes) == 6


def test_a_model_that_hangs_fails_and_the_runner_serves_on(runner, soon):
    model = onnx.parser.parse_model(ENDLESS)
    blob = Blob.of(model.SerializeToString())
    feed = Blob.of_array(np.ones(1, np.float32))
    connection = runner.connection()
    with pytest.raises(BuildError, match="ends the process that runs it \\(2 tries\\)"):
        connection.ask("run", {"model": blob.name, "feed": {"x": feed.name}}, [blob, feed], seconds=1.0)
    assert runner.connection().facts


def test_a_process_that_is_killed_is_no_end_of_its_search(runner, tiny_model, pictures, soon):
    session = runner.engine().open(tiny_model)
    before = session.run(None, {"x": pictures(1, 0)})
    children = Path(f"/proc/{runner.process.pid}/task/{runner.process.pid}/children")
    if not children.exists():
        pytest.skip("this system does not tell a process's children")
    for child in children.read_text().split():
        os.kill(int(child), signal.SIGKILL)
    assert (session.run(None, {"x": pictures(1, 0)})[0] == before[0]).all()


def test_what_the_runtime_refuses_is_a_failure_of_the_candidate(runner):
    with pytest.raises(BuildError, match="ONNX Runtime cannot load the model"):
        runner.engine().open(b"no model at all")


def test_a_model_that_fails_there_is_named_with_the_runtime(runner, tiny_model, pictures):
    session = runner.engine().open(tiny_model)
    with pytest.raises(BuildError, match="ONNX Runtime fails while running the model"):
        session.run(None, {"x": pictures(1, 0)[:, :1]})


def _pickled() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    return stream.getvalue()


def _lying() -> bytes:
    """An array of which the header says that it is far larger than it is."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": (10**12,)})
    return stream.getvalue() + b"abcd"


@pytest.mark.parametrize("content", [pickle.dumps([1]), _pickled(), _lying(), b"", b"PK\3\4"])
def test_what_is_no_array_of_numbers_is_refused(content, runner, tiny_model):
    model, feed = Blob.of(tiny_model), Blob.of(content)
    with pytest.raises(InputError, match="no array of numbers"):
        runner.connection().ask("run", {"model": model.name, "feed": {"x": feed.name}}, [model, feed])
    assert runner.connection().facts


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "A" * 64, 7])
def test_files_have_no_other_names_than_hashes(name, runner):
    with pytest.raises(InputError, match="known by its sha256"):
        runner.connection().ask("open", {"model": name})


def test_a_file_that_is_not_what_its_name_says_is_not_kept(runner, tiny_model, soon):
    liar = Blob(tiny_model.read_bytes(), 64 * "0")
    with pytest.raises(InputError, match="damaged"):
        runner.connection().ask("open", {"model": liar.name}, [liar])


def test_frames_that_are_too_large_or_none_end_the_connection_and_nothing_else(runner):
    for head in (HEAD.pack(MAGIC, 1 << 30, 0), HEAD.pack(MAGIC, 10, 1 << 40), HEAD.pack(b"GET ", 10, 0)):
        with socket.create_connection(("127.0.0.1", runner.port), timeout=10) as raw:
            Channel(raw).receive()
            raw.sendall(head + 100 * b"x")
            with pytest.raises((EOFError, OSError)):
                Channel(raw).receive()
    assert runner.connection().facts


def test_a_frame_that_is_sent_twice_is_found(runner):
    """Who listens cannot repeat what was said: each frame has its number."""
    ends = socket.socketpair()
    sender, receiver = (Channel.__new__(Channel) for _ in ends)
    for channel, end in zip((sender, receiver), ends, strict=True):
        channel.connection, channel._keys, channel._sent, channel._received = end, (b"k", b"k"), 0, 0
        channel._sending = threading.Lock()
    sender.send({"op": "run"})
    frame = bytes(ends[1].recv(1000))
    ends[0].sendall(2 * frame)
    assert receiver.receive()[0] == {"op": "run"}
    with pytest.raises(DamagedError, match="changed on the way"):
        receiver.receive()
    assert struct.calcsize("!4sIQ") == HEAD.size


def test_a_file_larger_than_the_space_of_the_runner_is_named(tmp_path, tiny_model, pictures):
    told = r"at most 10,000 bytes .*--space.*, but one has"
    with running(tmp_path / "runner", "--space", "10kB") as runner, pytest.raises(InputError, match=told):
        runner.engine().open(_changed(tiny_model, runner, 3))


def test_the_folder_of_a_runner_does_not_grow_and_what_was_deleted_is_sent_again(tmp_path, tiny_model, pictures):
    with running(tmp_path / "runner", "--space", "30kB") as runner:
        session = runner.engine().open(tiny_model)
        first = session.run(None, {"x": pictures(1, 0)})
        for seed in range(1, 10):
            session.run(None, {"x": pictures(1, seed)})
        kept = sum(file.stat().st_size for file in (tmp_path / "runner" / "files").iterdir())
        assert kept <= 30_000
        assert (session.run(None, {"x": pictures(1, 0)})[0] == first[0]).all()


def test_one_times_on_a_device_and_others_wait_and_are_told(runner, tiny_model, pictures):
    timing, other = runner.engine(), runner.engine()
    session, done = other.open(tiny_model), []
    with timing.alone():
        waiting = threading.Thread(target=lambda: done.append(session.run(None, {"x": pictures(1, 0)})))
        waiting.start()
        assert timing.timed([Slot(timing.open(tiny_model), {"x": pictures(1, 0)})])[0] > 0
        waiting.join(1.5)
        assert not done and any("busy with another timing" in note for note in runner.notes)
    waiting.join(30.0)
    assert done


def test_a_search_that_dies_while_it_times_gives_the_device_back(runner, tiny_model):
    first, second = runner.engine(), runner.engine()
    first.connection.ask("hold")
    first.connection.close()
    second.open(tiny_model)


def test_another_machine_at_the_same_address_is_told(runner):
    connection = runner.connection()
    connection._told = {**connection.ask("release").header, **connection._told}
    connection._told["facts"] = {**connection.facts, "cpu": "another one"}
    connection.close()
    with pytest.raises(InputError, match="another machine than before \\(cpu another one, now"):
        connection.ask("release")


def test_a_runtime_that_the_device_lacks_is_named_with_what_to_install_there(tmp_path):
    """The device has NumPy and ONNX Runtime, and nothing else: no slimfront, no OpenVINO."""
    pytest.importorskip("openvino")
    with running(tmp_path / "runner") as runner:
        runner.end()
        bare = tmp_path / "packages"
        bare.mkdir()
        for name in ("numpy", "numpy.libs", "onnxruntime"):
            package = Path(np.__file__).parents[1] / name
            if package.exists():
                (bare / name).symlink_to(package)
        command = [sys.executable, "-S", str(runner.file), "--port", "0"]
        environment = {**runner._environment, "PYTHONPATH": str(bare)}
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        try:
            first = process.stderr.readline()
            runner.port = int(first.split("127.0.0.1:")[1].split()[0])
            assert "serves onnxruntime on" in first
            assert runner.connection().facts["onnxruntime"]
            with pytest.raises(InputError, match=r"no OpenVINO: install it there \(pip install openvino numpy\)"):
                _ = runner.connection(runtime="openvino").facts
            with pytest.raises(InputError, match=r"no ExecuTorch: .* \(pip install executorch torch numpy\)"):
                _ = runner.connection(runtime="executorch").facts
        finally:
            process.kill()


def test_what_is_packed_needs_the_standard_library_numpy_and_a_runtime_alone():
    packed = {ROOT / name for name in PACKED}
    assert packed >= {path for path in (ROOT / "objectives" / "device").glob("*.py") if path.name != "pack.py"}
    allowed = {*sys.stdlib_module_names, "numpy", "onnxruntime", "openvino", "ai_edge_litert", "torch"}
    for path in packed:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.split(".")[0] in allowed, path
            elif isinstance(node, ast.ImportFrom) and node.module:
                place = path.parents[node.level - 1].joinpath(*node.module.split("."))
                assert place.with_suffix(".py") in packed or place.is_dir(), f"{path}: {node.module}"


def test_an_interrupted_runner_ends_cleanly(tmp_path):
    with running(tmp_path / "runner") as runner:
        connection = runner.connection()
        assert connection.facts
        assert runner.end(signal.SIGINT) == 130
        with socket.create_server(("127.0.0.1", runner.port)):
            pass
        assert not [line for line in runner.log if "Traceback" in line]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--token", "short"], "at least 8 characters, but has 5"),
        (["--space", "much"], "--space must be a size such as '500MB'"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_wrong_flags_of_the_packed_runner_are_told(flags, told, runner):
    done = subprocess.run(
        [sys.executable, str(runner.file), "--port", "0", *flags],
        env=runner._environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["pi", "pi:", ":7007", "pi:0", "pi:70000", "http://pi:7", "pi:7007/x", "a b:7", ""])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="must be 'host:port'"):
        parse_address(text)


def test_addresses_of_both_kinds_are_read():
    assert parse_address("pi.local:7007") == ("pi.local", 7007) and parse_address("[::1]:7") == ("::1", 7)
