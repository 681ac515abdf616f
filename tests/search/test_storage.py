"""Records in a database: several coordinators on one study, a database that goes away, what is refused."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import postgres

from slimfront.search.loop import search
from slimfront.spaces.errors import InputError
from slimfront.studies import record_table as record_table_module
from slimfront.studies.database import PASSWORD_VARIABLE
from slimfront.studies.process import is_gone, this_process
from slimfront.studies.record_table import RecordTable, read_about, read_table
from slimfront.studies.records import Record, RecordFile
from slimfront.studies.run import Run
from slimfront.studies.study import load_study

CLAIM = Record(study="s", key="k", stage="claim", environment="e", state="done", trial=0, candidate={"layers": {}})
SEARCHER = """
    import sys
    from slimfront.objectives.timing import Timing
    from slimfront.search import evaluate
    from slimfront.search.loop import search

    evaluate.Timing = lambda: Timing(least_rounds=3, most_rounds=3, slot_seconds=0.0)
    study, run, storage, trials = sys.argv[1:]

    class Listener:
        def note(self, text): print("note:", text, flush=True)
        def prepare(self, text, fraction): ...
        def step(self, done, *more): print("done", done, flush=True)

    print("front", [t.number for t in search(study, int(trials), run, storage=storage, progress=Listener()).front_trials()])
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if postgres.program("initdb") is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    folder = Path("/tmp") / f"slimfront-postgres-{os.getpid()}"  # its user has to reach it
    made = postgres.Server(folder)
    yield made
    made.stop()
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/records.db"
    return request.getfixturevalue("server").database()


@pytest.fixture
def table(url, request):
    made = RecordTable(url, f"{request.node.name}"[:60])
    with made:
        yield made


def another(table):
    return RecordTable(table.url, table.study)


def searcher(study, run, storage, trials):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SEARCHER), str(study), str(run), storage, str(trials)],
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def done(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def evaluated(records):
    """Count how often each stage before timing, and each first timing, was recorded of each candidate."""
    return Counter((r.key, r.stage, r.environment) for r in records if r.stage not in ("timing",))


def test_what_one_writes_the_others_read_in_order(table):
    with another(table) as other:
        assert other.news() == []
        written = [replace(CLAIM, stage="build", trial=n, readings={"x": {"value": 0.1 * n}}) for n in range(5)]
        table.append(*written[:2])
        table.append(*written[2:])
        assert other.news() == written
        assert other.news() == []
        other.append(written[0])
        assert table.news() == [written[0]], "not what it wrote itself"
    assert read_table(table.url, table.study) == [*written, written[0]]
    assert RecordTable(table.url, "another study").news() == []


def test_records_that_were_committed_late_are_not_missed(table, monkeypatch):
    """A number of a row is given before it is committed: one with a smaller number may show up later."""
    with another(table) as other:
        other.append(*(replace(CLAIM, stage="build", trial=n) for n in range(3)))
        late = list(table._seen)  # nothing of it is read yet
        assert late == []
        assert len(table.news()) == 3
        table._seen = {name: id_ for name, id_ in table._seen.items() if id_ != min(table._seen.values())}
        assert [record.trial for record in table.news()] == [0]


def test_a_candidate_is_claimed_once_and_numbers_have_no_gaps(table):
    keys = [f"k{n}" for n in range(6)]
    with another(table) as other:
        first = table.claim([[replace(CLAIM, key=key)] for key in keys[:3]], 0)
        second = other.claim([[replace(CLAIM, key=key)] for key in keys[2:5]], 0)
        third = table.claim([[replace(CLAIM, key=key)] for key in keys[4:]], 0)
        assert [[record.trial for record in own] for own in (*first, *second, *third)] == [[n] for n in range(6)]
        assert [own[0].key for own in second] == ["k3", "k4"]
        assert [own[0].key for own in third] == ["k5"]
        assert [table.mine(n) for n in range(6)] == [True, True, True, False, False, True]
        assert [other.mine(n) for n in range(6)] == [False, False, False, True, True, False]


def test_trials_of_who_has_left_are_taken_over_and_those_of_the_living_are_not(table):
    with another(table) as other:
        other.claim([[replace(CLAIM, key="k0")]], 0)
        assert table.others
        assert table.adopt() == set()
    assert not table.others
    assert table.adopt() == {0}
    assert table.mine(0)
    assert table.adopt() == set()


def test_who_stands_still_on_another_machine_is_taken_for_dead_after_its_lease(table, monkeypatch):
    monkeypatch.setattr(record_table_module, "this_process", lambda: "elsewhere:1:1")
    other = another(table)
    other.__enter__()
    monkeypatch.undo()
    other.claim([[replace(CLAIM, key="k0")]], 0)
    assert table.adopt() == set()
    time.sleep(1.5 * record_table_module.BEAT_SECONDS)
    monkeypatch.setattr(record_table_module, "LEASE_SECONDS", 1.0)
    assert table.adopt() == set(), "its counter has moved"
    other._ended.set()
    other._beating.join()  # as if it had been killed
    table.adopt()
    time.sleep(1.1)
    assert table.adopt() == {0}
    other.close()


def test_a_process_that_ended_is_gone_at_once(tmp_path):
    code = "from slimfront.studies.process import this_process; print(this_process())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_gone(gone)
    assert not is_gone(this_process())
    assert not is_gone("elsewhere:1:1")


def test_of_facts_about_a_study_what_was_told_first_holds(table):
    table.about({"created": "now"})
    with another(table) as other:
        assert other.agreed({}) == {"created": "now"}
        assert table.agreed({"artifacts": "s3://a", "created": "later"}) == {"artifacts": "s3://a", "created": "now"}
        assert other.agreed({"artifacts": "s3://b"}) == {"artifacts": "s3://a", "created": "now"}
    assert read_about(table.url, table.study) == {"artifacts": "s3://a", "created": "now"}
    assert read_about(table.url, "another study") == {}


def test_both_kinds_of_storage_number_and_keep_alike(table, tmp_path):
    with RecordFile(tmp_path / "records.jsonl") as file:
        for records in (table, file):
            won = [own for n in range(3) for own in records.claim([[replace(CLAIM, key=f"k{n}")]], n)]
            assert [record.trial for own in won for record in own] == [0, 1, 2]
            records.append(replace(CLAIM, key="k1", stage="build", trial=1))
            assert all(records.mine(number) for number in range(3))
            assert not records.others
    with RecordFile(tmp_path / "records.jsonl") as file:
        assert file.news() == another(table).news()
        assert file.news() == []


def test_two_coordinators_share_a_study_and_evaluate_nothing_twice(study_folder, tmp_path, url):
    both = [searcher(study_folder, tmp_path / name, url, 30) for name in ("a", "b")]
    fronts = [done(process).splitlines()[-1] for process in both]
    assert all(front.startswith("front") for front in fronts)
    records = read_table(url, load_study(study_folder).digest)
    assert set(evaluated(records).values()) == {1}
    runs = [Run(tmp_path / name) for name in ("a", "b")]
    assert [t.number for t in runs[0].all_trials] == list(range(30))
    assert len({trial.candidate for trial in runs[0].all_trials}) == 30
    assert runs[0].front_trials() == runs[1].front_trials()
    assert all(trial.measured or trial.predicted for trial in runs[0].all_trials)
    alone = search(load_study(study_folder), trials=30, run_dir=tmp_path / "alone")
    assert {t.candidate for t in runs[0].trials} == {t.candidate for t in alone.trials}
    for trial in runs[0].front_trials():
        assert runs[1].model_path(trial).exists(), "built again where it was evaluated elsewhere"


def test_a_killed_coordinators_trials_are_finished_by_the_next(study_folder, tmp_path, url):
    first = searcher(study_folder, tmp_path / "a", url, 12)
    for line in first.stdout:
        if line.startswith("done 4"):
            break
    first.send_signal(signal.SIGKILL)
    first.communicate()
    before = read_table(url, load_study(study_folder).digest)
    done(searcher(study_folder, tmp_path / "a", url, 12))
    after = read_table(url, load_study(study_folder).digest)
    assert after[: len(before)] == before
    assert set(evaluated(after).values()) == {1}
    assert len(Run(tmp_path / "a").trials) == 12


def test_a_database_that_is_stopped_and_started_loses_nothing(server, study_folder, tmp_path):
    url = server.database()
    running = searcher(study_folder, tmp_path / "a", url, 16)
    for line in running.stdout:
        if line.startswith("done 5"):
            break
    server.stop()
    time.sleep(2.0)
    server.start()
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "the storage does not answer" in out
    records = read_table(url, load_study(study_folder).digest)
    assert set(evaluated(records).values()) == {1}
    assert len(Run(tmp_path / "a").trials) == 16


def test_a_run_that_was_begun_in_its_folder_moves_into_a_database(study_folder, tmp_path, url, quick_timing):
    before = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run")
    run = search(load_study(study_folder), trials=5, run_dir=tmp_path / "run", storage=url)
    assert run.trials[:3] == before.trials
    assert len(search(load_study(study_folder), trials=6, run_dir=tmp_path / "run").trials) == 6, (
        "goes on in the database"
    )
    other = tmp_path / "other"
    search(load_study(study_folder), trials=2, run_dir=other)
    with pytest.raises(InputError, match=r"has records of its own"):
        search(load_study(study_folder), trials=5, run_dir=other, storage=url)
    with pytest.raises(InputError, match=r"keeps its records in .*, not in sqlite"):
        search(load_study(study_folder), trials=5, run_dir=tmp_path / "run", storage="sqlite:///elsewhere.db")


def test_no_file_holds_the_password(study_folder, tmp_path, server, quick_timing, monkeypatch):
    url = server.database()
    secret = url.replace("tester@", "tester:hush@")
    search(load_study(study_folder), trials=2, run_dir=tmp_path / "run", storage=secret)
    files = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files
    assert not any(b"hush" in content for content in files)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["storage"] == url
    monkeypatch.setenv(PASSWORD_VARIABLE, secret)
    assert len(Run(tmp_path / "run").trials) >= 2


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("nonsense://somewhere", r"cannot be read: give postgresql://"),
        ("postgresql://nobody:hush@127.0.0.1:1/x", r"'postgresql://nobody@127.0.0.1:1/x' cannot be opened: .*refused"),
        ("sqlite:////no/such/folder/x.db", r"cannot be opened: unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_is_refused_before_anything_is_done(study_folder, tmp_path, storage, words):
    with pytest.raises(InputError, match=words):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", storage=storage)
    assert not (tmp_path / "run").exists()


def test_a_missing_driver_is_named_with_what_to_install(study_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InputError, match=r"needs a driver: pip install 'slimfront\[mysql\]'"):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", storage="mysql://somebody@127.0.0.1/x")
