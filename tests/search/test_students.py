"""Students in a search: found once, kept in the run, searched like the reference, and shipped like any candidate."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

import slimfront as sf
from slimfront import cli
from slimfront.search import parcel, remote, students
from slimfront.search.addition import adding_to
from slimfront.search.loop import search
from slimfront.search.own_family import drawn
from slimfront.search.polish import polish
from slimfront.search.recorded import Proposal
from slimfront.search.shared_network import SharedNetwork
from slimfront.search.shortened import judge_shortened
from slimfront.search.work import Kind, Work
from slimfront.spaces.candidate import REFERENCE, Candidate
from slimfront.spaces.errors import BuildError
from slimfront.spaces.family import family_of
from slimfront.spaces.shorten import residual_blocks, shortened
from slimfront.studies.holdings import BASES_FOLDER, RunHoldings
from slimfront.studies.run import Run
from slimfront.studies.study import Study, load_study
from slimfront.studies.trial import Trial

from .listeners import Notes

TRIALS = 24
TABLES = (
    "[space]\nweight_bits = [2, 4, 8, 32]\nactivation_bits = [8, 32]\npruning_ratios = [0.0, 0.5]\n"
    "[space.students]\ncount = 2\nwidth = [8, 16]\nfine_width = [8]\ndepth = [1, 2]\n{more}"
    "[training]\nshared_steps = 12\nsteps = 6\n{share}"
)


def with_students(folder, more="", share=""):
    file = folder / "study.toml"
    file.write_text(file.read_text() + TABLES.format(more=more, share=share))
    return folder


def refused(study, tmp_path, monkeypatch, capsys) -> str:
    """Return what a search says that ends with exit status 2."""
    monkeypatch.setattr(
        "sys.argv", ["slimfront", "search", str(study), "--run", str(tmp_path / "run"), "--trials", "5"]
    )
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    return capsys.readouterr().err


@pytest.fixture
def folder(study_folder):
    return with_students(study_folder)


@pytest.fixture(scope="module")
def made(write_study, tmp_path_factory):
    """A run of a study with students, made once."""
    place = tmp_path_factory.mktemp("students")
    write_study(place / "study")
    return search(with_students(place / "study"), trials=TRIALS, run_dir=place / "run", sampler="random")


@pytest.fixture
def run(made, tmp_path):
    """A copy of that run."""
    shutil.copytree(made.folder, tmp_path / "run")
    return Run(tmp_path / "run")


def test_students_are_searched_beside_the_reference(run):
    found = RunHoldings(run.folder).students
    assert len(found) == 2
    assert {path.stem for path in (run.folder / BASES_FOLDER).iterdir()} == {base[7:] for base in found}
    by_base = {base: [t for t in run.trials if t.candidate.base == base] for base in (REFERENCE, *found)}
    assert all(len(trials) >= 3 for trials in by_base.values())
    assert all(trial.measured or trial.predicted for trial in run.trials), [trial.reason for trial in run.trials]
    assert all(dict(t.candidate.student) == student for base, student in found.items() for t in by_base[base])
    assert any(not trial.label for base in found for trial in by_base[base]), "proposed, not only begun with"
    labels = [trial.label for trial in run.trials]
    assert sum(label.startswith(("student 8-8-", "student 16-8-")) and "," not in label for label in labels) == 2
    assert not list(run.folder.glob("training/*"))
    assert "search" in run.to_json()


def test_a_search_that_goes_on_has_the_same_students_and_trains_none(run, made, monkeypatch):
    monkeypatch.setattr(students, "shared_network", lambda *_: pytest.fail("trained again"))
    study = load_study(made.folder.parent / "study")
    again = search(study, trials=TRIALS + 2, run_dir=run.folder)
    assert len(again.trials) == TRIALS + 2
    assert [trial.candidate for trial in again.trials][:TRIALS] == [trial.candidate for trial in made.trials]


@pytest.mark.slow
def test_killed_while_students_are_trained_it_goes_on(folder, tmp_path, monkeypatch):
    from slimfront.search import training

    monkeypatch.setattr(training, "SAVED_SECONDS", 0.0)
    seen = []

    class Stop:
        def note(self, text): ...

        def step(self, *_): ...

        def prepare(self, text, part):
            seen.append((text, part))
            if text == "training" and part > 0.5 and len(seen) < 10:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(folder, trials=5, run_dir=tmp_path / "run", progress=Stop())
    first = next(part for text, part in seen if text == "training")
    seen.extend([("", 0.0)] * 10)
    run = search(folder, trials=5, run_dir=tmp_path / "run", progress=Stop())
    later = next(part for text, part in seen[20:] if text == "training")
    assert first < 0.1 < 0.5 < later
    assert len(run.trials) == 5
    search(folder, trials=5, run_dir=tmp_path / "whole")
    assert RunHoldings(tmp_path / "whole").students == RunHoldings(tmp_path / "run").students, (
        "the same students, to the bit"
    )


def test_students_for_which_the_time_does_not_suffice_come_with_the_next_call(folder, tmp_path):
    run = search(folder, trials=5, run_dir=tmp_path / "run", timeout=0.01)
    assert RunHoldings(run.folder).students is None
    again = search(folder, trials=9, run_dir=tmp_path / "run")
    assert len(RunHoldings(again.folder).students) == 2
    assert {trial.candidate.base for trial in again.trials} >= set(RunHoldings(again.folder).students)


def test_what_a_trial_is_built_from_has_to_be_at_hand(run, tmp_path):
    """Another process's student, whose graph lies in that one's folder, is left to it, and never fails here."""
    base = next(iter(RunHoldings(run.folder).students))
    (run.folder / "students.json").write_text('{"version": 1, "students": []}')
    (run.folder / BASES_FOLDER / f"{base[7:]}.onnx").unlink()
    study = load_study(run._about["study"]["source"])
    again = search(study, trials=TRIALS + 1, run_dir=run.folder, sampler="random")
    assert not [trial for trial in again.trials if trial.state == "failed"]
    result = CliRunner().invoke(cli.app, ["report", str(run.folder), "-o", str(tmp_path / "report.html")])
    assert result.exit_code in (0, 1), result.output


@pytest.mark.parametrize("moved", [pytest.param(False, marks=pytest.mark.slow), True])
def test_searches_with_folders_of_their_own_share_students_and_what_was_trained(folder, tmp_path, monkeypatch, moved):
    a, b, storage = tmp_path / "a", tmp_path / "b", f"sqlite:///{tmp_path}/records.db"
    search(folder, trials=8, run_dir=a, sampler="random", storage=None if moved else storage)
    made = Run(a)
    trial = next(trial for trial in made.trials if trial.candidate.repaired and trial.candidate.base != REFERENCE)
    trained, _ = polish(made, trial, steps=4)
    assert trained.candidate.weights
    monkeypatch.setattr("slimfront.search.students._found", lambda *_: pytest.fail("they are trained already"))
    if moved:  # into a database, with what it holds
        search(folder, trials=10, run_dir=a, sampler="random", storage=storage)
    run = search(folder, trials=14, run_dir=b, sampler="random", storage=storage)
    assert RunHoldings(b).students == RunHoldings(a).students
    assert not [trial for trial in run.trials if trial.state == "failed"]
    assert {trial.candidate.base for trial in run.trials} == {REFERENCE, *RunHoldings(a).students}
    here = Run(b)
    for file in (b / "models").iterdir():
        file.unlink()
    assert here.trial(trained.number).sha256 == trained.sha256
    assert here.model_path(here.trial(trained.number)).exists(), "built here, with the weights that were trained there"
    assert run.rebuild(trained, run.load()).sha256 == trained.sha256


def test_however_large_the_share_is_the_reference_is_measured(study_folder, tmp_path):
    with_students(study_folder, share="share = 0.9\n")
    assert search(study_folder, trials=2, run_dir=tmp_path / "run").reference.measured


def test_a_student_is_built_again_explained_shipped_and_verified(run, tmp_path):
    trial = next(t for t in run.trials if t.judged and t.candidate.student and t.candidate.repaired)
    with adding_to(run) as addition:  # timed, whatever was predicted of it
        trial = addition.evaluated(Proposal(trial.candidate))
    run = Run(run.folder)
    path = run.model_path(trial)
    before = path.read_bytes()
    path.unlink()
    assert run.model_path(trial).read_bytes() == before
    told = run.explain(trial)
    assert told["base"] == trial.candidate.base
    assert {row["name"] for row in told["layers"]} <= set(run.load().builder.of(trial.candidate.base).graph.layers)
    shown = CliRunner().invoke(cli.app, ["explain", str(run.folder), "--trial", str(trial.number)])
    assert "uncompressed" in shown.stdout and "reference" not in shown.stdout.splitlines()[0]
    bundle = run.ship(trial, tmp_path / "bundle")
    assert (bundle / "model.onnx").read_bytes() == before
    assert "A student of" in (bundle / "card.md").read_text()
    result = CliRunner().invoke(cli.app, ["verify", str(bundle)])
    assert result.exit_code in (0, 1)
    assert "sha256" not in result.stderr
    network = run.to_torch(trial)
    assert network.graph.inputs[0].shape == (1, 3, 16, 16)


def test_a_student_is_polished_by_what_the_reference_gives(run):
    trial = next(t for t in run.trials if t.candidate.student and t.candidate.repaired and t.judged)
    after, _ = polish(run, trial, steps=150)
    assert after.candidate.base == trial.candidate.base
    assert after.value("fidelity_db") > trial.value("fidelity_db")


def test_the_report_and_the_front_tell_of_students(run, tmp_path):
    runner = CliRunner()
    result = runner.invoke(cli.app, ["report", str(run.folder), "-o", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "report.html").read_text()
    shown = runner.invoke(cli.app, ["front", str(run.folder), "--json", "--all"])
    front = json.loads(shown.stdout)
    assert {row["candidate"]["base"] for row in front["trials"]} == {REFERENCE, *RunHoldings(run.folder).students}
    on_front = [row for row in front["front"] if row["candidate"].get("student")]
    assert page.count('<figure class="student">') == len(on_front)
    assert ("student: another architecture" in page) == bool(RunHoldings(run.folder).students)


@pytest.mark.parametrize("shares", [True, False])
def test_a_worker_of_another_node_builds_students(run, shares, tmp_path):
    study = run.load()
    trial = next(t for t in run.trials if t.candidate.student and t.candidate.repaired and t.judged)
    digest = parcel.digest_of(study)
    parcel.unpack(digest, parcel.pack(study, []))
    assert set(parcel.opened(digest).students) == set(study.students)
    order = remote.Order(
        digest,
        "a search",
        Work(Kind.JUDGE, (Trial(trial.number, trial.candidate, "started"),)),
        str(tmp_path / "run" / "models") if shares else None,
        machine=study.environment.machine,
    )
    found = {result.stage: result for step in remote.work(order, None) for _, result in step.results}
    assert found["build"].sha256 == trial.sha256
    remote.clean(digest, "a search")


@pytest.mark.slow
def test_workers_find_what_one_process_finds(folder, tmp_path):
    alone = search(folder, trials=12, run_dir=tmp_path / "alone", sampler="random")
    run = search(folder, trials=12, run_dir=tmp_path / "run", sampler="random", workers=2)
    assert [t.candidate for t in run.trials] == [t.candidate for t in alone.trials]
    assert [t.sha256 for t in run.trials] == [t.sha256 for t in alone.trials]


def test_weights_that_come_with_the_study_are_used_as_they_are(study_folder, tmp_path):
    sizes = {"width": (8, 16), "fine_width": (8,), "depth": (1, 2)}
    family = family_of(load_study(study_folder).graph, **sizes)
    network = SharedNetwork(family)
    save_file(network.arrays(), study_folder / "students.safetensors")
    file = study_folder / "study.toml"
    file.write_text(
        file.read_text()
        + "[space]\nweight_bits = [8, 32]\n[space.students]\ncount = 1\nweights = 'students.safetensors'\n"
        "width = [8, 16]\nfine_width = [8]\ndepth = [1, 2]\n"
    )
    run = search(study_folder, trials=6, run_dir=tmp_path / "run")
    ((base, _),) = RunHoldings(run.folder).students.items()
    graph = run.load().builder.of(base).graph
    arrays = load_file(study_folder / "students.safetensors")
    own = graph.constant("stem 2 weight")
    assert np.array_equal(own, arrays["stem 2 weight"][: own.shape[0]])
    assert run.definition["space"]["students"]["weights"]
    whole = next(t for t in run.trials if t.candidate == Candidate(base=base))
    session = onnxruntime.InferenceSession(run.model_path(whole))
    assert session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 16, 16), np.float32)})[0].shape == (
        1,
        3,
        16,
        16,
    )


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ('weights = "nowhere.safetensors"\n', "space.students.weights: "),
        ('weights = "tiny.onnx"\n', "is no safetensors file"),
        ('weights = "other.safetensors"\n', "the students' weights are another family's"),
        ("coarse = [3]\n", "must be powers of 2"),
        ("kinds = ['shortened']\n", "width, fine_width, depth belong to elastic students, but kinds lists shortened"),
        ("kinds = ['shorter']\n", "must be of elastic, shortened, but got 'shorter' (did you mean 'shortened'?)"),
        ('blocks = ["plain"]\n', "unknown key 'blocks' (did you mean 'block'?)"),
    ],
)
def test_wrong_input_is_told_with_exit_status_2(study_folder, tmp_path, more, words, monkeypatch, capsys):
    save_file({"stem": np.zeros(3, np.float32)}, study_folder / "other.safetensors")
    study = with_students(study_folder, more)
    assert words in refused(study, tmp_path, monkeypatch, capsys)


def test_a_model_that_no_student_fits_is_searched_without(tmp_path, pictures):
    import torch

    class Halved(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 16, 3, stride=2, padding=1)

        def forward(self, x):
            return self.conv(x)

    torch.manual_seed(0)
    study = Study(Halved(), pictures(4, 1), pictures(3, 2), input_shape=(1, 3, 16, 16), name="halved", students=True)
    told = Notes()
    run = search(study, trials=5, run_dir=tmp_path / "run", progress=told)
    assert len(run.trials) == 5
    assert any("[1, 3, 16, 16]" in note and "[1, 16, 8, 8]" in note for note in told.notes)
    assert {trial.candidate.base for trial in run.trials} == {REFERENCE}


def test_a_base_that_is_nowhere_is_told_of(study_folder):
    study = load_study(study_folder)
    with pytest.raises(BuildError, match=r"the base sha256:0000.* is not at hand: it lies in the run"):
        sf.build(study, {"base": "sha256:" + "0" * 64})


@pytest.mark.slow
def test_the_last_part_of_a_search_polishes_the_front(study_folder, tmp_path):
    with_students(study_folder, share="share = 0.25\n")
    run = search(study_folder, trials=16, run_dir=tmp_path / "run", sampler="random")
    polished = [trial for trial in run.trials if trial.label.startswith("polished")]
    assert len(run.trials) <= 16
    assert 1 <= len(polished) <= 4
    assert all(trial.candidate.weights and (trial.measured or trial.predicted) for trial in polished)
    again = search(study_folder, trials=16, run_dir=tmp_path / "run", sampler="random")
    assert [trial.number for trial in again.trials] == [trial.number for trial in run.trials]


OWN = """
import torch

def build(trial):
    trial.suggest_categorical("init", ["uniform"])
    width = trial.suggest_categorical("width", [4, 8])
    act = {"relu": torch.nn.ReLU, "silu": torch.nn.SiLU}[trial.suggest_categorical("act", ["relu", "silu"])]
    layers = [torch.nn.Conv2d(3, width, 3, padding=1), act()]
    for _ in range(trial.suggest_int("depth", 0, 1)):
        layers += [torch.nn.Conv2d(width, width, 3, padding=1), act()]
    return torch.nn.Sequential(*layers, torch.nn.Conv2d(width, OUTPUTS, 3, padding=1))
"""


def with_family(folder, outputs=3, function="build"):
    (folder / "students.py").write_text(OWN.replace("OUTPUTS", str(outputs)))
    file = folder / "study.toml"
    file.write_text(
        file.read_text() + "[space]\nweight_bits = [8, 32]\nactivation_bits = [8, 32]\n[space.students]\ncount = 2\n"
        f'family = "students.py:{function}"\n[training]\nsteps = 6\n'
    )
    return folder


SHORTENED = {"students": {"kinds": ["shortened"], "count": 2}, "training": {"steps": 6}}


def test_the_reference_without_its_blocks_is_a_student(residual_model, pictures, tmp_path):
    study = Study(residual_model, pictures(4, 1), pictures(3, 2), **SHORTENED)
    run = search(study, trials=16, run_dir=tmp_path / "run", sampler="random")
    ((base, student),) = RunHoldings(run.folder).students.items()
    (block,) = residual_blocks(study.graph)
    assert student == {"without": block.name}
    graph = run.load().builder.of(base).graph
    assert list(graph.layers) == ["a", "d", "e"]
    own, reference = graph.weight(graph.layers["d"]), study.graph.weight(study.graph.layers["d"])
    assert own.shape == reference.shape
    assert 0.0 < np.abs(own - reference).max() < 0.2 * np.abs(reference).max(), (
        "trained on from the reference's weights"
    )
    trials = [trial for trial in run.trials if trial.candidate.base == base]
    assert len(trials) >= 3 and all(trial.judged or trial.predicted for trial in trials)
    assert any(trial.label.startswith("student without 1 of the blocks") for trial in trials)
    result = CliRunner().invoke(cli.app, ["report", str(run.folder), "-o", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.output
    assert "the reference without the residual blocks" in (tmp_path / "report.html").read_text()


def test_a_study_is_another_where_its_kinds_of_students_are(residual_model, pictures):
    def told(**table):
        return Study(residual_model, pictures(4, 1), pictures(3, 2), students={"count": 2, **table}).definition

    assert "kinds" not in str(told()), "as it was when there was one kind"
    assert told() == told(kinds=["shortened", "elastic"]) != told(kinds=["shortened"]) != told(kinds=["elastic"])


def test_both_kinds_of_students_are_judged_together(residual_model, pictures, tmp_path):
    table = {"count": 8, "width": [8], "fine_width": [8], "depth": [1]}
    training = {"steps": 3, "shared_steps": 3}
    study = Study(residual_model, pictures(4, 1), pictures(3, 2), students=table, training=training)
    run = search(study, trials=3, run_dir=tmp_path / "run", sampler="random")
    kinds = {"without" in student for student in RunHoldings(run.folder).students.values()}
    assert kinds == {False, True}


def test_a_shortened_student_is_judged_by_what_it_has_and_misses(residual_model, pictures):
    study = Study(residual_model, pictures(4, 1), pictures(3, 2), **SHORTENED)
    told = []
    (judged,) = judge_shortened(study, residual_blocks(study.graph), lambda text, part: told.append((text, part)))
    assert told[-1] == ("judging shortened students", 1.0)
    short = shortened(study.graph, residual_blocks(study.graph))
    assert judged.graph().digest == short.digest and judged.inherits
    size, time, drop = judged.point
    assert size == pytest.approx(0.25 * short.parameters / study.graph.parameters)
    assert 0.0 < time < 0.3 and drop > 0.0


def test_a_model_without_blocks_has_no_shortened_students(study_folder, tmp_path):
    file = study_folder / "study.toml"
    file.write_text(
        file.read_text()
        + "[space]\nweight_bits = [4, 8]\n[space.students]\nkinds = ['shortened']\n[training]\nsteps = 4\n"
    )
    told = Notes()
    run = search(study_folder, trials=3, run_dir=tmp_path / "run", progress=told)
    assert "no students are searched: there is no residual block in the model that could be left out" in told.notes
    assert len(run.trials) == 3
    assert RunHoldings(run.folder).students == {}, "it will never be otherwise"


def test_without_steps_shortened_students_may_come_another_time(residual_model, pictures, tmp_path):
    tables = {"students": {"kinds": ["shortened"], "count": 1}}
    none = Study(residual_model, pictures(4, 1), pictures(3, 2), **tables, training={"steps": 0})
    run = search(none, trials=2, run_dir=tmp_path / "run")
    assert RunHoldings(run.folder).students is None
    some = Study(residual_model, pictures(4, 1), pictures(3, 2), **tables, training={"steps": 3})
    search(some, trials=3, run_dir=tmp_path / "run")
    assert len(RunHoldings(run.folder).students) == 1


def test_a_family_of_one_s_own_is_drawn_from_trained_and_searched(study_folder, tmp_path):
    run = search(with_family(study_folder), trials=9, run_dir=tmp_path / "run")
    found = RunHoldings(run.folder).students
    assert len(found) == 2
    assert all(set(student) == {"init", "width", "act", "depth"} for student in found.values())
    assert {trial.candidate.base for trial in run.trials} == {REFERENCE, *found}
    assert all(trial.measured or trial.predicted for trial in run.trials), [trial.reason for trial in run.trials]
    assert run.load().builder.of(next(iter(found))).graph.inputs[0].name == "x"
    result = CliRunner().invoke(cli.app, ["report", str(run.folder), "-o", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.stderr


def test_students_of_one_s_own_have_the_reference_s_free_axes(study_folder, tmp_path):
    model = onnx.load(study_folder / "tiny.onnx")
    for port in (model.graph.input[0], model.graph.output[0]):
        for axis, name in ((0, "n"), (2, "high"), (3, "wide")):
            port.type.tensor_type.shape.dim[axis].dim_param = name
    onnx.save(model, study_folder / "tiny.onnx")
    file = study_folder / "study.toml"
    file.write_text(file.read_text().replace('file = "tiny.onnx"', 'file = "tiny.onnx"\ninput_shape = [1, 3, 16, 16]'))
    study = load_study(with_family(study_folder))
    (judged, *_) = drawn(study, study.student_family, 1)
    graph = students.captured(judged.graph())
    assert graph.inputs[0].axes == study.graph.inputs[0].axes == ("n", 3, "high", "wide")
    graph.save(tmp_path / "student.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "student.onnx")
    assert session.get_outputs()[0].shape == ["n", 3, "high", "wide"]
    assert session.run(None, {"x": np.zeros((2, 3, 20, 24), np.float32)})[0].shape == (2, 3, 20, 24)


@pytest.mark.parametrize(
    ("outputs", "function", "words"),
    [
        (4, "build", "gives outputs of shape [1, 4, 16, 16], the reference [1, 3, 16, 16]"),
        (0, "built", "has no function 'built'"),
        ("missing", "build", "build fails on {"),
    ],
)
def test_what_is_wrong_about_a_family_of_one_s_own_is_told(
    study_folder, tmp_path, outputs, function, words, monkeypatch, capsys
):
    study = with_family(study_folder, outputs, function)
    assert words in refused(study, tmp_path, monkeypatch, capsys)
