"""The frontier sampler in plain Optuna studies."""

import itertools

import moocore
import numpy as np
import optuna
import pytest

import slimfront as sf
from slimfront.spaces.errors import InputError

optuna.logging.set_verbosity(optuna.logging.ERROR)

LAYERS, WIDTHS = 12, (2, 3, 4, 6, 8)
SIZES = 10.0 ** np.random.default_rng(0).uniform(0, 1, LAYERS)
ERRORS = 10.0 ** np.random.default_rng(1).uniform(-1, 1, LAYERS)


def tables(noise=0.0):
    doubt = 10.0 ** np.random.default_rng(2).normal(0, noise, LAYERS)
    return {
        f"conv{i}": {w: (SIZES[i] * w, 16.0 * ERRORS[i] * doubt[i] * 4.0**-w) for w in WIDTHS} for i in range(LAYERS)
    }


def measured(bits):
    size = sum(SIZES[i] * bits[f"conv{i}"] for i in range(LAYERS)) / (8 * SIZES.sum())
    error = sum(ERRORS[i] * 4.0 ** -bits[f"conv{i}"] for i in range(LAYERS))
    return size, 10 * np.log10(1 + 20 * error)


def objective(trial):
    return measured({f"conv{i}": trial.suggest_categorical(f"conv{i}", WIDTHS) for i in range(LAYERS)})


def searched(sampler, count=30, objective=objective, directions=("minimize", "minimize")):
    study = optuna.create_study(directions=directions, sampler=sampler)
    study.optimize(objective, n_trials=count)
    return study


def volume(study, worst=(1.0, 30.0)):
    return moocore.hypervolume([trial.values for trial in study.trials if trial.values], ref=worst)


def points(study):
    return [tuple(sorted(trial.params.items())) for trial in study.trials]


def test_it_finds_more_of_the_front_than_optunas_samplers_in_a_fifth_of_the_trials():
    ours = volume(searched(sf.FrontierSampler(sf.AdditiveCosts(tables(noise=0.3)), seed=0), 20))
    for sampler in (optuna.samplers.NSGAIISampler(seed=0), optuna.samplers.RandomSampler(seed=0)):
        assert ours > volume(searched(sampler, 100))


def test_equal_seeds_and_trials_give_equal_samples_and_nothing_comes_twice():
    first, second = (searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=3)) for _ in range(2))
    assert points(first) == points(second)
    assert len(set(points(first))) == 30
    other = searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=4))
    assert points(first) != points(other)


def test_a_search_that_is_resumed_goes_on_as_if_it_had_not_stopped(tmp_path):
    storage = f"sqlite:///{tmp_path}/optuna.db"
    for count in (7, 5):
        study = optuna.create_study(
            storage=storage,
            study_name="s",
            directions=["minimize"] * 2,
            load_if_exists=True,
            sampler=sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=1),
        )
        study.optimize(objective, n_trials=count)
    whole = searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=1), 12)
    assert points(study) == points(whole)


def test_batches_are_distinct_before_anything_is_told():
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0)
    )
    asked = [study.ask() for _ in range(6)]
    bits = [{f"conv{i}": trial.suggest_categorical(f"conv{i}", WIDTHS) for i in range(LAYERS)} for trial in asked]
    assert len({tuple(b.values()) for b in bits}) == 6
    for trial, b in zip(asked, bits, strict=True):
        study.tell(trial, measured(b))
    assert len(study.best_trials) >= 1


def test_parameters_may_be_conditional_asked_for_as_numbers_and_unknown_to_the_model():
    costs = sf.AdditiveCosts(
        {"kind": {"a": 0.0, "b": 1.0}, "bits": {2: 0.0, 4: 2.0, 8: 6.0}, "rate": {0.0: 0.0, 0.5: 1.0}}
    )
    seen = []

    def conditional(trial):
        kind = trial.suggest_categorical("kind", ["a", "b"])
        value = 3.0 if kind == "a" else trial.suggest_int("bits", 2, 8, step=2) + trial.suggest_float("rate", 0.0, 0.5)
        seen.append((kind, trial.params.get("bits"), trial.params.get("rate")))
        return value + 0.01 * trial.suggest_float("other", 0.0, 1.0)

    study = searched(sf.FrontierSampler(costs, seed=0), 7, conditional, ["minimize"])
    assert len(set(seen)) == 7  # one of "a", all six of "b"
    assert study.best_trial.params["bits"] == 2
    assert study.best_trial.params["rate"] == 0.0


def test_a_maximised_objective_is_maximised():
    costs = sf.AdditiveCosts({f"x{i}": {k: (k, k * (i + 1)) for k in range(4)} for i in range(5)})

    def two(trial):
        x = [trial.suggest_int(f"x{i}", 0, 3) for i in range(5)]
        return sum(x), sum(k * (i + 1) for i, k in enumerate(x))

    study = searched(sf.FrontierSampler(costs, seed=0), 25, two, ["minimize", "maximize"])
    everything = np.array(list(itertools.product(range(4), repeat=5)))
    exact = np.stack([everything.sum(axis=1), -(everything * range(1, 6)).sum(axis=1)], axis=1)
    found = [(trial.values[0], -trial.values[1]) for trial in study.trials]
    reached, reachable = (moocore.hypervolume(values, ref=(16, 1)) for values in (found, exact))
    assert reached > 0.97 * reachable


def test_limits_and_constraints_keep_the_search_where_it_is_wanted():
    limited = searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0, limits=(0.5, None)), 20)
    assert np.mean([trial.values[0] < 0.5 for trial in limited.trials]) > 0.8

    def constrained(trial):
        size, error = objective(trial)
        trial.set_constraint("size", size - 0.5)
        return size, error

    study = searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0), 15, constrained)
    assert len(set(points(study))) == 15
    assert any(trial.values[0] <= 0.5 for trial in study.best_trials)


def test_values_that_are_not_finite_and_choices_of_others_do_no_harm():
    def infinite(trial):
        size, error = objective(trial)
        return (float("inf"), error) if trial.number % 3 == 1 else (size, error)

    study = searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0), 12, infinite)
    assert len(set(points(study))) == 12

    costs = sf.AdditiveCosts({"x": {2: 0.0, 4: 1.0}, "y": {2: 0.0, 4: 1.0}})
    study = optuna.create_study(sampler=sf.FrontierSampler(costs, seed=0))
    study.enqueue_trial({"x": 3, "y": 2})
    study.optimize(lambda trial: trial.suggest_int("x", 2, 4) + trial.suggest_int("y", 2, 4), n_trials=5)
    assert len(set(points(study))) == 5  # the one of another choice, and all four of the model's


def test_numbers_of_numpy_are_choices_and_what_a_study_does_not_allow_is_told():
    costs = sf.AdditiveCosts({"x": {value: float(value) for value in np.arange(2, 6)}})
    study = searched(sf.FrontierSampler(costs, seed=0), 4, lambda trial: trial.suggest_int("x", 2, 5), ["minimize"])
    assert sorted(trial.params["x"] for trial in study.trials) == [2, 3, 4, 5]
    with pytest.warns(UserWarning, match="does not allow .* for 'x'"):
        searched(sf.FrontierSampler(costs, seed=0), 3, lambda trial: trial.suggest_int("x", 2, 3), ["minimize"])


def test_threads_sample_different_points():
    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0)
    )
    study.optimize(objective, n_trials=12, n_jobs=4)
    assert len(set(points(study))) == 12


def test_the_last_points_of_a_small_space_are_found():
    costs = sf.AdditiveCosts({f"x{i}": {0: 0.0, 1: 1.0} for i in range(6)})
    study = searched(
        sf.FrontierSampler(costs, seed=0),
        64,
        lambda t: sum(t.suggest_int(f"x{i}", 0, 1) for i in range(6)),
        ["minimize"],
    )
    assert len(set(points(study))) == 64


def test_failures_constant_objectives_and_a_space_of_one_point_do_no_harm():
    def fails(trial):
        objective(trial)
        raise ValueError

    study = optuna.create_study(
        directions=["minimize"] * 2, sampler=sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0)
    )
    study.optimize(fails, n_trials=5, catch=ValueError)
    assert len(set(points(study))) == 5

    def constant(trial):
        return objective(trial)[0], 1.0

    assert len(set(points(searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), seed=0), 8, constant)))) == 8
    one = searched(
        sf.FrontierSampler(sf.AdditiveCosts({"x": {1: 2.0}})), 3, lambda t: t.suggest_int("x", 1, 1), ["minimize"]
    )
    assert [trial.values for trial in one.trials] == [[1.0]] * 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "at least one parameter"),
        ({"a": {}}, "at least one choice"),
        ({"a": {1: (1, 2), 2: 1}}, "'a' have unequal"),
        ({"a": {1: 1}, "b": {1: (1, 2)}}, "a number for each objective"),
        ({"a": {1: (1, 2, 3, 4)}}, "at most 3"),
        ({"a": {1: float("nan")}}, "'a' must be finite"),
    ],
)
def test_wrong_tables_are_told(wrong, message):
    with pytest.raises(InputError, match=message):
        sf.AdditiveCosts(wrong)


def test_a_study_with_another_number_of_objectives_is_told():
    with pytest.raises(InputError, match="1 objectives, but the cost model tells 2"):
        searched(sf.FrontierSampler(sf.AdditiveCosts(tables())), 1, objective, ["minimize"])
    with pytest.raises(InputError, match="2 objectives, but there are 1 limits"):
        searched(sf.FrontierSampler(sf.AdditiveCosts(tables()), limits=[1.0]), 1)
