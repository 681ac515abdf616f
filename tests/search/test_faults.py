"""Searches disturbed as `studies/benchmarks/faults.py` does it, at small size: each finds what an undisturbed one finds."""

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "studies" / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parent))
import faults
import postgres
from disturbed import Disturbed, Fault, front_of

from slimfront.studies.run import Run

pytest.importorskip("ray")
STAGES = ("prediction", "build", "quality", "timing")


@pytest.fixture(scope="module")
def bench(tmp_path_factory, write_study):
    folder = tmp_path_factory.mktemp("faults")
    write_study(folder / "study")
    made = faults.Bench(folder, folder / "study", trials=14, records=False)
    yield made
    made.close()


@pytest.mark.slow
def test_a_worker_killed_in_each_stage_costs_nothing(bench):
    keys = bench.keys(4, timed=True)
    planned = [Fault("kill", key, stage, at="done") for key, stage in zip(keys, STAGES, strict=True)]
    found = faults.with_workers(bench, planned)
    assert found.faults == 4
    assert found.harmless, found


@pytest.mark.parametrize("how", ["mounted", "limited"])
def test_a_full_disk_is_told_and_costs_nothing(bench, monkeypatch, how):
    if how == "limited":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    found = faults.disk_full(bench, 2)  # it takes only the words for it, and status 2
    assert found.faults == 2
    assert found.harmless, found


@pytest.mark.slow
@pytest.mark.parametrize("in_timing", [False, True])
def test_a_node_that_is_lost_with_all_its_processes_costs_nothing(bench, in_timing):
    found = faults.node_killed(bench, 1, in_timing)
    assert found.faults == 1
    assert found.harmless, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "disturb", [faults.database_stopped, faults.one_of_two_killed, faults.coordinator_killed], ids=lambda f: f.__name__
)
def test_a_search_that_is_broken_off_costs_nothing(bench, disturb):
    if disturb is not faults.coordinator_killed and postgres.program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    found = disturb(bench, 3)
    assert found.faults == 3
    assert found.harmless, found


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "once", "injected"), [("segfault", 1, 3), ("hang", 1, 3), ("memory", 0, 1)])
def test_a_candidate_that_does_harm_each_time_fails_alone(bench, kind, once, injected):
    found = faults.candidate_fails(bench, kind, once, always=1)
    assert found.faults == injected, "it is tried twice, but for one whose failure is a result"
    assert found.harmless, found


def test_harm_is_noticed(bench, tmp_path):
    """What the other tests rely on."""
    search = Disturbed(tmp_path / "search", bench.study, trials=3)
    search.finish()
    front = front_of(Run(search.run))
    search.note()
    assert search.verdict(front).harmless
    assert not search.verdict(front[1:]).same
    records = search.run / "records.jsonl"
    whole = records.read_bytes()
    records.write_bytes(whole[: whole.rindex(b"\n", 0, -1) + 1])
    assert search.verdict(front).lost
    records.write_bytes(whole + whole[whole.rindex(b"\n", 0, -1) + 1 :])
    assert search.verdict(front).twice == 1
    records.write_bytes(whole)
    key = front[0][0]
    with (search.folder / "log").open("a") as log:
        log.write(f"begun {key} build -\n")
    assert search.verdict(front).twice == 1
