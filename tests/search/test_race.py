"""Trainings side by side on a real Ray: who promises little stops, nothing is lost, and what fails is told."""

import sys
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from slimfront.search import cluster, race
from slimfront.search.alone import Alone
from slimfront.search.distillation import Distillation, Examples
from slimfront.search.loop import search
from slimfront.search.losses import Loss
from slimfront.search.race import Entry, Race
from slimfront.search.training import ETA, Schedule, Training
from slimfront.spaces.candidate import REFERENCE
from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import BuildError
from slimfront.spaces.torch_view import TorchView
from slimfront.studies.holdings import RunHoldings
from slimfront.studies.study import load_study

from .test_students import with_students

STEPS = 27


@pytest.fixture
def workers():
    """Two workers on this machine, which can be sent what this file defines."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with cluster.connected(2, None):
        yield Race(2)
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@dataclass(frozen=True)
class Promises:
    """What a training promises, however long it has lasted."""

    value: float

    def __call__(self, lesson):
        return self.value


class Spoilt(Alone):
    """Gives no numbers."""

    def forward(self, **inputs):
        return super().forward(**inputs) * float("nan")


@pytest.fixture
def entry(residual_model, pictures, tmp_path):
    graph = capture_onnx(residual_model)
    examples = Examples(TorchView(graph), {"x": pictures(3, 1)}, 1)

    def made(number, promise, kind=Alone, steps=STEPS):
        torch.manual_seed(number)
        module = kind(graph)
        with torch.no_grad():
            for each in module.parameters():
                each.add_(0.1 * torch.randn_like(each))
        lesson = Distillation(module, graph, examples, Loss())
        schedule = Schedule(steps, 1e-3, seed=number)
        return Entry(Training(lesson, schedule, tmp_path / "training" / f"{number}.pt"), Promises(promise))

    return made


def weights_of(entry) -> bytes:
    return b"".join(each.detach().numpy().tobytes() for each in entry.training.lesson.module.parameters())


@given(st.integers(1, 5000))
def test_trainings_are_compared_where_they_tell_how_far_they_are(steps):
    parts = race._parts(steps)
    assert parts == sorted(set(parts))
    assert parts[-1] == steps
    rungs = [race._rung(steps) * ETA**power for power in range(9) if race._rung(steps) * ETA**power < steps]
    assert len(rungs) <= 4
    assert all(min(part for part in parts if part >= rung) <= rung + steps / race.PARTS for rung in rungs)


def test_examples_that_are_sent_leave_behind_what_can_be_worked_out_anew(entry):
    import pickle

    examples = entry(0, 1.0).training.lesson.examples
    wanted = examples.each()
    sent = pickle.dumps(examples)
    again = pickle.loads(sent)
    assert not again._known
    assert len(sent) < sum(feed["x"].nbytes + output.nbytes for feed, output, _ in wanted) + 200_000
    for (feed, output, _), (other_feed, other, _) in zip(wanted, again.each(), strict=True):
        assert torch.equal(feed["x"], other_feed["x"])
        torch.testing.assert_close(output, other)


@pytest.mark.slow
def test_who_promises_less_at_as_many_steps_stops_early(workers, entry):
    entries = [entry(number, 9.0 - number) for number in range(8)]
    whole = workers.run(entries, 1)
    assert entries[0] in whole
    assert entries[-1] not in whole
    assert len(whole) <= len(entries) // 2
    assert all(each.training.step == STEPS for each in whole)
    stopped = [torch.load(each.training.checkpoint, weights_only=True)["step"] for each in entries if each not in whole]
    assert all(step < STEPS for step in stopped)
    assert min(stopped) == race._rung(STEPS)
    assert len(workers.run(entries, 6)) >= 6, "as many as are wanted come to their end"


@pytest.mark.slow
def test_it_learns_as_one_process_does_and_goes_on_where_it_was_ended(workers, entry, capsys):
    alone, told = entry(0, 1.0), []
    alone.training.run()
    alone.training.checkpoint.unlink()

    lock = threading.RLock()  # as a progress bar has one, which cannot be sent anywhere

    def stop(text, part):
        with lock:
            print(text)
            told.append(part)
        if part > 0.3:
            raise TimeoutError

    entries = [entry(0, 1.0), entry(1, 1.0)]
    with pytest.raises(TimeoutError):
        workers.run(entries, 2, stop)
    checkpoints = [entry.training.checkpoint for entry in entries]
    kept = [torch.load(path, weights_only=True)["step"] for path in checkpoints if path.exists()]
    assert any(0 < step < STEPS for step in kept)
    whole = workers.run([entry(0, 1.0), entry(1, 1.0)], 2)
    assert len(whole) == 2
    difference = np.frombuffer(weights_of(whole[0]), np.float32) - np.frombuffer(weights_of(alone), np.float32)
    assert np.abs(difference).max() < 1e-5
    assert told == sorted(told)
    assert "training side by side" in capsys.readouterr().out


@pytest.mark.slow
def test_a_training_that_fails_leaves_the_others_alone(workers, entry):
    good, bad = entry(0, 1.0), entry(1, 2.0, Spoilt)
    told = []
    assert workers.run([good, bad], 2, failed=lambda entry, reason: told.append((entry, reason))) == [good]
    assert [entry for entry, _ in told] == [bad]
    assert isinstance(told[0][1], BuildError) and "no number" in str(told[0][1])
    with pytest.raises(
        BuildError, match=r"^the loss, or its gradient, is no number at step 0, at a quarter of the rate"
    ):
        workers.run([bad], 1)


@pytest.mark.slow
def test_students_are_trained_and_the_front_is_polished_by_workers(study_folder, tmp_path):
    with_students(study_folder, share="share = 0.25\n")
    run = search(load_study(study_folder), trials=16, run_dir=tmp_path / "run", sampler="random", workers=2)
    students = RunHoldings(run.folder).students
    assert len(students) == 2
    assert {trial.candidate.base for trial in run.trials} == {REFERENCE, *students}
    polished = [trial for trial in run.trials if trial.candidate.weights]
    assert polished
    assert all(trial.measured or trial.predicted for trial in polished)
    assert not list((run.folder / "training").glob("*.pt"))
