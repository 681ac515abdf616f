"""The coordinator with workers that do what the test says: order of work, what is lost, what is recorded."""

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace

import pytest

from slimfront.search import agenda as agenda_module
from slimfront.search import coordinator as coordinator_module
from slimfront.search import preparation
from slimfront.search.agenda import TRIES
from slimfront.search.coordinator import MOST_LOSSES
from slimfront.search.evaluate import Evaluator
from slimfront.search.loop import search
from slimfront.search.pool import Crew, OwnProcess
from slimfront.search.progress import Silent
from slimfront.search.timing_queue import TimingQueue
from slimfront.search.work import Kind, Told
from slimfront.studies.records import read_records
from slimfront.studies.standing import Doing
from slimfront.studies.study import load_study
from slimfront.studies.trial import REFERENCE_LABEL


class Scripted:
    """A pool of several workers in one process, which end their work in an order of the test's, or die.

    Args:
        evaluator: does the work.
        workers: pieces of work at once.
        fate: given a piece of work, says why its worker dies, or None.
        order: given the pieces under way, says which is told of next.
    """

    gathered = 3
    timers = 1

    def __init__(self, evaluator, workers=3, fate=lambda work: None, order=lambda under_way: -1):
        self.evaluator, self.workers, self.fate, self.order = evaluator, workers, fate, order
        self.under_way = []
        self.notes = []
        self.environments = {}
        self.submitted = []
        self.taught = 0
        self.closed = False

    @property
    def room(self):
        return self.workers - len(self.under_way)

    @property
    def busy(self):
        return len(self.under_way)

    @property
    def doing(self):
        return [Doing("there", work.kind, work.numbers, 1.0) for work in self.under_way]

    def submit(self, work):
        self.submitted.append((work.kind, work.numbers))
        self.under_way.append(work)

    def wait(self):
        work = self.under_way.pop(self.order(self.under_way))
        lost = self.fate(work)
        if lost is not None:
            return [Told(work, over=True, lost=lost, blameless=lost == "the node was lost", node="there")]
        own = OwnProcess(self.evaluator)
        own.submit(work)
        told = []
        while own.busy:
            told += [replace(each, node="there", environment="") for each in own.wait()]
        return told

    def teach(self):
        self.taught += 1

    def close(self):
        self.closed = True


@pytest.fixture
def search_with(study_folder, tmp_path, monkeypatch):
    def searched(trials=10, progress=None, **script):
        pools = []

        def open_pool(evaluator, reference):
            assert reference.measured
            pools.append(Scripted(evaluator, **script))
            return pools[0]

        monkeypatch.setattr("slimfront.search.loop._crew", lambda *_: nullcontext(Crew(open_pool)))
        run = search(load_study(study_folder), trials=trials, run_dir=tmp_path / "run", progress=progress)
        assert pools[0].closed
        assert not pools[0].under_way
        return run, pools[0]

    return searched


def stages_of(run):
    return [(record.trial, record.stage, record.state) for record in read_records(run.folder / "records.jsonl")]


def test_several_are_judged_side_by_side_and_timed_together(search_with):
    run, pool = search_with()
    assert [trial.number for trial in run.trials] == list(range(10))
    assert all(trial.measured or trial.predicted for trial in run.trials)
    judged = [numbers for kind, numbers in pool.submitted if kind is Kind.JUDGE]
    assert judged == [(number,) for number in range(1, 10)]
    assert any(kind is Kind.TIME and len(numbers) >= pool.gathered for kind, numbers in pool.submitted)
    records = list(read_records(run.folder / "records.jsonl"))
    assert {record.node for record in records if record.stage == "build" and record.trial} == {"there"}
    assert pool.taught == sum(kind is not Kind.JUDGE for kind, _ in pool.submitted)


def test_what_workers_are_at_is_told(search_with, monkeypatch):
    class Listening(Silent):
        def __init__(self):
            self.told = []

        def standing(self, standing):
            self.told.append(standing)

    monkeypatch.setattr(coordinator_module, "STANDING_SECONDS", 0.0)
    progress = Listening()
    search_with(progress=progress)
    assert progress.told.pop().workers == 0, "they are gone at the end"
    assert {standing.workers for standing in progress.told} == {3}
    assert max(len(standing.doing) for standing in progress.told) == 2, "one of three has just told what it found"
    assert any(standing.waiting for standing in progress.told)
    assert progress.told[-1].per_minute > 0


def test_a_candidate_is_claimed_before_anything_is_found_of_it(search_with):
    run, _ = search_with(order=lambda under_way: 0)
    claimed = set()
    for number, stage, _ in stages_of(run):
        if stage == "claim":
            claimed.add(number)
        assert number in claimed


@pytest.mark.parametrize("order", [lambda some: 0, lambda some: -1, lambda some: len(some) // 2])
def test_random_candidates_do_not_depend_on_who_is_first(search_with, study_folder, tmp_path, order):
    alone = search(load_study(study_folder), trials=10, run_dir=tmp_path / "alone")
    run, _ = search_with(order=order)
    assert [trial.candidate for trial in run.trials] == [trial.candidate for trial in alone.trials]
    assert [trial.sha256 for trial in run.trials] == [trial.sha256 for trial in alone.trials]


def test_a_candidate_that_ends_its_workers_fails_after_its_tries_and_the_search_goes_on(search_with):
    run, pool = search_with(fate=lambda work: "its worker crashed" if work.numbers == (4,) else None)
    trial = run.trial(4)
    assert (trial.state, trial.reason) == ("failed", f"its worker crashed, in each of {TRIES} tries")
    assert list(trial.stages) == ["build"]
    assert pool.submitted.count((Kind.JUDGE, (4,))) == TRIES
    assert all(trial.measured or trial.predicted for trial in run.trials if trial.number != 4)


def test_a_lost_node_is_no_fault_of_its_candidates(search_with):
    deaths = []

    def fate(work):
        if work.numbers == (4,) and len(deaths) < 3 * TRIES:
            deaths.append(work)
            return "the node was lost"
        return None

    run, _ = search_with(fate=fate)
    assert len(deaths) == 3 * TRIES
    assert run.trial(4).measured or run.trial(4).predicted


def test_a_candidate_whose_nodes_are_lost_again_and_again_fails(search_with):
    run, pool = search_with(fate=lambda work: "the node was lost" if work.numbers == (4,) else None)
    trial = run.trial(4)
    assert (trial.state, trial.reason) == ("failed", f"the node was lost, in each of {MOST_LOSSES} tries")
    assert pool.submitted.count((Kind.JUDGE, (4,))) == MOST_LOSSES
    assert all(trial.measured or trial.predicted for trial in run.trials if trial.number != 4)


def test_of_several_that_are_timed_together_the_one_that_ends_its_worker_is_found(search_with):
    run, pool = search_with(fate=lambda work: "it crashed" if work.kind is Kind.TIME and 3 in work.numbers else None)
    assert run.trial(3).state == "failed"
    assert run.trial(3).stages["timing"]["state"] == "failed"
    assert pool.submitted.count((Kind.TIME, (3,))) == TRIES
    others = [trial for trial in run.trials if trial.number != 3]
    assert all(trial.measured or trial.predicted for trial in others)


def test_a_worker_lost_between_two_stages_begins_where_the_first_one_ended(search_with, monkeypatch):
    """What was told before it died is on disk, and is not done again."""
    lost = set()
    whole = Scripted.wait

    def wait(pool):
        told = whole(pool)
        work = told[0].work
        if work.kind is Kind.JUDGE and work.numbers[0] not in lost:
            lost.add(work.numbers[0])
            kept = [each for each in told if each.results][:2]  # prediction and build
            return [*kept, Told(work, over=True, lost="it crashed", node="there")]
        return told

    monkeypatch.setattr(Scripted, "wait", wait)
    run, _ = search_with()
    done = [(number, stage) for number, stage, _ in stages_of(run) if stage not in ("claim", "timing")]
    assert len(set(done)) == len(done)
    assert all(trial.measured or trial.predicted for trial in run.trials)


def test_pending_candidates_are_not_proposed_again(search_with):
    run, _ = search_with(trials=30, workers=8)
    assert len({trial.candidate.key for trial in run.trials}) == len(run.trials) == 30


def test_timings_that_agree_with_no_prediction_wait_for_others_but_never_for_ever(search_with, monkeypatch):
    monkeypatch.setattr(preparation, "LEAST_CALIBRATED", 1000)
    _, pool = search_with(trials=6)
    timed = [numbers for kind, numbers in pool.submitted if kind is Kind.TIME]
    assert sorted(number for numbers in timed for number in numbers) == [1, 2, 3, 4, 5]
    assert max(map(len, timed)) >= 2


def test_a_record_says_where_it_was_made(search_with):
    run, _ = search_with(trials=4)
    nodes = {(record.trial > 0, record.stage): record.node for record in read_records(run.folder / "records.jsonl")}
    assert nodes[False, "build"] == ""
    assert nodes[True, "quality"] == "there"


def test_all_in_doubt_are_timed_again_before_anyone_is_a_third_time(search_with, monkeypatch):
    monkeypatch.setattr(agenda_module, "TIMED_AGAIN", 1.3)  # 13 timings
    looked = []

    def five(queue, besides=()):
        looked.append(set(besides))
        return [trial for trial in queue.run.trials if trial.measured and trial.label != REFERENCE_LABEL][:5]

    monkeypatch.setattr(TimingQueue, "in_doubt", five)
    run, pool = search_with()
    again = [numbers for kind, numbers in pool.submitted if kind is Kind.TIME_AGAIN]
    counts = Counter(number for numbers in again for number in numbers)
    assert sorted(counts.values()) == [2, 2, 3, 3, 3]
    assert len(looked) == 3, "once for each time round"
    for number in counts:
        assert run.trial(number).timings == 1 + counts[number]


def test_who_cannot_be_timed_again_is_not_asked_for_over_and_over(search_with, monkeypatch):
    monkeypatch.setattr(
        TimingQueue, "in_doubt", lambda queue, besides=(): [trial for trial in queue.run.trials if trial.measured][:1]
    )
    monkeypatch.setattr(Evaluator, "time_again", lambda self, trials: [])
    _, pool = search_with()
    assert [numbers for kind, numbers in pool.submitted if kind is Kind.TIME_AGAIN] == [(0,)]
