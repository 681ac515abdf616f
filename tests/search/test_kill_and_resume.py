"""Killed with SIGKILL at any moment, a search goes on: nothing finished is lost, nothing is done twice."""

import os
import shutil
import subprocess
import sys
import textwrap

import pytest

from slimfront.studies.records import read_records
from slimfront.studies.run import Run
from slimfront.studies.study import load_study

TRIALS = 9
MOMENTS = 20

# Loads all that a search needs once, then forks a search for each moment; the parent kills it when the records have
# grown by so many bytes, or, the first times, after so many seconds.
KILLER = """
    import os, signal, sys, time
    from pathlib import Path
    from slimfront.objectives.timing import Timing
    from slimfront.search import evaluate
    from slimfront.search.loop import search
    from slimfront.studies.study import load_study

    run, trials, moments = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    search(sys.argv[1], trials=2, run_dir=sys.argv[2] + "-warm-up")
    study = load_study(sys.argv[1])
    study.check()
    study.builder.prepare()
    evaluate.Timing = lambda: Timing(least_rounds=3, most_rounds=3, slot_seconds=0.003)

    def size():
        path = run / "records.jsonl"
        return path.stat().st_size if path.exists() else 0

    def searching():
        child = os.fork()
        if child == 0:
            try:
                search(study, trials=trials, run_dir=run)
                os._exit(0)
            except BaseException as error:
                print(repr(error), file=sys.stderr, flush=True)
                os._exit(1)
        return child

    def ended(child):
        pid, status = os.waitpid(child, os.WNOHANG)
        return pid and (status == 0 or sys.exit(f"a search ended with status {status}"))

    kills = 0
    for moment in range(moments):
        child, before, start = searching(), size(), time.monotonic()
        early = 0.02 * (moment + 1) if moment < 4 else 60.0
        while size() < before + 1 + 397 * moment % 2000 and time.monotonic() < start + early:
            if ended(child):
                break
            time.sleep(0.0005)
        else:
            time.sleep(0.002 * (moment % 5))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            kills += 1
            print((run / "records.jsonl").read_text().count(chr(10)) if size() else 0, flush=True)
            continue
        break
    os.waitpid(searching(), 0)
    print("kills", kills)
"""


@pytest.mark.slow
def test_killed_at_twenty_moments(study_folder, tmp_path):
    arguments = [str(study_folder), str(tmp_path / "run"), str(TRIALS), str(MOMENTS)]
    killer = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLER), *arguments],
        env=os.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert killer.returncode == 0, killer.stderr
    *lines, kills = killer.stdout.split("\n")[:-1]
    assert int(kills.split()[1]) >= 10
    assert sorted(map(int, lines)) == list(map(int, lines))
    run = Run(tmp_path / "run")
    done = [(record.key, record.stage) for record in read_records(run.folder / "records.jsonl")]
    once = [each for each in done if each[1] not in ("claim", "timing")]  # begun again, and timed again where in doubt
    assert len(set(once)) == len(once) == 3 * TRIALS - 1, "build, quality, a prediction but for the reference"
    assert len(set(done)) == 5 * TRIALS - 1
    assert [trial.number for trial in run.trials] == list(range(TRIALS))
    assert all(trial.measured or trial.predicted for trial in run.trials)
    kept = {path.name for path in (run.folder / "models").iterdir()}
    assert kept >= {f"{trial.candidate.key}.onnx" for trial in run.front_trials()}
    assert run.load().digest == load_study(study_folder).digest


@pytest.mark.parametrize("leftover", ["records.jsonl", ".run.json.part", "models/.part/x.onnx"])
def test_what_a_killed_search_may_leave_does_no_harm(study_folder, tmp_path, leftover):
    from slimfront.search.loop import search

    search(str(study_folder), trials=1, run_dir=tmp_path / "run")
    file = tmp_path / "run" / leftover
    file.parent.mkdir(parents=True, exist_ok=True)
    if leftover == "records.jsonl":
        shutil.rmtree(tmp_path / "run")  # killed before run.json was written
        file.parent.mkdir()
        file.write_text("")
    else:
        file.write_text("{torn")
    assert len(search(str(study_folder), trials=2, run_dir=tmp_path / "run").trials) == 2
