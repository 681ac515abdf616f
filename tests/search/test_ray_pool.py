"""Searches on a real Ray cluster: three nodes on loopback, workers that die, hang and eat memory, nodes that go away."""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from slimfront.search import cluster, parcel, ray_pool, remote, roster
from slimfront.search import nodes as roster_nodes
from slimfront.search.loop import search
from slimfront.search.ray_pool import RayPool
from slimfront.spaces.errors import InputError
from slimfront.studies.records import read_records
from slimfront.studies.run_folder import use_machine_facts
from slimfront.studies.study import load_study

ray = pytest.importorskip("ray")

FAULT = "SLIMFRONT_TEST_FAULT"  # variable in a node's environment


@pytest.fixture(scope="module")
def nodes():
    """A cluster of three nodes of a processor each, a timing slot on two of them."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "include_dashboard": False, "resources": {cluster.SLOT: 1}}
    made = Cluster(initialize_head=True, head_node_args=head)
    made.add_node(num_cpus=1, resources={cluster.SLOT: 1})
    made.add_node(num_cpus=1)
    yield made
    made.shutdown()


@pytest.fixture
def pools(monkeypatch):
    """The pools of the test's searches; what they are told of the reference can be changed."""
    made = SimpleNamespace(all=[], reference={})

    def make(evaluator, reference, *more):
        made.all.append(RayPool(evaluator, replace(reference, **made.reference), *more))
        return made.all[-1]

    monkeypatch.setattr(ray_pool, "RayPool", make)
    return made


class Notes:
    """Keeps what is told of workers."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def prepare(self, text, fraction): ...
    def step(self, done, total, *more): ...


@pytest.fixture
def by_value():
    """What this file defines is sent to workers, which cannot import it."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def apart(monkeypatch, by_value):
    """Nodes that share no folder with this process; those with a fault in their environment have it."""
    about, unpack, name = remote.about, remote.unpack, FAULT

    def faulty_about(marks, *study):
        import os
        import time

        if os.environ.get(name) == "fails":
            raise RuntimeError("it fails")
        if os.environ.get(name) == "is silent":
            time.sleep(1000)
        return {**about({}, *study), "shares": []}

    def faulty_unpack(digest, packed):
        import os

        if os.environ.get(name) == "refuses the study":
            raise OSError("its disk is full")
        return unpack(digest, packed)

    changed = SimpleNamespace(**{**vars(remote), "about": faulty_about, "unpack": faulty_unpack})
    monkeypatch.setattr(roster_nodes, "remote", changed)
    monkeypatch.setattr(roster, "remote", changed)


@pytest.fixture
def faulty(monkeypatch, by_value):
    """Workers that do to the first pieces of work on some trials what the test says, and log when they worked."""

    def install(faults, log=None):
        def work(order, knowledge):
            import os
            import signal
            import time
            from pathlib import Path

            import numpy
            import ray

            from slimfront.search import remote

            kind, marks = faults.get((order.work.kind.value, order.work.numbers[0]), (None, None))
            if marks is not None:  # a fault that happens once
                try:
                    Path(marks).touch(exist_ok=False)
                except FileExistsError:
                    kind = None
            if kind == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            elif kind == "hang":
                yield remote.Step()
                time.sleep(1000)
            elif kind == "memory":
                yield remote.Step()
                numpy.ones(int(1e12), numpy.uint8)
            begun = time.monotonic()
            yield from remote.work(order, knowledge)
            if log is not None:
                told = (
                    ray.get_runtime_context().get_node_id(),
                    order.work.kind.value.split()[0],
                    begun,
                    time.monotonic(),
                )
                with Path(log).open("a") as file:
                    file.write(" ".join(map(str, told)) + "\n")

        monkeypatch.setattr(ray_pool, "remote", SimpleNamespace(**{**vars(remote), "work": work}))

    return install


def lacking(run):
    """Return the trials that are neither measured nor predicted, and why."""
    return [(t.number, t.state, t.reason) for t in run.all_trials if not (t.measured or t.predicted)]


def stages_once(run):
    """Return how often a stage of a trial is on record where it should be there once."""
    records = read_records(run.folder / "records.jsonl")
    done = [(r.trial, r.stage, r.sha256) for r in records if r.stage not in ("claim", "timing")]
    return len(done) - len(set(done))


def test_a_cluster_finds_what_one_process_finds(nodes, study_folder, tmp_path):
    alone = search(load_study(study_folder), trials=9, run_dir=tmp_path / "alone")
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", ray=nodes.address)
    assert lacking(run) == []
    assert [trial.candidate for trial in run.trials] == [trial.candidate for trial in alone.trials]
    assert [trial.sha256 for trial in run.trials] == [trial.sha256 for trial in alone.trials]
    for name in ("size_bytes", "psnr_db", "ssim"):
        assert [t.value(name) for t in run.trials] == pytest.approx([t.value(name) for t in alone.trials])
    records = [record for record in read_records(run.folder / "records.jsonl") if record.trial]
    assert {record.environment for record in records} == {load_study(study_folder).environment.digest}
    assert len({record.node for record in records if record.stage == "quality"}) == 3
    assert len({record.node for record in records if record.stage == "timing" and record.state == "done"}) <= 2
    assert not list((run.folder / "models").glob(".*"))


@pytest.mark.slow
def test_nodes_that_share_nothing_get_and_give_what_is_needed(nodes, pools, apart, study_folder, tmp_path):
    """Each node has a cache of its own, and the run's folder is not there."""
    left = []

    class Watch(Notes):
        def step(self, done, total, hypervolume, seconds, trial, *more):
            if trial.number:  # the reference's file is needed until the end
                left.extend(searches.glob(f"*/models/{trial.candidate.key}.onnx*"))

    pools.reference["reference_ms"] = 1e6
    progress = Watch()
    study = load_study(study_folder)
    use_machine_facts(tmp_path / "run", study)
    searches = parcel.place(parcel.digest_of(study)) / "searches"
    before = set(searches.glob("*"))
    run = search(study, trials=7, run_dir=tmp_path / "run", ray=nodes.address, progress=progress)
    assert lacking(run) == []
    kept = {path.stem for path in (run.folder / "models").glob("*.onnx")}
    assert kept >= {trial.candidate.key for trial in run.front_trials()}
    for trial in run.front_trials():
        assert run.model_path(trial).exists()
    assert left == []
    assert searches.exists()
    assert set(searches.iterdir()) <= before
    timers = {record.node for record in read_records(run.folder / "records.jsonl") if record.stage == "timing"} - {""}
    compared = [note for note in progress.notes if "times as long for the reference" in note]
    assert sorted(note.split()[2] for note in compared) == sorted(timers)


@pytest.mark.slow
def test_a_node_that_joins_and_fails_or_is_silent_is_left_out_while_others_work(
    nodes, apart, study_folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(roster, "NODES_SECONDS", 0.1)
    monkeypatch.setattr(roster_nodes, "ASKED_SECONDS", 20.0)
    study = load_study(study_folder)
    joined = []
    with cluster.connected(None, nodes.address):
        found = roster.Roster(study, tmp_path / "models")
        try:
            found.gather()
            first = set(found.nodes)
            assert len(first) == 3
            for fault in ("fails", "is silent", "refuses the study"):
                joined.append(nodes.add_node(num_cpus=1, env_vars={FAULT: fault}))
            joined.append(nodes.add_node(num_cpus=1))
            end = time.monotonic() + 90.0
            silent_when_another_worked = False
            while (found.coming or len(found.notes) < 3 or len(found.nodes) < 4) and time.monotonic() < end:
                found.look(seconds=0.1)
                assert first <= set(found.nodes)
                silent_when_another_worked |= len(found.nodes) == 4 and found.coming
        finally:
            found.close()
            for node in joined:
                nodes.remove_node(node)
    assert silent_when_another_worked
    assert len(found.nodes) == 4
    assert all("is left out: " in note for note in found.notes)
    for words in ("it fails", "did not answer in 20 s", "cannot be sent the study"):
        assert sum(words in note for note in found.notes) == 1
    assert not list((tmp_path / "models").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_nothing_else_runs_on_a_node_that_times(nodes, faulty, study_folder, tmp_path, threads):
    with (study_folder / "study.toml").open("a") as file:
        file.write(f"[target]\nthreads = {threads}\n")
    faulty({}, tmp_path / "log")
    two = nodes.add_node(num_cpus=2, resources={cluster.SLOT: 1})
    progress = Notes()
    try:
        run = search(load_study(study_folder), trials=8, run_dir=tmp_path / "run", ray=nodes.address, progress=progress)
    finally:
        nodes.remove_node(two)
    assert lacking(run) == []
    done = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    spans = [(node, kind, float(begun), float(ended)) for node, kind, begun, ended in done]
    timings = [span for span in spans if span[1] != "judge"]
    assert timings
    assert any(node == two.node_id for node, *_ in spans)
    for timing in timings:
        here = [span for span in spans if span[0] == timing[0] and span is not timing]
        assert [span for span in here if span[2] < timing[3] and timing[2] < span[3]] == []
    fewer = [note for note in progress.notes if "fewer processors than target.threads" in note]
    assert len(fewer) == (3 if threads == 2 else 0)
    assert threads == 1 or {node for node, *_ in spans} == {two.node_id}


@pytest.mark.slow
def test_who_crashes_hangs_or_eats_memory_fails_and_the_search_goes_on(nodes, faulty, study_folder, tmp_path):
    toml = (study_folder / "study.toml").read_text()
    (study_folder / "study.toml").write_text(toml.replace("[search]", '[search]\nstage_timeout = "20s"'))
    faulty({("judge", 2): ("segfault", None), ("judge", 4): ("hang", None), ("judge", 6): ("memory", None)})
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", ray=nodes.address)
    failed = {trial.number: trial.reason for trial in run.trials if trial.state == "failed"}
    assert list(failed) == [2, 4, 6]
    assert "crashed" in failed[2]
    assert "took longer than 20 s" in failed[4]
    assert "MemoryError" in failed[6]
    assert stages_once(run) == 0


@pytest.mark.slow
def test_who_crashes_once_is_evaluated_again(nodes, faulty, study_folder, tmp_path):
    once = {("judge", 2): "a", ("judge", 5): "b", ("time", 1): "c"}
    faulty({where: ("segfault", str(tmp_path / mark)) for where, mark in once.items()})
    run = search(load_study(study_folder), trials=8, run_dir=tmp_path / "run", ray=nodes.address)
    assert (tmp_path / "a").exists()
    assert (tmp_path / "b").exists()
    assert lacking(run) == []
    assert stages_once(run) == 0


@pytest.mark.slow
def test_a_node_that_is_lost_costs_nothing_but_time(nodes, study_folder, tmp_path):
    lost = nodes.add_node(num_cpus=2)
    killed = []

    class Killer(Notes):
        def step(self, done, total, *more):
            if done >= 4 and not killed:
                killed.append(done)
                nodes.remove_node(lost, allow_graceful=False)

    study = load_study(study_folder)
    run = search(study, trials=14, run_dir=tmp_path / "run", ray=nodes.address, progress=Killer())
    assert killed
    assert lacking(run) == []
    assert stages_once(run) == 0
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "next", ray=nodes.address)
    assert lacking(run) == [], "Ray lists the node for a while, and the next search begins without it"


@pytest.mark.slow
def test_without_a_node_like_this_one_timings_are_made_here(nodes, pools, study_folder, tmp_path, monkeypatch):
    from slimfront.studies import environment as environment_module

    monkeypatch.setattr(environment_module, "cpu_name", lambda: "another processor")
    run = search(load_study(study_folder), trials=5, run_dir=tmp_path / "run", ray=nodes.address)
    assert lacking(run) == []
    records = [record for record in read_records(run.folder / "records.jsonl") if record.trial]
    assert {record.node for record in records if record.stage == "timing"} == {""}
    assert len({record.environment for record in records}) == 2
    assert {record.environment for record in records} == set(run.environments())


def test_other_versions_on_a_node_are_refused_with_the_difference(nodes, study_folder, tmp_path, monkeypatch):
    here = remote.versions("onnxruntime") | {"onnxruntime": "0.1"}
    monkeypatch.setattr(cluster.remote, "versions", lambda runtime: here)
    with pytest.raises(InputError, match=r"onnxruntime .* Install the same ones"):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", ray=nodes.address)
    assert not ray.is_initialized()


def test_another_version_of_the_runtime_of_a_study_is_refused(nodes, study_folder, tmp_path, monkeypatch):
    there = remote.versions("openvino")["openvino"]
    here = remote.versions("openvino") | {"openvino": "2024.0"}
    monkeypatch.setattr(cluster.remote, "versions", lambda runtime: here)
    text = (study_folder / "study.toml").read_text() + '[target]\nruntime = "openvino"\n'
    (study_folder / "study.toml").write_text(text)
    with pytest.raises(InputError, match=f"openvino {re.escape(there)}.*Install the same ones"):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", ray=nodes.address)
    assert not ray.is_initialized()


def test_what_packs_a_runtimes_files_is_among_the_versions():
    pytest.importorskip("litert_torch")
    assert {"ai_edge_litert", "litert-torch", "litert-converter"} <= remote.versions("litert").keys()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_search_that_is_ended_leaves_no_process_and_goes_on(study_folder, tmp_path, how):
    run = tmp_path / "run"
    code = "from slimfront.cli import main; main()"
    arguments = ["search", str(study_folder), "--run", str(run), "--trials", "12", "--workers", "2", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "SLIMFRONT_TEST": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # also where it is ignored
    )
    records = run / "records.jsonl"
    while process.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") >= 12):
        time.sleep(0.05)
    os.killpg(process.pid, how)
    out, err = process.communicate()
    assert process.returncode == (130 if how == signal.SIGINT else -how), err
    assert out == b""
    end = time.monotonic() + 30.0
    while (left := descendants(tmp_path)) and time.monotonic() < end:
        time.sleep(0.1)
    assert left == []
    before = list(read_records(records))
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ, capture_output=True, check=True)
    assert done.stdout.startswith(b"{")
    after = list(read_records(records))
    assert after[: len(before)] == before
    once = [(record.trial, record.stage) for record in after if record.stage not in ("claim", "timing")]
    assert len(set(once)) == len(once)
    assert len({record.trial for record in after}) == 12


def descendants(mark):
    """Return the command lines of processes whose environment holds a mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLIMFRONT_TEST={mark}".encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_bytes())
        except OSError:
            continue
    return found


def test_ray_is_not_imported_without_workers(study_folder, tmp_path):
    code = f"""
import sys
from slimfront.search.loop import search
search({str(study_folder)!r}, trials=2, run_dir={str(tmp_path / "run")!r})
assert "ray" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
