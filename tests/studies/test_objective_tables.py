"""[objectives]: its keys, what it refuses, what of it determines a run, and the limits on further objectives."""

import json
import math
import tomllib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.objectives.protocol import About, OpenModel, Reading, Subject
from slimfront.spaces.errors import InputError
from slimfront.studies.criteria import Criterion, bounds_of, coordinates, explained, limits_of_texts
from slimfront.studies.definition import parse_settings, to_toml
from slimfront.studies.front import membership, nondominated, surely_dominated
from slimfront.studies.limits import Bound, Limits
from slimfront.studies.study import Study, load_study

PLAIN = {"name": "s", "model": {"file": "m.onnx"}, "data": {"calibration": "c.npz", "evaluation": "e.npz"}}
COVERAGE = Criterion("diversity", "coverage", {"coverage": About("coverage"), "recall": About("recall")}, front=True)
SHAKE = Criterion(
    "shake", "shake", {"shake": About("shake", "px", maximise=False)}, limits={"max": 2.0, "max_drop": 1.0}
)


def append(folder, text):
    (folder / "study.toml").write_text((folder / "study.toml").read_text() + text)


def more_samples(folder, pictures, count, **arrays):
    np.savez(folder / "evaluation.npz", input=pictures(count, 2), **arrays)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (
            {"diversty": True},
            "[objectives] unknown objective 'diversty' (did you mean 'diversity'?): there are diversity",
        ),
        ({"sharp": {"front": True}}, 'one\'s own needs a function, sharp = { function = "measures.py:sharp" }'),
        ({"psnr_db": {"function": "m.py:f"}}, "is not taken, but got 'psnr_db'"),
        ({"recall": {"function": "m.py:f"}}, "is not taken, but got 'recall'"),
        ({"Sharp": {"function": "m.py:f"}}, "small letters, digits and underscores"),
        ({"texture": {"neighbours": 3}}, "texture has no key 'neighbours'"),
        (
            {"diversity": {"function": "m.py:f"}},
            "diversity has no key 'function'; of its own it has neighbours, features",
        ),
        ({"sharp": {"function": "m.py:f", "features": "m.py:g"}}, "sharp has no key 'features'"),
        ({"diversity": {"neighbours": 0}}, "objectives.diversity.neighbours must be at least 1, but got 0"),
        (
            {"diversity": {"neighbors": 3}},
            "[objectives.diversity] unknown key 'neighbors' (did you mean 'neighbours'?)",
        ),
        ({"diversity": {"front": "yes"}}, "objectives.diversity.front must be true or false, but got 'yes'"),
        (
            {"memory": {"max": "40 apples"}},
            "objectives.memory.max must be a number, or a size such as '40MB', but got '40 apples'",
        ),
        ({"texture": 3}, "objectives.texture must be a table, but got 3"),
        (
            {"texture": {"value": "texture"}},
            "texture.value must be one of texture_db, gradient_similarity, but got 'texture'",
        ),
        ({"texture": {"min": 30.0, "max": 20.0}}, "min 30 is above max 20"),
        ({"texture": {"max_drop": -1.0}}, "objectives.texture.max_drop must be at least 0"),
        (
            {"sharp": {"function": "sharp"}},
            "function must be 'measures.py:name', the file and the function, but got 'sharp'",
        ),
    ],
)
def test_what_is_wrong_is_told_with_what_would_do(table, words):
    with pytest.raises(InputError) as error:
        parse_settings({**PLAIN, "objectives": table})
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_is_written_as_it_was_read():
    objectives = {
        "texture": True,
        "worst_group": False,
        "diversity": {"neighbours": 3, "front": True, "min": 0.5},
        "sharp": {"function": "m.py:f", "title": "sharpness", "maximise": False},
    }
    settings = parse_settings({**PLAIN, "objectives": objectives})
    assert parse_settings(tomllib.loads(to_toml(settings))) == settings
    assert list(settings.further) == ["texture", "diversity", "sharp"]


def test_without_a_table_a_study_is_what_it_was(study_folder):
    study = load_study(study_folder)
    assert "objectives" not in study.definition
    assert "group" not in study.definition["data"]
    assert (study.further.objectives, study.criteria) == ((), ())
    digest = study.digest
    append(study_folder, "[objectives]\ntexture = false\n")
    assert load_study(study_folder).digest == digest


def test_what_is_asked_determines_the_run_and_what_it_is_called_does_not(study_folder):
    (study_folder / "measures.py").write_text("def sharp(subject):\n    return 1.0\n")
    text = (study_folder / "study.toml").read_text()
    digests = []
    for line in ('title = "a"', 'title = "b"', "front = true", "min = 0.5"):
        (study_folder / "study.toml").write_text(f'{text}[objectives.sharp]\nfunction = "measures.py:sharp"\n{line}\n')
        digests.append(load_study(study_folder).digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    (study_folder / "measures.py").write_text("def sharp(subject):\n    return 2.0\n")
    assert load_study(study_folder).digest not in digests


def test_too_few_samples_are_refused_before_anything_is_measured(study_folder, pictures):
    append(study_folder, "[objectives]\ndiversity = true\n")
    with pytest.raises(InputError) as error:
        load_study(study_folder).check()
    assert str(error.value) == (
        "objectives.diversity: 5 neighbours need at least 50 samples, but data.evaluation 'evaluation.npz' has 3: give it 47 more"
    )
    more_samples(study_folder, pictures, 50)
    load_study(study_folder).check()


def test_the_array_of_groups_is_asked_for_and_checked(study_folder, pictures):
    append(study_folder, "[objectives]\nworst_group = true\n")
    with pytest.raises(InputError, match=r"data\.evaluation 'evaluation\.npz' has no array 'group'"):
        load_study(study_folder).check()
    for group, words in (
        (np.arange(2), r"data\.evaluation: group must have shape \[3\], one value a sample, but got \[2\]"),
        (np.ones(3), "must hold whole numbers or texts, one a sample, but got float64"),
    ):
        more_samples(study_folder, pictures, 3, group=group)
        with pytest.raises(InputError, match=words):
            load_study(study_folder).check()
    more_samples(study_folder, pictures, 3, group=np.array(["ink", "oil", "ink"]))
    study = load_study(study_folder)
    study.check()
    assert study.evaluation.group.tolist() == ["ink", "oil", "ink"]
    assert study.definition["data"]["group"].startswith("3 samples")


def test_a_function_that_is_not_there_is_told(study_folder):
    append(study_folder, '[objectives]\nsharp = { function = "measures.py:sharp" }\n')
    with pytest.raises(InputError, match=r"objectives\.sharp\.function: there is no file .*measures\.py"):
        load_study(study_folder).check()


def test_a_saved_study_measures_the_same(study_folder, pictures, tmp_path):
    (study_folder / "measures.py").write_text(
        "def sharp(subject):\n    return 1.0\n\ndef flat(images):\n    return images.reshape(len(images), -1)\n"
    )
    append(
        study_folder,
        '[objectives.sharp]\nfunction = "measures.py:sharp"\n[objectives.diversity]\nneighbours = 1\n'
        'features = "measures.py:flat"\n[objectives.worst_group]\n',
    )
    more_samples(study_folder, pictures, 10, group=np.arange(10))
    study = load_study(study_folder)
    study.save(tmp_path / "saved")
    saved = load_study(tmp_path / "saved")
    assert saved.digest == study.digest
    assert saved.criteria == study.criteria
    saved.check()


def test_objects_in_memory_are_measured_by_the_process_that_has_them(tiny_model, pictures, tmp_path):
    class Energy:
        name = "anything"

        def measure(self, subject):
            return {"energy": Reading(1.0, "J")}

    study = Study(
        tiny_model,
        pictures(4, 1),
        pictures(3, 2),
        objectives={"energy": {"objective": Energy(), "front": True}, "brightness": lambda subject: 0.5},
    )
    assert [one.name for one in study.further.objectives] == ["energy", "brightness"]
    assert [one.front for one in study.criteria] == [True, False]
    study.save(tmp_path / "saved")
    saved = load_study(tmp_path / "saved")
    assert saved.digest == study.digest
    saved.check()  # it can be shipped, but not searched on
    with pytest.raises(InputError, match=r"objectives\.energy\.function was given in memory as an object"):
        _ = saved.further.objectives


def test_objects_of_one_class_are_told_apart(tiny_model, pictures):
    class Constant:
        def __init__(self, value):
            self.value = value

        def __call__(self, subject):
            return self.value

    objectives = {"low": Constant(1.0), "high": Constant(2.0)}
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), objectives=objectives)
    reference = OpenModel(tiny_model, study.evaluation)
    found = [one.measure(Subject(reference, reference)) for one in study.further.objectives]
    assert [readings["low" if "low" in readings else "high"].value for readings in found] == [1.0, 2.0]


def test_a_limit_of_memory_asks_for_memory(tiny_model, pictures):
    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), constraints={"max_memory": "40MB"})
    assert [(one.name, one.limits) for one in study.criteria] == [("memory", {"max": 40_000_000.0})]
    shown = {"memory": True}
    both = Study(tiny_model, pictures(4, 1), pictures(3, 2), constraints={"max_memory": "40MB"}, objectives=shown)
    assert both.criteria == study.criteria
    front = {"memory": {"front": True}}
    compared = Study(tiny_model, pictures(4, 1), pictures(3, 2), constraints={"max_memory": "40MB"}, objectives=front)
    assert compared.criteria[0].front


def test_two_objectives_do_not_read_the_same(tiny_model, pictures):
    class Meter:
        def __init__(self):
            self.readings = {"energy_j": About("energy", "J")}

        def measure(self, subject):
            return {}

    study = Study(tiny_model, pictures(4, 1), pictures(3, 2), objectives={"one": Meter(), "two": Meter()})
    with pytest.raises(InputError, match=r"objectives\.one reads 'energy_j', as another objective does"):
        _ = study.criteria


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 4), min_size=1, max_size=12))
def test_dominance_in_four_dimensions_is_that_of_its_definition(rows):
    points = np.array(rows, float)
    expected = [not any((other <= one).all() and (other < one).any() for other in points) for one in points]
    assert nondominated(points).tolist() == expected
    assert (~surely_dominated(points, points[:, 1], points[:, 1])).tolist() == expected
    assert membership(points, np.zeros(len(points)), samples=2).tolist() == [float(kept) for kept in expected]


def test_who_is_best_in_a_further_objective_is_not_dominated():
    better, worse = (0.5, 0.5, 0.1, -0.2), (0.6, 0.6, 0.2, -0.9)
    assert nondominated([better, worse]).all()
    assert nondominated([better[:3], worse[:3]]).tolist() == [True, False]


def test_a_limit_of_bytes_may_be_a_text():
    settings = parse_settings({**PLAIN, "objectives": {"memory": {"max": "40MB"}}})
    assert settings.objectives["memory"].limits == {"max": 4e7}
    assert tomllib.loads(to_toml(settings))["objectives"]["memory"] == {"max": 4e7}


def test_a_limited_objective_counts_by_how_much_its_limits_are_broken():
    assert COVERAGE.coordinate(0.7, 1.0) == -0.7
    assert SHAKE.coordinate(1.0, 0.5) == 0.0
    assert SHAKE.coordinate(3.0, 2.5) == pytest.approx(0.5)
    assert SHAKE.coordinate(3.0, 0.5) == pytest.approx(0.5 + 1.5)
    values = {"coverage": Reading(0.7, ""), "shake": Reading(1.0, "px")}
    assert coordinates([COVERAGE, SHAKE], values, {"coverage": 1.0, "shake": 0.5}) == (-0.7, 0.0)
    assert math.isnan(coordinates([COVERAGE], {}, {"coverage": 1.0})[0])


def test_a_criterion_is_kept_as_plain_data():
    for criterion in (COVERAGE, SHAKE):
        assert Criterion.from_json(json.loads(json.dumps(criterion.to_json()))) == criterion
    assert "at most 2 px, worse than the reference by at most 1 px" in explained([SHAKE])


def kept(limits, value, best=1.0):
    of = {"size_bytes": 1.0, "latency_ms": 1.0, "psnr_db": 30.0, "drop_db": 0.0, "speedup": 1.0}
    readings = {} if value is None else {"coverage": value}
    one = limits.violation(**of, readings=readings, best={"coverage": best})
    arrays = {key: np.array([number]) for key, number in of.items()}
    several = {} if value is None else {"coverage": np.array([value])}
    mask = limits.kept(**arrays, readings=several, best={"coverage": best})
    assert mask.tolist() == [one == 0.0]
    return one


def test_limits_of_further_objectives_are_broken_by_parts_of_them():
    least = Limits(bounds=(Bound("coverage", "min", 0.8),))
    assert kept(least, 0.8) == 0.0
    assert kept(least, 0.6) == pytest.approx(0.25)
    assert kept(least, None) == kept(least, math.nan) == 1.0
    assert kept(Limits(bounds=(Bound("coverage", "max", 0.5),)), 0.6) == pytest.approx(0.2)
    drop = Limits(bounds=(Bound("coverage", "max_drop", 3.0, "dB"),))
    assert (kept(drop, 40.0, best=42.0), kept(drop, 36.0, best=42.0)) == (0.0, 1.0)
    assert kept(Limits(bounds=(Bound("coverage", "max_drop", 0.5, maximise=False),)), 1.4, best=1.0) == 0.0


def test_given_limits_stand_in_front_of_the_studys():
    study = Limits(max_size=5.0, bounds=(Bound("coverage", "min", 0.5), Bound("coverage", "max", 0.9)))
    given = Limits(bounds=(Bound("coverage", "min", 0.8, title="coverage"),))
    both = given.over(study)
    assert both == Limits(max_size=5.0, bounds=(Bound("coverage", "min", 0.8, title="coverage"), study.bounds[1]))
    assert str(both) == "size at most 5 bytes, coverage at least 0.8, coverage at most 0.9"
    assert [*both.each()] == ["max_size", "coverage at least 0.8", "coverage at most 0.9"]


def test_limits_are_named_by_objective_or_reading():
    found = bounds_of([COVERAGE, SHAKE], {"diversity": 0.8, "recall": 0.7}, {"shake": 3})
    assert [(one.reading, one.kind, one.limit) for one in found] == [
        ("coverage", "min", 0.8),
        ("recall", "min", 0.7),
        ("shake", "max", 3.0),
    ]
    (memory,) = bounds_of([COVERAGE], None, {"recall": "1.5kB"})
    assert memory.limit == 1500.0
    with pytest.raises(InputError, match=r"max recall must be a number, or a size such as '40MB', but got 'much'"):
        bounds_of([COVERAGE], None, {"recall": "much"})
    with pytest.raises(
        InputError, match=r"min divresity: the run has no such objective.*'diversity'.*it has diversity, shake, cov"
    ):
        bounds_of([COVERAGE, SHAKE], {"divresity": 0.8}, None)
    with pytest.raises(InputError, match=r"the run's study has no \[objectives\]"):
        bounds_of([], {"diversity": 0.8}, None)
    assert limits_of_texts(["a=0.5", "b = 2", "memory=1.5MB"], "--min") == {"a": 0.5, "b": 2.0, "memory": 1.5e6}
    for text in ("a", "a=", "=1"):
        with pytest.raises(InputError, match=r"--min must be NAME=VALUE, such as diversity=0\.8, but got"):
            limits_of_texts([text], "--min")
    with pytest.raises(InputError, match="--min a must be a number, or a size such as '40MB', but got 'x'"):
        limits_of_texts(["a=x"], "--min")
