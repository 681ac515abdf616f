"""Ray that is started, joined and lost: tokens, silent addresses, nodes and heads that go away in the middle of a search."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from slimfront.search import cluster, ray_pool, roster
from slimfront.search.loop import search
from slimfront.spaces.errors import InputError
from slimfront.studies.records import read_records
from slimfront.studies.study import load_study

ray = pytest.importorskip("ray")

HEALTH = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 5}
QUICKLY = "import sys; from slimfront.search import cluster; cluster.HEAD_SECONDS = 2.0; "
SEARCH = "from slimfront.cli import main; main()"


@pytest.fixture
def head():
    """A cluster whose head has no processor to work with."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
    )
    yield made
    made.shutdown()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"workers": 0}, "workers must be a whole number, at least 1, but got 0"),
        ({"ray": "nowhere"}, "no address"),
        ({"ray": "127.0.0.1:1"}, r"no Ray answers at '127\.0\.0\.1:1'"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(study_folder, tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", **settings)
    assert not (tmp_path / "run").exists()


def test_a_port_that_takes_connections_and_says_nothing_is_told_of_in_time(monkeypatch):
    assert cluster.PORT_SECONDS < cluster.JOIN_SECONDS < 15.0
    monkeypatch.setattr(cluster, "JOIN_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(InputError, match=f"no Ray answers at '{address}'"):
            cluster.join(address)
    assert not ray.is_initialized()


@pytest.mark.slow
def test_a_ray_that_was_started_here_takes_work_from_nobody_without_its_token(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv(cluster.AUTH_MODE, raising=False)
    before = dict(os.environ)
    with cluster.connected(1, None):
        assert dict(os.environ) == before | {name: os.environ[name] for name in os.environ if name not in before}
        assert cluster.AUTH_TOKEN not in os.environ
        assert cluster.AUTH_MODE not in os.environ
        address = ray.get_runtime_context().gcs_address
        token = ray.get(cluster.task(os.getenv).remote(cluster.AUTH_TOKEN))
        assert len(token) == 64
        assert health(address, {cluster.AUTH_MODE: "token", cluster.AUTH_TOKEN: token}).returncode == 0
        for settings in ({}, {cluster.AUTH_MODE: "token"}, {cluster.AUTH_MODE: "token", cluster.AUTH_TOKEN: "x" * 64}):
            assert health(address, settings).returncode != 0
            for name in (cluster.AUTH_MODE, cluster.AUTH_TOKEN):
                monkeypatch.delenv(name, raising=False)
            for name, value in settings.items():
                monkeypatch.setenv(name, value)
            with pytest.raises(InputError, match="asks for a token"):
                cluster.entry(address)
        monkeypatch.delenv(cluster.AUTH_MODE)
        monkeypatch.setenv(cluster.AUTH_TOKEN, token)
        assert cluster.entry(address) == {cluster.AUTH_MODE: "token"}
        code = f"from slimfront.search import cluster\nwith cluster.connected(None, {address!r}): print(len(cluster.alive()))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
        assert done.stdout.split() == [b"1"]
        assert token not in command_lines()
    assert not (tmp_path / ".ray").exists()


def health(address, settings):
    """Ask Ray, as another user of the machine could."""
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    return subprocess.run(ask, capture_output=True, check=False, env={**os.environ, **settings})


def command_lines():
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "words"),
    [("gcs_server", "does not answer any more"), ("raylet", "Ray on this machine has ended")],
)
def test_a_search_whose_ray_is_lost_ends_with_one_line_and_keeps_what_it_found(
    head, study_folder, tmp_path, process, words
):
    head.add_node(num_cpus=1)
    run = tmp_path / "run"
    arguments = ["search", str(study_folder), "--run", str(run), "--trials", "400", "--ray", head.address]
    ran = subprocess.Popen(
        [sys.executable, "-c", QUICKLY + SEARCH, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    records = run / "records.jsonl"
    while ran.poll() is None and not (records.exists() and records.read_bytes().count(b'"quality"') >= 2):
        time.sleep(0.05)
    os.kill(head.head_node.all_processes[process][0].process.pid, signal.SIGKILL)
    _, err = ran.communicate(timeout=120)
    assert ran.returncode == 2, err
    assert words in err.splitlines()[-1]
    assert "the same command goes on where this one ended" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert sum(record.stage == "quality" for record in read_records(records)) >= 2


@pytest.mark.slow
def test_a_search_without_any_node_waits_for_one_and_then_ends_with_one_line(head, study_folder, tmp_path, monkeypatch):
    """The first node is killed and another one joins; that one is killed, and nobody comes; the next search goes on."""
    monkeypatch.setattr(roster, "NODES_SECONDS", 0.2)
    working = [head.add_node(num_cpus=1)]
    notes = []

    class Killer:
        def prepare(self, text, fraction): ...

        def step(self, done, total, *more):
            if done >= 3 * (2 - len(working)) and working:
                head.remove_node(working.pop(), allow_graceful=False)

        def note(self, text):
            notes.append(text)
            if "no node is left" in text and len(notes_of("no node is left")) == 1:
                head.add_node(num_cpus=1)

    def notes_of(words):
        return [note for note in notes if words in note]

    run = search(load_study(study_folder), trials=8, run_dir=tmp_path / "run", ray=head.address, progress=Killer())
    assert len(notes_of("no node is left that could work; waiting up to 5 min")) == 1
    assert {trial.number for trial in run.trials if trial.measured or trial.predicted} == set(range(8))
    working = [next(node for node in head.worker_nodes)]
    monkeypatch.setattr(ray_pool, "PATIENCE", 1.0)
    with pytest.raises(InputError, match=r"no node that could work has joined .* the same command goes on"):
        search(load_study(study_folder), trials=30, run_dir=tmp_path / "run", ray=head.address, progress=Killer())
    head.add_node(num_cpus=1)
    run = search(load_study(study_folder), trials=14, run_dir=tmp_path / "run", ray=head.address)
    assert {trial.number for trial in run.trials if trial.measured or trial.predicted} == set(range(14))
    records = read_records(run.folder / "records.jsonl")
    done = [
        (r.trial, r.stage) for r in records if r.stage not in ("claim", "timing")
    ]  # what is begun again is claimed again
    assert len(set(done)) == len(done)


def test_nobody_waits_for_a_node_longer_than_the_search_may_take():
    pool = object.__new__(ray_pool.RayPool)
    pool.roster = SimpleNamespace(nodes={}, notes=[], coming=False)
    pool._waits_since, pool._deadline = None, time.monotonic() + 0.3
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"no node that could work has joined .* the same command goes on"):
        while True:
            pool._wait_for_a_node()
    assert 0.3 <= time.monotonic() - begun < 30.0
    waited = re.search(r"waiting up to (\S+) min", pool.notes[0])
    assert waited and 0.0 < float(waited[1]) <= 0.3 / 60.0
