"""Models that are kept at another place as well: what lies there, who reads it, places that go away, what is refused."""

import hashlib
import json
import shutil
import sys
import uuid
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from slimfront import cli
from slimfront.search.loop import search
from slimfront.search.propose import propose
from slimfront.spaces import build, graph
from slimfront.spaces.build import built_hash
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.errors import InputError, SlimfrontError
from slimfront.studies.artifacts import URL_VARIABLE, name_of, without_secrets
from slimfront.studies.run import Run, open_run
from slimfront.studies.study import load_study

pytestmark = pytest.mark.usefixtures("nobody_in_doubt")


class Moody(MemoryFileSystem):
    """A place that goes away now and then, and then leaves half a file behind."""

    protocol = "moody"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    away = False
    refused = 0

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("moody://", "memory://"))

    def put_file(self, lpath, rpath, *more, **named):
        content = Path(lpath).read_bytes()
        self.pipe_file(rpath, content[: len(content) // 2] if Moody.away else content)
        self._answer()

    def get_file(self, *more, **named):
        self._answer()
        super().get_file(*more, **named)

    def rm_file(self, path):
        if ".onnx" in path:
            self._answer()
        super().rm_file(path)

    @staticmethod
    def _answer():
        if Moody.away:
            Moody.refused += 1
            raise OSError("the line is dead")


fsspec.register_implementation("moody", Moody, clobber=True)


class Listener:
    """Notes what is told; makes the moody place come back after so many trials."""

    def __init__(self, back=0):
        self.back = back
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def prepare(self, text, fraction): ...

    def step(self, done, *more):
        if done == self.back:
            Moody.away = False


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path):
    return request.getfixturevalue("memory") if request.param == "memory" else f"file://{tmp_path}/place/models"


@pytest.fixture
def memory():
    return f"memory://bucket/{uuid.uuid4().hex}"


@pytest.fixture
def moody():
    yield f"moody://{uuid.uuid4().hex}"
    Moody.away, Moody.refused = False, 0


def there(url, run=None):
    """Return what lies at a place by name, in all folders or in that of a run."""
    files, root = fsspec.core.url_to_fs(url)
    about = json.loads((run.folder / "run.json").read_text()) if run is not None else {}
    paths = files.find(f"{root}/{about.get('artifacts_folder', '')}".rstrip("/"))
    return {Path(path).name: files.cat_file(path) for path in paths}


def kept(run):
    """Return the trials whose models a run keeps."""
    return {trial.number: trial for trial in (run.reference, *run.front_trials())}.values()


def holds(url, run):
    """Whether a place has just the models that a run keeps, with the bytes that were measured."""
    found = {name: hashlib.sha256(content).hexdigest() for name, content in there(url, run).items()}
    return found == {name_of(trial): trial.sha256 for trial in kept(run)}


def moved(run, folder):
    """Return a run as another machine has it: without its models."""
    shutil.copytree(run.folder, folder, ignore=shutil.ignore_patterns("models"))
    return Run(folder)


def test_the_reference_and_the_front_lie_there_and_what_left_the_front_does_not(study_folder, tmp_path, url):
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run", artifacts=url)
    assert holds(url, run)
    first = there(url)
    assert {name.split(".")[0] for name in first} == {trial.candidate.key for trial in kept(run)}
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run")  # it knows the place
    assert holds(url, run)
    assert set(there(url)) != set(first)


def test_a_run_without_its_models_gets_them_by_their_hash_and_ships(study_folder, tmp_path, url):
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run", artifacts=url)
    elsewhere = moved(run, tmp_path / "elsewhere")
    chosen = elsewhere.pick(prefer="size")
    away = study_folder.rename(tmp_path / "away")  # nothing can be built
    with pytest.raises(InputError):
        elsewhere.load()
    for trial in kept(elsewhere):
        assert built_hash(elsewhere.model_path(trial)) == trial.sha256
    away.rename(study_folder)
    shutil.rmtree(elsewhere.folder / "models")
    bundle = elsewhere.ship(chosen, tmp_path / "bundle")
    assert (bundle / "model.onnx").read_bytes() == run.model_path(chosen).read_bytes()
    assert elsewhere.explain(chosen)["trial"] == chosen.number


def test_a_damaged_file_there_is_not_used(study_folder, tmp_path):
    url = f"file://{tmp_path}/place"
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", artifacts=url)
    path = next((tmp_path / "place").rglob(name_of(run.reference)))
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elsewhere = moved(run, tmp_path / "elsewhere")
    assert elsewhere.model_path(elsewhere.reference).read_bytes() == content, "built again"
    shutil.rmtree(elsewhere.folder / "models")
    study_folder.rename(tmp_path / "away")
    with pytest.raises(InputError, match="its file there is not the one that was measured"):
        elsewhere.model_path(elsewhere.reference)
    assert not list((elsewhere.folder / "models").iterdir())
    path.unlink()
    with pytest.raises(InputError, match=f"its file is not in file://{tmp_path}/place"):
        elsewhere.model_path(elsewhere.reference)


def test_a_file_in_the_run_folder_that_is_not_the_measured_one_is_not_put_there(study_folder, tmp_path, memory):
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run")
    path = run.model_path(run.reference)
    path.write_bytes(path.read_bytes() + b"\0")
    listener = Listener()
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", artifacts=memory, progress=listener)
    assert set(there(memory)) == {name_of(trial) for trial in kept(run)} - {name_of(run.reference)}
    assert [note for note in listener.notes if "lacks the models of 1 trials (0)" in note]


def test_models_above_two_gigabytes_lie_there_with_their_weights_beside_them(study_folder, tmp_path, url, monkeypatch):
    for module in (build, graph):
        monkeypatch.setattr(module, "EXTERNAL_ABOVE_BYTES", 5_000)
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run", artifacts=url)
    names = set(there(url, run))
    assert {name.removesuffix(".data") for name in names} == {name_of(trial) for trial in kept(run)}
    assert name_of(run.reference) + ".data" in names
    elsewhere = moved(run, tmp_path / "elsewhere")
    study_folder.rename(tmp_path / "away")
    path = elsewhere.model_path(elsewhere.reference)
    assert built_hash(path) == elsewhere.reference.sha256
    assert {file.name for file in path.parent.iterdir()} == {path.name, f"{path.name}.data"}


def test_studies_and_runs_share_a_place(study_folder, tmp_path, memory):
    runs = [
        search(load_study(study_folder), trials=trials, run_dir=tmp_path / f"run{trials}", artifacts=memory)
        for trials in (3, 7)
    ]
    search(load_study(study_folder), trials=4, run_dir=runs[0].folder)
    assert all(holds(memory, Run(run.folder)) for run in runs)


def test_what_is_proposed_is_kept_there_as_well(study_folder, tmp_path, memory):
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", artifacts=memory, sampler="frontier")
    propose(run, prefer="size")
    assert holds(memory, open_run(run.folder))


def test_a_run_that_was_begun_without_a_place_is_given_one_and_keeps_it(study_folder, tmp_path, memory):
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run")
    run = search(load_study(study_folder), trials=4, run_dir=tmp_path / "run", artifacts=memory)
    assert holds(memory, run)
    assert json.loads((run.folder / "run.json").read_text())["artifacts"] == without_secrets(memory)
    before = (run.folder / "records.jsonl").read_bytes()
    with pytest.raises(InputError, match=r"keeps its models in .*, not in memory://other; leave --artifacts out"):
        search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", artifacts="memory://other")
    assert (run.folder / "records.jsonl").read_bytes() == before


def test_a_place_that_goes_away_costs_no_trial_and_is_told_once(study_folder, tmp_path, moody):
    Moody.away, listener = True, Listener(back=6)
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", artifacts=moody, progress=listener)
    assert Moody.refused
    assert len(run.trials) == 9
    assert not [trial for trial in run.trials if trial.state == "failed"]
    told = [note for note in listener.notes if "moody" in note]
    assert told == [
        f"models cannot be kept in {moody}: the line is dead; this is tried again, and all stays in the run folder meanwhile"
    ]
    assert holds(moody, run)


def test_a_place_that_stays_away_is_told_of_and_filled_by_the_same_command(study_folder, tmp_path, moody):
    Moody.away, listener = True, Listener()
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", artifacts=moody, progress=listener)
    lacking = [trial for trial in kept(run) if name_of(trial) not in there(moody)]
    assert lacking
    [note] = [note for note in listener.notes if "lacks the models of" in note]
    assert note.startswith(f"{moody} lacks the models of {len(lacking)} trials")
    assert any(name.endswith(".part") for name in there(moody)), "half of a file"
    Moody.away = False
    again = Listener()
    run = search(load_study(study_folder), trials=9, run_dir=tmp_path / "run", artifacts=moody, progress=again)
    assert holds(moody, run)
    assert not [note for note in again.notes if "moody" in note]


def test_a_search_goes_on_without_a_place_that_is_gone(study_folder, tmp_path):
    place = tmp_path / "place"
    search(load_study(study_folder), trials=4, run_dir=tmp_path / "run", artifacts=place)
    shutil.rmtree(place)
    place.touch()
    listener = Listener()
    run = search(load_study(study_folder), trials=6, run_dir=tmp_path / "run", progress=listener)
    assert len(run.trials) == 6
    assert any(note.startswith(f"models cannot be kept in file://{place}") for note in listener.notes)


def test_a_reader_builds_again_what_a_place_that_is_away_does_not_give(study_folder, tmp_path, moody):
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", artifacts=moody)
    elsewhere = moved(run, tmp_path / "elsewhere")
    Moody.away = True
    assert elsewhere.model_path(elsewhere.reference).read_bytes() == run.model_path(run.reference).read_bytes()
    shutil.rmtree(elsewhere.folder / "models")
    study_folder.rename(tmp_path / "away")
    with pytest.raises(InputError, match=f"its file could not be had from {moody}: the line is dead"):
        elsewhere.model_path(elsewhere.reference)


def test_searches_on_one_database_use_one_place(study_folder, tmp_path, memory):
    storage = f"sqlite:///{tmp_path}/records.db"
    begun = search(load_study(study_folder), trials=3, run_dir=tmp_path / "a", storage=storage)
    reader = moved(begun, tmp_path / "reader")
    first = search(load_study(study_folder), trials=3, run_dir=tmp_path / "a", artifacts=memory)
    assert holds(memory, first)
    with pytest.raises(
        InputError, match=r"other searches of this study keep their models in .*, not in memory://other"
    ):
        search(load_study(study_folder), trials=9, run_dir=tmp_path / "b", storage=storage, artifacts="memory://other")
    second = search(load_study(study_folder), trials=9, run_dir=tmp_path / "b", storage=storage)
    paths = [json.loads((run.folder / "run.json").read_text()) for run in (first, second)]
    assert paths[0]["artifacts_folder"] == paths[1]["artifacts_folder"]
    mine = {path.stem for path in (tmp_path / "b" / "models").iterdir()}
    front = {name_of(trial) for trial in second.front_trials()} | {name_of(second.reference)}
    assert set(there(memory)) <= front
    assert {name for name in front if name.split(".")[0] in mine} <= set(there(memory))
    study_folder.rename(tmp_path / "away")
    assert "artifacts" not in json.loads((reader.folder / "run.json").read_text())
    assert built_hash(reader.model_path(reader.reference)) == reader.reference.sha256


@pytest.mark.parametrize(
    ("artifacts", "words"),
    [
        ("nonsense://somewhere", r"'nonsense://somewhere' cannot be read: give s3://bucket/folder"),
        ("{here}/study/study.toml/models", r"'file://.*' cannot be written to: "),
        ("http://127.0.0.1:1/models", r"'http://127.0.0.1:1/models' "),
        ("simplecache::memory://x", r"is a chain of file systems: give"),
        (" ", r"is no place: give"),
    ],
)
def test_a_place_that_cannot_be_is_refused_before_anything_is_done(study_folder, tmp_path, artifacts, words):
    with pytest.raises(InputError, match=words):
        search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", artifacts=artifacts.format(here=tmp_path))
    assert not (tmp_path / "run").exists()


def test_a_missing_driver_is_named_with_what_to_install(study_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    command = ["search", study_folder, "--run", tmp_path / "run", "--artifacts", "s3://me:hush@bucket/models"]
    monkeypatch.setattr(sys, "argv", ["slimfront", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("slimfront: --artifacts 's3://me@bucket/models' needs a driver: pip install s3fs")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/models/", "s3://bucket/models"),
        ("sftp://me:hush@host:22/models?key=hush", "sftp://me@host:22/models"),
        ("abfs://box@account.dfs.core.windows.net/a b", "abfs://box@account.dfs.core.windows.net/a b"),
        ("memory://", "memory://"),
        ("s3://bucket?key=hush", "s3://bucket"),
        ("simplecache::s3://me:hush@bucket", "simplecache::s3://me@bucket"),
        ("file:///models/", "file:///models"),
        ("/models/../of?mine#1", "file:///of?mine#1"),
        ("models", f"file://{Path.cwd()}/models"),
    ],
)
def test_what_is_written_of_a_url_holds_no_secret(url, shown):
    assert without_secrets(url) == without_secrets(shown) == shown


def test_no_file_holds_the_password_and_readers_have_it_from_the_environment(
    study_folder, tmp_path, moody, monkeypatch
):
    shown = moody.replace("moody://", "moody://me@")
    secret = shown.replace("me@", "me:hush@")
    monkeypatch.setenv(URL_VARIABLE, secret)
    run = search(load_study(study_folder), trials=3, run_dir=tmp_path / "run", artifacts=secret)
    files = [path.read_bytes() for path in run.folder.rglob("*") if path.is_file()]
    assert files
    assert not any(b"hush" in content for content in files)
    assert json.loads((run.folder / "run.json").read_text())["artifacts"] == shown
    elsewhere = moved(run, tmp_path / "elsewhere")
    study_folder.rename(tmp_path / "away")
    assert elsewhere.model_path(elsewhere.reference).exists()
    monkeypatch.delenv(URL_VARIABLE)
    shutil.rmtree(elsewhere.folder / "models")
    with pytest.raises(SlimfrontError):  # this place is another one without the password
        Run(elsewhere.folder).model_path(elsewhere.trial(0))
    assert elsewhere.trial(0).candidate == Candidate()
