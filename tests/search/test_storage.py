"""Records in a database: several coordinators on one study, a database that goes away, what is refused."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from filelock import Timeout

sys.path.insert(0, str(Path(__file__).parent))
import postgres

from slimfront.objectives import machine
from slimfront.search.loop import search
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies import attendance, database
from slimfront.studies import storage as storage_module
from slimfront.studies.database import PASSWORD_VARIABLE
from slimfront.studies.process import is_gone, this_process
from slimfront.studies.record_table import RecordTable, read_table
from slimfront.studies.records import Record, RecordFile
from slimfront.studies.run import Run
from slimfront.studies.study import load_study
from slimfront.studies.study_table import about, read_about

CLAIM = Record(study="s", key="k", stage="claim", environment="e", state="done", trial=0, candidate={"layers": {}})
SEARCHER = """
    import sys
    from slimfront.objectives.timing import Timing
    from slimfront.search import evaluate
    from slimfront.search.loop import search
    from slimfront.studies import attendance
    from slimfront.studies import study as studies

    studies.kernel_step, studies.layer_offers = lambda *_: 16, lambda *_: {}  # as in the tests' own process
    evaluate.Timing = lambda: Timing(least_rounds=3, most_rounds=3, slot_seconds=0.0)
    study, run, storage, trials, attendance.LEASE_SECONDS = *sys.argv[1:5], float(sys.argv[5])

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


SLOW_SERVER = pytest.mark.parametrize(
    "url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)


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


class Listener:
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def prepare(self, text, fraction): ...

    def step(self, *told): ...


def another(table, note=lambda text: None):
    return RecordTable(table.database.url, table.study, note)


def searcher(study, run, storage, trials, lease=attendance.LEASE_SECONDS):
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SEARCHER), str(study), str(run), storage, str(trials), str(lease)],
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
    """Count how often each stage before timing was recorded of each candidate, and how often it was claimed first."""
    found = [r for r in records if r.stage != "timing" and (r.stage != "claim" or r.candidate is not None)]
    return Counter((r.key, r.stage, r.environment) for r in found)


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
    assert read_table(table.database.url, table.study) == [*written, written[0]]
    assert RecordTable(table.database.url, "another study").news() == []


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


def elsewhere(table, monkeypatch):
    """Return a coordinator on another machine, which does not say that it is at work after it has said so once."""
    made = another(table)
    with monkeypatch.context() as patch:
        patch.setattr(attendance, "this_process", lambda: "elsewhere:1:1")
        table.database.do(made._attendance.sign)
    return made


def coordinators(table):
    rows = table.database.tables.coordinators
    return set(table.database.do(lambda c: c.execute(sa.select(rows.c.owner)).scalars().all()))


def age(table, other, seconds):
    """Let a coordinator have said so many seconds earlier that it is at work."""
    rows = table.database.tables.coordinators
    older = rows.update().where(rows.c.owner == other._attendance.owner).values(beat=rows.c.beat - seconds)
    table.database.do(lambda connection: connection.execute(older))


def test_who_was_silent_on_another_machine_for_its_lease_is_taken_for_dead_at_once(table, monkeypatch):
    other = elsewhere(table, monkeypatch)
    other.claim([[replace(CLAIM, key="k0")]], 0)
    assert table.adopt() == set()
    age(table, other, attendance.LEASE_SECONDS - 5)
    assert table.adopt() == set(), "it may still be alive"
    assert table.others
    age(table, other, 5)
    assert not table.others
    assert table.adopt() == {0}
    assert table.mine(0)
    assert coordinators(table) == {table._attendance.owner}


def test_nobody_is_taken_for_dead_just_after_the_database_was_away(table, monkeypatch):
    other = elsewhere(table, monkeypatch)
    other.claim([[replace(CLAIM, key="k0")]], 0)
    age(table, other, 10 * attendance.LEASE_SECONDS)
    table.database.attempt(lambda connection: connection.execute(sa.text("select nonsense from nowhere")))
    assert table.adopt() == set()
    monkeypatch.setattr(attendance, "GRACE_SECONDS", 0.0)
    assert table.adopt() == {0}


def test_a_sign_of_life_is_told_from_silence(table, monkeypatch):
    other = elsewhere(table, monkeypatch)
    age(table, other, 10)
    assert table.silent(5.0)
    assert not table.silent(30.0)
    table.database.do(other._attendance.sign)
    assert not table.silent(5.0)
    age(table, other, 2 * attendance.LEASE_SECONDS)
    assert not table.silent(5.0), "who is dead is not waited for"


def test_who_comes_back_after_its_trials_were_taken_over_writes_nothing_of_them(table, monkeypatch):
    notes = []
    other = another(table, notes.append)
    other._attendance.sign, signed = lambda connection: None, other._attendance.sign
    with other:  # as one that is suspended
        other.claim([[replace(CLAIM, key=f"k{n}")] for n in range(2)], 0)
        assert table.adopt() == {0, 1}
        other._attendance.sign = signed
        mine = other.claim([[replace(CLAIM, key="k2")]], 0)[0][0]
        of_others, own = replace(CLAIM, key="k0", stage="build"), replace(mine, stage="build")
        assert other.append(of_others, own) == [own]
        assert (other.mine(0), other.mine(1), other.mine(2)) == (False, True, True)
        assert other.adopt() == set()
        assert not other.mine(1)
        assert table.adopt() == set(), "it is at work again"
        assert table.append(of_others) == [of_others]
        written = [(record.key, record.stage) for record in read_table(table.database.url, table.study)]
        assert written == [("k0", "claim"), ("k1", "claim"), ("k2", "claim"), ("k2", "build"), ("k0", "build")]
    assert [note.split(" are")[0] for note in notes] == ["1 candidates of this process"] * 2


def test_nothing_is_done_twice_where_the_database_did_not_come_to_say_that_it_had_done_it(table):
    """Each transaction is broken off once after its commit."""
    do = table.database.do

    def twice(what):
        do(what)
        return do(what)

    with another(table) as other:
        other.claim([[replace(CLAIM, key="k0")]], 0)
    table.database.do = twice
    assert table.adopt() == {0}
    assert table.mine(0)
    assert [own[0].trial for own in table.claim([[replace(CLAIM, key=f"k{n}")] for n in (1, 2)], 0)] == [1, 2]
    build = replace(CLAIM, key="k1", trial=1, stage="build")
    assert table.append(build) == [build]
    records = read_table(table.database.url, table.study)
    assert [(record.trial, record.stage) for record in records] == [*((n, "claim") for n in range(3)), (1, "build")]


def test_no_more_trials_are_claimed_than_there_are_to_be(table, tmp_path):
    claims = [[replace(CLAIM, key=f"k{n}")] for n in range(6)]
    with another(table) as other, RecordFile(tmp_path / "records.jsonl") as file:
        assert [own[0].trial for own in table.claim(claims[:3], 0, 5)] == [0, 1, 2]
        assert [own[0].trial for own in other.claim(claims[1:], 0, 5)] == [3, 4]
        assert table.claim(claims[5:], 0, 5) == other.claim(claims[5:], 0, 5) == []
        assert table.claim(claims[5:], 0)[0][0].trial == 5
        assert [own[0].trial for own in file.claim(claims, 0, 4)] == [0, 1, 2, 3]
        assert file.claim(claims, 4, 4) == []


def test_coordinators_that_claim_at_the_same_time_get_numbers_without_gaps(table):
    """Several threads, each a coordinator, claim in turns what the others claim as well."""
    others = [another(table) for _ in range(4)]
    claims = [[replace(CLAIM, key=f"k{n}")] for n in range(60)]

    def claim(coordinator):
        return [own[0] for n in range(0, 60, 6) for own in coordinator.claim(claims[n : n + 6], 0, 50)]

    with ThreadPoolExecutor(4) as pool:
        won = [record for own in pool.map(claim, others) for record in own]
    assert sorted(record.trial for record in won) == list(range(50))
    assert len({record.key for record in won}) == 50


def test_a_process_that_ended_is_gone_at_once(tmp_path):
    code = "from slimfront.studies.process import this_process; print(this_process())"
    gone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert is_gone(gone)
    assert not is_gone(this_process())
    assert not is_gone("elsewhere:1:1")


def test_of_facts_about_a_study_what_was_told_first_holds(table):
    about(table.database, table.study, {"created": "now"})
    with another(table) as other:
        assert other.agreed({}) == {"created": "now"}
        assert table.agreed({"artifacts": "s3://a", "created": "later"}) == {"artifacts": "s3://a", "created": "now"}
        assert other.agreed({"artifacts": "s3://b"}) == {"artifacts": "s3://a", "created": "now"}
    assert read_about(table.database.url, table.study) == {"artifacts": "s3://a", "created": "now"}
    assert read_about(table.database.url, "another study") == {}


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


@pytest.mark.slow
def test_what_one_keeps_the_others_have(table, monkeypatch):
    from slimfront.studies import holdings_table

    monkeypatch.setattr(holdings_table, "PART_BYTES", 1000)
    data = bytes(range(256)) * 10
    with another(table) as other:
        assert other.kept("sha256:a") is None
        table.keep("sha256:a", data)
        other.keep("sha256:a", data)
        assert other.kept("sha256:a") == data
        assert other.kept("sha256:b") is None
    assert holdings_table.SharedHoldings(table.database.url, table.study).kept("sha256:a") == data
    assert holdings_table.SharedHoldings(table.database.url, "another study").kept("sha256:a") is None


@SLOW_SERVER
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


@SLOW_SERVER
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


def suspend(process: subprocess.Popen, url: str) -> None:
    """Stop a process while it holds no lock: others would wait for it, in the database or for this machine's processors."""
    while True:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        if process.poll() is not None or not (in_use(url) or times_something()):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.05)


def in_use(url: str) -> bool:
    """Whether somebody reads or writes in a database, or is about to."""
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")), timeout=0.1, isolation_level=None)) as own:
            try:
                own.execute("BEGIN EXCLUSIVE")
                own.execute("ROLLBACK")
            except sqlite3.OperationalError:
                return True
        return False
    asked = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    with database.engine(database.complete(url)).connect() as own:
        return own.execute(sa.text(f"{asked} and state <> 'idle'")).scalar_one() > 0


def times_something() -> bool:
    """Whether somebody has this machine for a timing."""
    try:
        machine._acquired(singleton=False, timeout=0).release()
    except Timeout:
        return True
    return False


@pytest.mark.slow
def test_a_search_that_was_suspended_for_longer_than_its_lease_leaves_to_others_what_they_took(
    study_folder, tmp_path, url
):
    lease = 6.0
    first = searcher(study_folder, tmp_path / "a", url, 14, lease)
    for line in first.stdout:
        if line.startswith("done 4"):
            break
    suspend(first, url)
    try:
        told = done(searcher(study_folder, tmp_path / "b", url, 14, lease))
    finally:
        first.send_signal(signal.SIGCONT)
    assert "still evaluating" not in told, "it waited until it was known that the other stands still"
    done(first)
    assert set(evaluated(read_table(url, load_study(study_folder).digest)).values()) == {1}
    runs = [Run(tmp_path / name) for name in ("a", "b")]
    assert [len(run.trials) for run in runs] == [14, 14]
    fronts = [[trial.number for trial in run.front_trials()] for run in runs]
    assert fronts[0] == fronts[1], "who was suspended may time members again after the other has ended: both see it"


@pytest.mark.slow
def test_trials_of_a_coordinator_that_died_elsewhere_are_waited_for_at_the_end(
    study_folder, tmp_path, url, monkeypatch
):
    """It died a moment ago: nobody can tell yet, and its trial is the last one."""
    study = load_study(study_folder)
    search(study, trials=3, run_dir=tmp_path / "a", storage=url)
    other = RecordTable(url, study.digest)
    with monkeypatch.context() as patch:
        patch.setattr(attendance, "this_process", lambda: "elsewhere:1:1")
        other.database.do(other._attendance.sign)
    candidate = Candidate({"conv1": LayerChoice(8, 32)})
    other.claim([[replace(CLAIM, study=study.digest, key=candidate.key, candidate=candidate.to_json())]], 0)
    monkeypatch.setattr(attendance, "LEASE_SECONDS", 20.0)
    listener = Listener()
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "a", storage=url, progress=listener)
    assert [trial.number for trial in run.trials] == [0, 1, 2, 3]
    assert run.trials[3].candidate == candidate
    assert sum("waiting to see whether they live" in note for note in listener.notes) == 1
    assert not any("still evaluating" in note for note in listener.notes)


def test_who_still_works_is_left_to_it(study_folder, tmp_path, url):
    study = load_study(study_folder)
    search(study, trials=3, run_dir=tmp_path / "a", storage=url)
    candidate = Candidate({"conv1": LayerChoice(8, 32)})
    listener = Listener()
    with RecordTable(url, study.digest) as other:
        other.claim([[replace(CLAIM, study=study.digest, key=candidate.key, candidate=candidate.to_json())]], 0)
        run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "a", storage=url, progress=listener)
        assert other.mine(3)
        assert other.adopt() == {0, 1, 2}, "those of the search, which has left; its own it still has"
    assert len(run.trials) == 3
    assert "other processes are still evaluating 1 candidates of the run" in listener.notes


@pytest.mark.slow
def test_a_database_that_is_stopped_and_started_loses_nothing(server, study_folder, tmp_path):
    url = server.database()
    running = searcher(study_folder, tmp_path / "a", url, 16)
    for line in running.stdout:
        if line.startswith("done 5"):
            break
    running.send_signal(signal.SIGSTOP)  # however fast it is
    server.stop()
    running.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    server.start()
    out, err = running.communicate(timeout=300)
    assert running.returncode == 0, err
    assert "the storage does not answer" in out
    records = read_table(url, load_study(study_folder).digest)
    assert set(evaluated(records).values()) == {1}
    assert len(Run(tmp_path / "a").trials) == 16


def test_a_run_that_was_begun_in_its_folder_moves_into_a_database(study_folder, tmp_path, url):
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


def test_a_run_that_was_killed_while_it_moved_goes_on(study_folder, tmp_path, url, monkeypatch):
    """Its records are in the database, and its folder does not say so yet."""
    search(load_study(study_folder), trials=3, run_dir=tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage_module, "write_whole", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        search(load_study(study_folder), trials=5, run_dir=tmp_path / "run", storage=url)
    assert "storage" not in json.loads((tmp_path / "run" / "run.json").read_text())
    moved = read_table(url, load_study(study_folder).digest)
    run = search(load_study(study_folder), trials=5, run_dir=tmp_path / "run", storage=url)
    assert len(run.trials) == 5
    assert read_table(url, load_study(study_folder).digest)[: len(moved)] == moved


@pytest.mark.slow
def test_more_records_than_a_statement_has_parameters_are_moved(url):
    count = 70_000
    records = [replace(CLAIM, key=f"k{n}", trial=n) for n in range(count)]
    with RecordTable(url, "s") as table:
        assert table.take_over(records)
        assert table.take_over(records), "they are there"
        assert not table.take_over([*records, replace(CLAIM, key="new", trial=count)])
        assert table.adopt() == set(range(count))
        assert table.news() == records
        assert table.claim([[replace(CLAIM, key="new")]], 0)[0][0].trial == count
        assert table.append(*(replace(record, stage="build") for record in records[:40_000]))
        assert table.news() == []


def test_no_file_holds_the_password(study_folder, tmp_path, server, monkeypatch):
    url = server.database()
    secret = url.replace("tester@", "tester:hush@")
    search(load_study(study_folder), trials=2, run_dir=tmp_path / "run", storage=secret)
    files = [path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert files
    assert not any(b"hush" in content for content in files)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["storage"] == url
    monkeypatch.setenv(PASSWORD_VARIABLE, secret)
    assert len(Run(tmp_path / "run").trials) >= 2


def test_a_search_needs_the_password_only_where_it_is_given(study_folder, tmp_path, server, monkeypatch):
    url = server.database(password="hush")
    secret = url.replace("@", ":hush@")
    search(load_study(study_folder), trials=2, run_dir=tmp_path / "run", storage=secret)
    assert len(search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", storage=secret).trials) == 3
    with pytest.raises(InputError, match=r"password"):
        search(load_study(study_folder), trials=4, run_dir=tmp_path / "run")
    monkeypatch.setenv(PASSWORD_VARIABLE, secret)
    assert len(search(load_study(study_folder), trials=4, run_dir=tmp_path / "run").trials) == 4
    assert len(Run(tmp_path / "run").trials) == 4


@pytest.mark.parametrize("kind", ["postgresql", "mysql"])
def test_a_server_that_never_answers_is_given_up(kind, monkeypatch):
    """It accepts a connection and says nothing, as a hanging machine does."""
    if kind == "mysql":
        pytest.importorskip("pymysql")
    monkeypatch.setattr(database, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(database, "SILENT_SECONDS", 3)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(InputError, match=r"cannot be worked with: .*(timeout|timed out)"):
            RecordTable(f"{kind}://me@127.0.0.1:{port}/x", "s")


def test_a_connection_whose_other_end_is_gone_is_noticed_within_a_minute(server):
    opened = database.engine(database.complete(server.database()))
    with opened.connect() as connection, socket.socket(fileno=os.dup(connection.connection.fileno())) as seen:
        option = lambda name: seen.getsockopt(socket.IPPROTO_TCP, name)  # noqa: E731
        assert seen.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        silent = option(socket.TCP_KEEPIDLE) + option(socket.TCP_KEEPINTVL) * option(socket.TCP_KEEPCNT)
        assert silent <= database.SILENT_SECONDS
        assert option(socket.TCP_USER_TIMEOUT) == 1000 * database.SILENT_SECONDS
    url = database.complete(f"{server.database()}?keepalives_idle=7")
    with (
        database.engine(url).connect() as connection,
        socket.socket(fileno=os.dup(connection.connection.fileno())) as seen,
    ):
        assert seen.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7, "the user's word counts"


@pytest.mark.parametrize(
    ("storage", "words"),
    [
        ("nonsense://somewhere", r"cannot be read: give postgresql://"),
        ("oracle://somewhere", r"cannot be read: give postgresql://.*oracle is none of sqlite, postgresql"),
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
