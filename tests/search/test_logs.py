"""Logs of a search: MLflow and TensorBoard for real, and a log that fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from slimfront.search.logs import Logged, log_of
from slimfront.search.loop import search
from slimfront.search.progress import Silent
from slimfront.spaces.errors import InputError
from slimfront.studies.run import Run

TRIALS = 5


@pytest.fixture
def go(study_folder: Path, tmp_path: Path) -> Callable[..., Run]:
    return lambda logs, trials=TRIALS, **more: search(study_folder, trials, tmp_path / "run", logs=logs, **more)


def test_mlflow_has_every_trial_once_and_the_front_however_often_a_search_continues(go: Callable, tmp_path: Path):
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    go([log_of(f"mlflow:{uri}")], 3)
    run = go([log_of(f"mlflow:{uri}")], TRIALS)
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.status == "FINISHED"
    assert logged.data.params["sampler"] == "random"
    sizes = {metric.step: metric.value for metric in client.get_metric_history(logged.info.run_id, "size_bytes")}
    assert sizes == {trial.number: trial.value("size_bytes") for trial in run.trials if "size_bytes" in trial.readings}
    volumes = client.get_metric_history(logged.info.run_id, "hypervolume")
    assert {metric.step for metric in volumes} == set(sizes)
    assert all(0.0 <= metric.value < 1.0 for metric in volumes)  # the last timings may still change the front's
    assert not (Path.cwd() / "mlruns").exists()
    front = client.download_artifacts(logged.info.run_id, "front.csv")
    assert len(Path(front).read_text(encoding="utf-8").splitlines()) == 1 + len(run.front_trials())


def test_tensorboard_has_every_trial_and_the_front(go: Callable, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = go([log_of(f"tensorboard:{tmp_path / 'events'}")])
    (folder,) = (tmp_path / "events").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    sizes = {event.step: event.value for event in events.Scalars("size_bytes")}
    assert sizes == {trial.number: trial.value("size_bytes") for trial in run.trials if "size_bytes" in trial.readings}
    assert "front/text_summary" in events.Tags()["tensors"]


class Failing:
    def __init__(self, where: str) -> None:
        self.where, self.told = where, []

    def begin(self, *_: object) -> None:
        self._at("begin")

    def trial(self, *_: object) -> None:
        self._at("trial")

    def end(self, *_: object) -> None:
        self._at("end")

    def _at(self, where: str) -> None:
        self.told.append(where)
        if where == self.where:
            raise ConnectionError("nobody answers")


@pytest.mark.parametrize("where", ["begin", "trial", "end"])
def test_a_log_that_fails_is_told_of_once_and_stops_nothing(go: Callable, where: str):
    class Notes(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    failing, whole, progress = Failing(where), Failing("never"), Notes()
    run = go([failing, whole], progress=progress)
    assert len(run.trials) == TRIALS
    assert [note for note in progress.notes if "nobody answers" in note] == [
        "Failing is left out from now on, it has failed: nobody answers"
    ]
    assert failing.told[-1] == where
    assert whole.told == ["begin", *["trial"] * TRIALS, "end"]


@pytest.mark.parametrize(
    ("text", "message"), [("mlfow:x", "mlflow"), ("", "must be one of"), ("mlflow:nothing://x", "cannot be opened")]
)
def test_a_wrong_log_is_told_before_anything_is_searched(text: str, message: str):
    with pytest.raises(InputError, match=message):
        log_of(text)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    from slimfront.search import logs

    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'pip install "slimfront\[mlflow\]"'):
        log_of("mlflow:sqlite:///x.db")


def test_what_a_progress_has_beside_is_passed_on():
    class Standing(Silent):
        def standing(self, standing: object) -> None: ...

    assert not hasattr(Logged(Silent(), []), "standing")
    assert hasattr(Logged(Standing(), []), "standing")
