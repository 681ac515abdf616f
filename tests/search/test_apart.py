"""Work in a process of its own, and a search without workers whose candidate ends its process each time."""

import os
import subprocess
import sys

import pytest

from slimfront.search import apart
from slimfront.search.apart import perform_apart
from slimfront.search.work import Kind, Work
from slimfront.spaces.candidate import Candidate, LayerChoice
from slimfront.studies.run import Run
from slimfront.studies.study import load_study
from slimfront.studies.trial import Trial

CANDIDATE = Candidate({"conv1": LayerChoice(4, 8)})
HARMFUL = """
import os, signal, sys
from importlib.machinery import PathFinder

class Finder:
    def find_spec(self, name, path, target=None):
        if name != "slimfront.objectives.quality":
            return None
        spec = PathFinder.find_spec(name, path, target)
        execute = spec.loader.exec_module
        def changed(module):
            execute(module)
            measure = module.Quality.measure
            def harmful(self, subject):
                if {harmful}:
                    os.kill(os.getpid(), signal.SIGSEGV)
                return measure(self, subject)
            module.Quality.measure = harmful
        spec.loader.exec_module = changed
        return spec

sys.meta_path.insert(0, Finder())
"""


@pytest.fixture
def make_harmful(tmp_path, monkeypatch):
    """A function that lets quality end processes under a condition, in all that are started."""

    def make(harmful):
        folder = tmp_path / "harmful"
        folder.mkdir(exist_ok=True)
        (folder / "sitecustomize.py").write_text(HARMFUL.replace("{harmful}", harmful))
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
        monkeypatch.setenv("PYTHONPATH", path)

    return make


@pytest.fixture
def study(study_folder):
    study = load_study(study_folder)
    study.use_machine_facts(None)
    study.prepare_spaces()
    return study


def work():
    return Work(Kind.JUDGE, (Trial(3, CANDIDATE, "started"),), apart=True)


def test_work_apart_finds_the_same_file(study, tmp_path):
    told = perform_apart(study, tmp_path / "models", work())
    assert told.over and told.lost is None
    assert [(number, result.stage, result.state) for number, result in told.results][-2:] == [
        (3, "build", "done"),
        (3, "quality", "done"),
    ]
    assert told.results[-1][1].sha256 == study.builder.build(CANDIDATE).sha256


def test_how_its_process_ended_is_told_and_what_it_had_finished(study, tmp_path, make_harmful):
    make_harmful("True")
    told = perform_apart(study, tmp_path / "models", work())
    stages = {result.stage: result.state for _, result in told.results}
    assert told.over and stages["build"] == "done" and "quality" not in stages
    assert told.lost == "its process was ended by SIGSEGV"


def test_who_hangs_is_ended_and_who_runs_out_of_time_is_not_to_blame(study, tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "SECONDS", 0.01)
    assert "longer than 0 s" in (perform_apart(study, tmp_path / "models", work()).lost or "")
    told = perform_apart(study, tmp_path / "models", work(), left=0.001)
    assert told.over and told.lost is None and not told.results


@pytest.mark.slow
def test_a_candidate_that_ends_the_search_fails_when_the_search_is_run_again(study_folder, tmp_path, make_harmful):
    key = search(study_folder, tmp_path / "whole", 0).trial(5).candidate.key
    make_harmful(f'"{key}" in subject.model.path.name')
    search(study_folder, tmp_path / "run", -11)
    search(study_folder, tmp_path / "run", -11)
    run = search(study_folder, tmp_path / "run", 0)
    assert len(run.trials) == 8
    assert {trial.number: trial.reason for trial in run.trials if trial.state == "failed"} == {
        5: "its process was ended by SIGSEGV, in each of 2 tries"
    }


def search(study, folder, status):
    command = [
        sys.executable,
        "-c",
        "from slimfront.cli import main; main()",
        "search",
        str(study),
        "--run",
        str(folder),
    ]
    done = subprocess.run([*command, "--trials", "8", "--quiet"], capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return Run(folder)
