"""A run read back from records that the test writes: trials, front, pick, JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest

from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.spaces.errors import InputError
from slimfront.studies.front import surely_dominated
from slimfront.studies.records import Record, RecordFile
from slimfront.studies.run import Run, open_run, time_interval
from slimfront.studies.run_folder import make_folder

KEYS = [
    *("trial", "candidate", "sha256", "size_bytes"),
    *("speedup", "speedup_low", "speedup_high", "latency_ms", "latency_low_ms", "latency_high_ms"),
    *("predicted_speedup", "psnr_db", "fidelity_db", "ssim", "worst_psnr_db"),
]
MEASURED = [  # weight bits, size, speedup, psnr
    (32, 4000, 1.0, 30.0),
    (8, 1000, 4.0, 29.9),
    (6, 800, 4.0, 29.5),
    (5, 900, 3.5, 29.4),  # dominated
    (4, 500, 4.0, 28.0),
    (2, 300, 4.1, 24.0),
]


def candidate(bits):
    return Candidate(layers={"conv": LayerChoice(bits, 8 if bits <= 8 else 32)})


def reading(value, spread=None, unit=""):
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    return {"value": value, "unit": unit, "low": low, "high": high, "how": ""}


def stages(number, bits, size, speedup, psnr, environment="here", sha="a"):
    base = Record(
        study="digest",
        key=candidate(bits).key,
        stage="build",
        environment=environment,
        state="done",
        trial=number,
        sha256=f"{sha}{bits}",
        label="reference" if bits == 32 else "",
    )
    quality = {"psnr_db": psnr, "fidelity_db": psnr + 10, "ssim": 0.9, "worst_psnr_db": psnr - 2}
    timing = {"speedup": reading(speedup, 0.1 * (bits != 32)), "reference_ms": reading(100.0 + number)}
    return [
        replace(base, readings={"size_bytes": reading(size)}, candidate=candidate(bits).to_json()),
        replace(base, stage="quality", readings={name: reading(value) for name, value in quality.items()}),
        replace(base, stage="timing", readings=timing),
    ]


def all_records(measured=MEASURED, **changes):
    return [record for n, row in enumerate(measured) for record in stages(n, *row, **changes)]


@pytest.fixture
def make_run(tmp_path):
    def make(records, target="3 samples", constraints=None):
        definition = {"data": {"target": target}, "constraints": constraints or {}}
        study = {"name": "tiny", "source": None, "digest": "digest", "definition": definition}
        (tmp_path / "run.json").write_text(json.dumps({"version": 1, "study": study}))
        with RecordFile(tmp_path / "records.jsonl") as file:
            for record in records:
                file.append(record)
        return Run(tmp_path)

    return make


def test_trials_are_read_back(make_run):
    run = make_run(all_records())
    assert [trial.number for trial in run.trials] == list(range(6))
    assert run.study_name == "tiny"
    assert run.reference.number == 0
    assert run.trial(4).candidate == candidate(4)
    assert run.trial(4).value("psnr_db") == 28.0
    assert list(run.trial(4).stages) == ["build", "quality", "timing"]


def test_the_front_is_sorted_by_size_and_leaves_dominated_ones_out(make_run):
    run = make_run(all_records())
    assert [trial.number for trial in run.front_trials()] == [5, 4, 2, 1, 0]
    table = run.front()
    assert list(table.columns) == [*KEYS, "front_probability"]
    assert table["trial"].tolist() == [5, 4, 2, 1, 0]


def test_a_candidate_stays_while_the_intervals_leave_a_doubt(make_run):
    """3.95 +- 0.1 of trial 3 against 4.0 +- 0.1 of trial 2, which is smaller and better."""
    run = make_run(all_records([*MEASURED[:3], (5, 900, 3.95, 29.4), *MEASURED[4:]]))
    assert [trial.number for trial in run.front_trials()] == [5, 4, 2, 3, 1, 0]
    sure = run.probabilities()
    assert sure[5] == sure[0] == 1.0
    assert 0.05 < sure[3] < 0.5


def test_timings_of_the_same_file_are_pooled(make_run):
    again = stages(1, 8, 1000, 4.3, 29.9)[2]
    run = make_run([*all_records(), again])
    trial = run.trial(1)
    assert trial.timings == 2
    assert 4.0 < trial.value("speedup") < 4.3
    assert trial.speedup.high - trial.speedup.low > 0.2 / 2**0.5, "they differ by more than their intervals say"


def test_a_trial_that_was_not_timed_counts_but_is_never_on_the_front(make_run):
    build, quality, timing = stages(6, 3, 100, 9.0, 29.9)
    predicted = replace(
        build,
        stage="prediction",
        sha256="",
        readings={"predicted_speedup": reading(9.0, 0.5)},
        candidate=build.candidate,
    )
    skipped = replace(timing, state="predicted", readings={}, reason="not timed: trial 1 is better")
    run = make_run([*all_records(), predicted, replace(build, candidate=None), quality, skipped])
    trial = run.trial(6)
    assert (trial.state, trial.measured, trial.reason) == ("predicted", False, "not timed: trial 1 is better")
    assert 6 not in [trial.number for trial in run.front_trials()]
    assert run.hypervolume() == make_run(all_records()).hypervolume()
    row = run.to_json(all=True)["trials"][6]
    assert (row["state"], row["speedup"], row["predicted_speedup"]) == ("predicted", None, 9.0)
    assert run.point(trial)[1] == pytest.approx(1 / 9.0)


def test_hypervolume_is_that_of_the_designs_definition(make_run):
    run = make_run(all_records([MEASURED[0], MEASURED[1]]))
    assert run.hypervolume() == pytest.approx((1 - 0.25) * (1 - 0.25) * (1 - 0.1 / 3))


def test_without_targets_the_drop_counts_from_50_db_of_fidelity(make_run):
    run = make_run(all_records([MEASURED[0], MEASURED[1]]), target=None)
    assert run.drop_db(run.trial(1)) == pytest.approx(50 - 39.9)


def test_rows_have_the_contracts_keys_and_latencies_follow_from_the_speedup(make_run):
    row = make_run(all_records()).trial(1).row()
    assert list(row) == KEYS
    assert row["latency_ms"] == pytest.approx(100.0 / 4.0)
    assert row["latency_low_ms"] == pytest.approx(100.0 / 4.1)
    assert row["latency_high_ms"] == pytest.approx(100.0 / 3.9)
    assert row["size_bytes"] == 1000
    assert isinstance(row["size_bytes"], int)
    assert row["candidate"] == candidate(8).to_json()
    assert row["predicted_speedup"] is None


def test_json_of_the_front_and_of_all_trials(make_run):
    failed = replace(stages(6, 3, 1, 1, 1)[0], state="failed", reason="no such kernel", readings={})
    run = make_run([*all_records(), failed])
    document = json.loads(json.dumps(run.to_json(all=True), allow_nan=False))
    assert list(document) == ["study", "reference", "hypervolume", "front", "search", "trials"]
    assert document["reference"]["trial"] == 0
    assert [row["state"] for row in document["trials"]] == ["measured"] * 6 + ["failed"]
    assert document["trials"][6]["reason"] == "no such kernel"
    assert document["trials"][6]["psnr_db"] is None
    assert "trials" not in run.to_json()


def test_what_is_not_finished_is_no_trial_yet(make_run):
    run = make_run(all_records()[:-1])
    assert len(run.trials) == 5
    assert run.all_trials[5].state == "started"
    with pytest.raises(InputError, match=r"no trial 5 .* it has trials 0 to 4"):
        run.trial(5)


def test_timings_of_another_environment_do_not_count_here(make_run):
    there = all_records(environment="there")
    here = [record for record in all_records(environment="here")[:6] if record.stage == "timing"]
    make_run(there + here)
    run = make_run([])
    assert len(run.trials) == 6
    assert run.trial(1).stages["timing"]["environment"] == "there"
    run = Run(run.folder, environment="here")
    assert [trial.number for trial in run.trials] == [0, 1]
    assert [trial.state for trial in run.all_trials[2:]] == ["started"] * 4


def test_readings_of_an_earlier_file_do_not_count(make_run):
    again = replace(stages(1, *MEASURED[1], sha="b")[0], candidate=None)
    trial = make_run([*all_records(), again]).all_trials[1]
    assert (trial.state, list(trial.stages), trial.sha256) == ("started", ["build"], "b8")


@pytest.mark.parametrize(
    ("limits", "number"),
    [
        ({"prefer": "size"}, 5),
        ({"prefer": "psnr"}, 0),
        ({"prefer": "latency"}, 5),
        ({"prefer": "size", "max_drop": 0.6}, 2),
        ({"prefer": "psnr", "max_size": "900B"}, 2),
        ({"prefer": "size", "min_psnr": 29.7}, 1),
        ({"prefer": "psnr", "max_latency": "24.5ms"}, 5),
        ({"prefer": "psnr", "min_speedup": 2}, 1),
        ({"max_size": 550, "min_psnr": 25}, 4),
    ],
)
def test_pick(make_run, limits, number):
    assert make_run(all_records()).pick(**limits).number == number


def test_the_knee_is_nearest_to_the_ideal_corner(make_run):
    run = make_run(all_records())
    points = np.array([run.point(trial) for trial in run.front_trials()])
    scaled = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    nearest = int(np.argmin((scaled**2).sum(axis=1)))
    assert run.pick() == run.front_trials()[nearest]


def test_pick_keeps_the_studys_own_constraints_unless_a_flag_says_otherwise(make_run):
    run = make_run(all_records(), constraints={"min_psnr": 29.0})
    assert run.pick(prefer="size").number == 2
    assert run.pick(prefer="size", min_psnr=25).number == 4


def remembered(number, peak):
    """The record of a memory stage, on the file that `stages` tells of."""
    quality = stages(number, *MEASURED[number])[1]
    return replace(quality, stage="memory", readings={"memory_bytes": reading(peak, 1.0, "bytes")})


def test_pick_keeps_a_limit_of_memory_where_it_is_known(make_run):
    run = make_run([*all_records(), *(remembered(number, 1e6 * (10 - number)) for number in range(6))])
    assert run.trial(2).row()["memory_bytes"] == 8_000_000
    assert run.pick(prefer="psnr", max_memory="8.5MB").number == 2
    with pytest.raises(
        InputError, match=r"keeps peak memory at most 1,000 bytes; trial \d comes closest with .* of memory"
    ):
        run.pick(max_memory=1000)


def test_pick_says_where_memory_comes_from_if_none_is_known(make_run):
    run = make_run(all_records())
    assert "memory_bytes" not in run.trial(2).row()
    with pytest.raises(
        InputError, match=r"the memory of no candidate of .* is known; .* \[constraints\] have max_memory"
    ):
        run.pick(max_memory="1GB")


def test_nothing_keeps_the_limits(make_run):
    run = make_run(all_records())
    with pytest.raises(
        InputError, match="no measured candidate keeps size at most 400 bytes, PSNR at least 28 dB; trial"
    ):
        run.pick(max_size=400, min_psnr=28)
    with pytest.raises(InputError, match="mean 'latency'"):
        run.pick(prefer="latenc")


def test_folders_that_are_no_run(tmp_path):
    with pytest.raises(InputError, match="there is no run in"):
        open_run(tmp_path / "none")
    (tmp_path / "run.json").write_text("{torn")
    with pytest.raises(InputError, match="damaged"):
        open_run(tmp_path)
    (tmp_path / "run.json").write_text('{"version": 9}')
    with pytest.raises(InputError, match="another version"):
        open_run(tmp_path)


def test_a_folder_with_other_things_does_not_become_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"neither empty nor a run folder \(it holds 'thesis.tex'\)"):
        make_folder(tmp_path)
    with pytest.raises(InputError, match="cannot make the run folder"):
        make_folder(tmp_path / "thesis.tex" / "run")


def test_a_run_without_a_measured_reference_says_so(make_run):
    run = make_run([])
    assert (run.trials, run.front_trials(), run.hypervolume()) == ([], [], 0.0)
    with pytest.raises(InputError, match="no measured candidate yet"):
        run.to_json()


def some_records(seed):
    """Trials of random readings, a few of them timed again, stage by stage as several workers finish them."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(1, 40):
        choice = {f"conv{i}": LayerChoice(int(random.choice([2, 3, 4, 5, 6, 8])), 8) for i in range(6)}
        own = Candidate(layers=choice)
        size, speedup, psnr = random.uniform(100, 3000), random.uniform(1.1, 5.0), random.uniform(24.0, 30.0)
        build, quality, timing = (
            replace(record, key=own.key, sha256=own.key) for record in stages(number, 8, size, speedup, psnr)
        )
        found.append([replace(build, candidate=own.to_json()), quality, timing])
        if random.random() < 0.3:
            found[-1].append(replace(timing, readings=timing.readings | {"speedup": reading(speedup * 1.1, 0.2)}))
    return [found[i].pop(0) for i in random.permutation(np.repeat(range(39), [len(own) for own in found]))]


@pytest.mark.parametrize("seed", range(8))
def test_a_run_that_records_are_added_to_is_the_run_that_is_read_back(make_run, monkeypatch, seed):
    monkeypatch.setattr("slimfront.studies.run.AT_ONCE", 7)
    records = some_records(seed)
    growing = make_run(stages(0, *MEASURED[0]))
    random = np.random.default_rng(seed)
    for batch in np.split(np.array(records, dtype=object), np.sort(random.integers(0, len(records), 25))):
        known = {trial.candidate.key: trial for trial in growing.all_trials}
        changed = growing.add(batch.tolist())
        assert {trial.candidate.key for trial in changed} == {record.key for record in batch}
        assert all(known.get(trial.candidate.key) != trial for trial in changed)
        if random.random() < 0.7:  # what was not asked for is not kept current
            assert growing.hypervolume() >= 0.0
            assert growing.front_trials()
    whole = make_run(records)
    assert growing.all_trials == whole.all_trials
    assert growing.front_trials() == whole.front_trials()
    assert growing.hypervolume() == pytest.approx(whole.hypervolume(), abs=1e-12)
    assert sorted(growing.corners.tolist()) == sorted(whole.corners.tolist())
    measured = [trial for trial in whole.trials if trial.measured]
    fastest, slowest = zip(*(time_interval(trial) for trial in measured), strict=True)
    gone = surely_dominated([whole.point(trial) for trial in measured], fastest, slowest)
    front = {trial.number for trial, goes in zip(measured, gone, strict=True) if not goes}
    assert {trial.number for trial in whole.front_trials()} == front, "all compared with all"
