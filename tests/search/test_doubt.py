"""Which timings are worth their time, on runs that the test writes."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from slimfront.objectives.protocol import Reading
from slimfront.search.doubt import SURE, doubtful, hopeless
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.studies.records import Record, RecordFile
from slimfront.studies.run import Run

MEASURED = [  # weight bits, size, speedup, half its interval, psnr
    (32, 4000, 1.0, 0.0, 30.0),
    (8, 1000, 4.0, 0.1, 29.9),
    (4, 500, 4.0, 0.1, 28.0),
]


def candidate(bits: int) -> Candidate:
    return Candidate({"conv": LayerChoice(bits, 8 if bits <= 8 else 32)})


def plain(value: float, half: float = 0.0) -> dict:
    return Reading(value, "", value - half if half else None, value + half if half else None).to_json()


def records(number: int, bits: int, size: float, speedup: float, half: float, psnr: float) -> list[Record]:
    label = "reference" if bits == 32 else ""
    base = Record("digest", candidate(bits).key, "build", "here", "done", number, f"sha{bits}", label=label)
    quality = {"psnr_db": psnr, "fidelity_db": psnr + 10, "ssim": 0.9, "worst_psnr_db": psnr - 2}
    return [
        replace(base, readings={"size_bytes": plain(size)}, candidate=candidate(bits).to_json()),
        replace(base, stage="quality", readings={name: plain(value) for name, value in quality.items()}),
        replace(base, stage="timing", readings={"speedup": plain(speedup, half), "reference_ms": plain(100.0)}),
    ]


@pytest.fixture
def make_run(tmp_path):
    def make(measured=MEASURED, target: str | None = "3 samples", stages: int = 3) -> Run:
        study = {
            "name": "tiny",
            "source": None,
            "digest": "digest",
            "definition": {"data": {"target": target}, "constraints": {}},
        }
        (tmp_path / "run.json").write_text(json.dumps({"version": 1, "study": study}))
        (tmp_path / "records.jsonl").unlink(missing_ok=True)
        with RecordFile(tmp_path / "records.jsonl") as file:
            for number, row in enumerate(measured):
                for record in records(number, *row)[:stages]:
                    file.append(record)
        return Run(tmp_path)

    return make


def foreseen(size: float, speedup: float, high: float | None, psnr: float) -> dict[str, Reading]:
    return {
        "size_bytes": Reading(size, "bytes"),
        "psnr_db": Reading(psnr, "dB"),
        "fidelity_db": Reading(psnr + 10, "dB"),
        "predicted_speedup": Reading(speedup, "x", None if high is None else speedup**2 / high, high),
    }


def test_who_cannot_beat_a_member_even_at_the_fast_end_of_its_prediction_is_hopeless(make_run):
    """Trial 1 at its slowest runs at 3.9."""
    reason = hopeless(make_run(), foreseen(1100, 3.0, 3.8, 29.8))
    assert reason is not None and "3.80 times" in reason and "trial 1" in reason


@pytest.mark.parametrize(
    ("size", "speedup", "high", "psnr"),
    [
        (1100, 3.0, 3.95, 29.8),  # may be as fast as trial 1 at its slowest
        (900, 3.0, 3.8, 29.8),  # smaller than trial 1, better than trial 2
        (1100, 3.0, 3.8, 29.95),  # better
        (400, 1.0, 1.1, 20.0),  # the smallest of all
    ],
)
def test_who_may_be_on_the_front_has_hope(size, speedup, high, psnr, make_run):
    assert hopeless(make_run(), foreseen(size, speedup, high, psnr)) is None


def test_an_equal_point_is_not_dominated(make_run):
    run = make_run([MEASURED[0], (8, 1000, 4.0, 0.0, 29.5)])
    assert hopeless(run, foreseen(1000, 4.0, 4.0, 29.5)) is None
    assert hopeless(run, foreseen(1001, 4.0, 4.0, 29.5)) is not None
    assert hopeless(run, foreseen(1001, 4.0, None, 29.5)) is not None, "without an interval the value counts"


def test_without_a_prediction_a_quality_or_a_measured_trial_nobody_is_hopeless(make_run):
    bad = foreseen(5000, 0.5, 0.6, 10.0)
    assert hopeless(make_run(), bad) is not None
    for name in bad:
        assert hopeless(make_run(), {key: value for key, value in bad.items() if key != name}) is None
    assert hopeless(make_run([]), bad) is None
    assert hopeless(make_run(stages=2), bad) is None


def test_without_targets_the_fidelity_is_what_counts(make_run):
    run = make_run(target=None)
    readings = foreseen(1100, 3.0, 3.8, 29.8)
    assert hopeless(run, readings) is not None
    assert hopeless(run, {**readings, "fidelity_db": Reading(45.0, "dB")}) is None
    assert hopeless(run, {**readings, "psnr_db": Reading(99.0, "dB")}) is not None


def test_members_whose_place_is_unsure_are_in_doubt_the_least_sure_first(make_run):
    """Sizes and qualities of the last two let only their times save them, and those overlap with trial 1's."""
    run = make_run([*MEASURED[:2], (7, 1100, 4.01, 0.1, 29.8), (6, 1200, 4.06, 0.1, 29.7)])
    sure = run.probabilities()
    found = doubtful(run)
    assert {trial.number for trial in found} == {n for n, p in sure.items() if 1 - SURE < p < SURE} >= {2, 3}
    distances = [abs(sure[trial.number] - 0.5) for trial in found]
    assert distances == sorted(distances)


def test_nobody_is_in_doubt_where_intervals_do_not_overlap(make_run):
    assert doubtful(make_run()) == []
