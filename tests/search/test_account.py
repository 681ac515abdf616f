"""What a search says of itself: expectations on record, what is left to gain, and when it ends by itself."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

from slimfront.search.account import AHEAD, Watch, account, gain_ahead
from slimfront.search.frontier import Frontier
from slimfront.search.loop import search
from slimfront.search.proposers import Observation
from slimfront.search.start import start_points, uniform_candidates
from slimfront.search.task import history_of, task_of
from slimfront.spaces.errors import InputError
from slimfront.studies.front import hypervolume
from slimfront.studies.run import Run
from slimfront.studies.search_section import search_figure, search_section, sentences
from slimfront.studies.searched import ACCOUNT_FILE, searched
from slimfront.studies.study import load_study

from .listeners import Notes
from .made_up import make_task, measure


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model, pictures):
    """A study and a run of it with fourteen candidates."""
    home = tmp_path_factory.mktemp("searched")
    for name, count, seed in (("calibration", 3, 1), ("evaluation", 2, 2)):
        np.savez(home / f"{name}.npz", input=pictures(count, seed))
    (home / "study.toml").write_text(
        f'name = "tiny"\n[model]\nfile = "{tiny_model}"\n[data]\ncalibration = "calibration.npz"\n'
        'evaluation = "evaluation.npz"\nrange = [0.0, 1.0]\n'
    )
    search(load_study(home / "study.toml"), trials=14, run_dir=home / "run")
    return home


def test_what_was_expected_of_a_proposal_is_on_record_before_it_is_built(folder):
    run = Run(folder / "run")
    proposed = [trial for trial in run.trials if not trial.label and trial.candidate.repair == "static"]
    assert proposed
    for trial in proposed:
        assert next(iter(trial.stages)) == "proposal"
        drop = trial.readings["expected_drop_db"]
        assert 0.0 <= drop.low <= drop.value <= drop.high
    assert all("proposal" not in trial.stages for trial in run.trials if trial.label)
    off = [np.log(trial.value("expected_size_bytes") / trial.value("size_bytes")) for trial in proposed]
    assert np.median(np.abs(off)) < np.log(1.5), "of files of a few kB, of which hardly any are known yet"


def test_the_account_tells_what_was_reached_and_what_is_left(folder):
    run = Run(folder / "run")
    told = searched(run)
    assert told == run.to_json()["search"]
    measured = [run.point(trial) for trial in run.trials if trial.measured]
    assert told["hypervolumes"][-1] == pytest.approx(hypervolume(measured)) == pytest.approx(run.hypervolume())
    assert told["hypervolumes"] == sorted(told["hypervolumes"])
    assert len(told["hypervolumes"]) == told["evaluations"] == 14
    assert told["ahead"] == AHEAD
    assert 0.0 <= told["gain_ahead"] < 1.0
    for name in ("random", "uniform"):
        counts, volumes = zip(*told[name], strict=True)
        assert list(counts) == sorted(counts)
        assert counts[-1] <= 14
        assert list(volumes) == sorted(volumes)
    json.dumps(told, allow_nan=False)


@pytest.mark.parametrize("spoil", ["missing", "damaged", "of an earlier state"])
def test_an_account_that_cannot_be_trusted_is_left_out(folder, tmp_path, spoil):
    copy = tmp_path / "run"
    shutil.copytree(folder / "run", copy)
    path = copy / ACCOUNT_FILE
    said = json.loads(path.read_text())
    if spoil == "missing":
        path.unlink()
    else:
        path.write_text("{" if spoil == "damaged" else json.dumps(said | {"evaluations": 13}))
    told = searched(Run(copy))
    assert told["gain_ahead"] is told["random"] is told["uniform"] is None
    assert len(told["hypervolumes"]) == 14
    assert told["model_error"] == searched(Run(folder / "run"))["model_error"]
    assert len(sentences(told)) <= 2
    assert len(search_figure(told).data) == 1


def test_the_report_says_and_draws_it(folder):
    told = searched(Run(folder / "run"))
    text = " ".join(sentences(told))
    assert f"After 14 evaluations the hypervolume is {told['hypervolumes'][-1]:.3f}." in text
    assert f"{told['random'][-1][1]:.3f}" in text
    assert f"would probably add {told['gain_ahead']:.4f}" in text
    lines = search_figure(told).data
    assert [line.name for line in lines] == ["this search", "random, by the model", "uniform, by the model"]
    assert list(lines[0].y) == told["hypervolumes"]
    assert sentences(told)[0] in search_section(told)
    assert search_section(told | {"hypervolumes": [0.0]}) == ""


def test_model_errors_are_medians_over_what_was_measured(folder):
    run = Run(folder / "run")
    trials = [trial for trial in run.trials if trial.measured and "expected_speedup" in trial.readings]
    error = searched(run)["model_error"]
    assert trials
    sizes = [abs(trial.value("expected_size_bytes") / trial.value("size_bytes") - 1) for trial in trials]
    assert error["size"] == pytest.approx(np.median(sizes))
    assert error["proposals"] == len(trials)


def test_random_ones_are_predicted_about_as_they_are(folder):
    """The model's word on random candidates against the made-up truth."""
    task = make_task()
    random = np.random.default_rng(0)
    frontier = Frontier(task)
    history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(task.space)]
    while len(history) < 40:
        (candidate,) = frontier.propose(history, 1)
        history.append(Observation(candidate, measure(candidate)))
    solved = frontier.solve(history)
    drawn = random.integers(0, frontier.grid.lengths, (50, len(frontier.grid.lengths)))
    real = [measure(frontier.grid.decode(vector)) for vector in drawn]
    assert hypervolume(solved.costs.predict(drawn)) == pytest.approx(hypervolume(real), rel=0.15)


def test_less_is_left_the_longer_one_searches():
    frontier = Frontier(make_task())
    history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(frontier.task.space)]
    gains = []
    while len(history) < 60:
        (candidate,) = frontier.propose(history, 1)
        history.append(Observation(candidate, measure(candidate)))
        if len(history) in (12, 60):
            gains.append(gain_ahead(SimpleNamespace(trials=[]), frontier, history))
    assert gains[0] > gains[1] >= 0.0


def test_the_account_counts_all_evaluations(folder):
    study, run = load_study(folder / "study.toml"), Run(folder / "run")
    study.prepare_spaces()
    frontier = Frontier(task_of(study, run, "frontier", 0))
    assert account(run, frontier, history_of(run))["evaluations"] == 14


def test_it_ends_where_three_looks_in_a_row_found_little_whenever_it_was_begun(monkeypatch):
    from slimfront.search import account as module

    run = SimpleNamespace(trials=[SimpleNamespace(label="")] * 40)
    gains = {5: 1e-4, 10: 1e-4, 15: 0.5, 20: 1e-4, 25: 1e-4, 30: 1e-4}
    monkeypatch.setattr(module, "gain_ahead", lambda run, frontier, history: gains[len(history)])
    frontier = Frontier(make_task())
    history = [Observation(candidate, measure(candidate)) for _, candidate in start_points(frontier.task.space)]
    history = (history * 10)[:32]
    watch = Watch(frontier)
    ended = [count for count in range(33) if watch.little_is_left(run, history[:count])]
    assert ended == [30, 31, 32]
    assert "0.0001" in str(watch)
    resumed = Watch(frontier)
    assert not resumed.little_is_left(run, history[:29])
    assert resumed.little_is_left(run, history[:30])


def test_a_search_until_converged_ends_before_its_trials_are_used_up(folder, tmp_path, monkeypatch):
    from slimfront.search import account as module

    monkeypatch.setattr(module, "gain_ahead", lambda *_: -1.0)  # less than any hypervolume, whatever was timed
    told = Notes()
    run = search(
        load_study(folder / "study.toml"),
        trials=60,
        run_dir=tmp_path / "run",
        progress=told,
        until_converged=True,
    )
    assert 10 < len(run.trials) < 40
    assert any("little is left to gain: the next 10 evaluations" in note for note in told.notes)


def test_only_our_own_sampler_can_tell(folder, tmp_path):
    with pytest.raises(InputError, match=r"only the sampler 'frontier'.*'random'"):
        search(load_study(folder / "study.toml"), 5, tmp_path / "run", sampler="random", until_converged=True)


def test_uniform_candidates_are_alike_and_in_the_space():
    space = make_task().space
    found = uniform_candidates(space)
    assert len(set(found)) == len(found) == 4 * 3
    assert all(space.contains(candidate) for candidate in found)
