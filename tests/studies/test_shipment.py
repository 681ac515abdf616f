"""Several members of a front in one shipment: which they are, how the loader chooses, and what verify finds."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimfront.spaces.errors import InputError
from slimfront.studies.front import hypervolume, nondominated
from slimfront.studies.limits import Limits
from slimfront.studies.run import Run
from slimfront.studies.shipment import spread
from slimfront.studies.subset import spread_subset
from slimfront.studies.verify import verify

from ..verified import failed


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, pictures: Callable) -> Run:
    from slimfront.search.loop import search
    from slimfront.studies.study import Study

    study = Study(tiny_model, pictures(4, 1), (pictures(6, 2), pictures(6, 3)))
    return search(study, trials=12, run_dir=tmp_path_factory.mktemp("shipments") / "run", sampler="random")


@pytest.fixture(scope="module")
def shipped(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.ship_spread(2, tmp_path_factory.mktemp("shipped") / "several", why="two phones")


@pytest.fixture
def copy(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "several"))


def on_the_device(folder: Path, code: str) -> subprocess.CompletedProcess:
    """Run code beside the loader, in a process that cannot import slimfront."""
    hidden = "import sys; sys.modules['slimfront'] = None; sys.modules['torch'] = None; sys.modules['onnx'] = None\n"
    return subprocess.run(
        [sys.executable, "-c", hidden + code], cwd=folder, capture_output=True, text=True, check=False
    )


def answer(folder: Path, code: str) -> str:
    done = on_the_device(folder, f"from load import load\nimport numpy as np\n{code}")
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def pretend(folder: Path, **took: list[float]) -> None:
    """Write what was measured on this device: lists by the kind of number, in the order of the members."""
    answer(folder, "import load; load.measured()")
    kept = json.loads((folder / "measured.json").read_text())
    for name, values in took.items():
        for member, value in zip(kept["members"], values, strict=True):
            member[name] = value
    (folder / "measured.json").write_text(json.dumps(kept))


@given(
    points=st.lists(st.tuples(*[st.floats(0, 1, width=16)] * 3), min_size=2, max_size=9, unique=True),
    count=st.integers(1, 4),
)
def test_a_subset_dominates_nearly_as_much_as_the_best_of_its_size(points: list, count: int):
    front = np.array(points)[nondominated(points)]
    count = min(count, len(front))
    span = np.ptp(front, axis=0)
    scaled = (front - front.min(axis=0)) / np.where(span > 0, span, 1.0)
    volumes = {
        rows: hypervolume(scaled[list(rows)], (1.1, 1.1, 1.1))
        for rows in itertools.combinations(range(len(front)), count)
    }
    chosen = tuple(spread_subset(front, count))
    assert volumes[chosen] >= (1 - 1 / np.e) * max(volumes.values()) - 1e-9


def test_members_are_spread_keep_limits_and_are_not_the_reference(run: Run):
    front = [trial for trial in run.front_trials() if trial.number != run.reference.number]
    assert [trial.number for trial in spread(run, len(front), Limits())] == [trial.number for trial in front]
    smallest = front[0].value("size_bytes")
    kept = [trial for trial in front if trial.value("size_bytes") <= 1.5 * smallest]
    if len(kept) >= 2:
        chosen = spread(run, 2, Limits(max_size=1.5 * smallest))
        assert {trial.number for trial in chosen} <= {trial.number for trial in kept}


def test_too_many_or_too_few_are_refused_with_what_there_is(run: Run, tmp_path: Path):
    with pytest.raises(InputError, match=r"has \d+ compressed candidates, but 500 are asked for"):
        run.ship_spread(500, tmp_path / "many")
    with pytest.raises(InputError, match="2 or more, but got 1"):
        run.ship_spread(1, tmp_path / "one")
    assert list(tmp_path.iterdir()) == []


def test_a_shipment_holds_bundles_and_a_loader_and_is_kept_in_the_run(shipped: Path, run: Run):
    members = json.loads((shipped / "shipment.json").read_text())["members"]
    names = {member["name"] for member in members}
    assert {path.name for path in shipped.iterdir()} == names | {"shipment.json", "load.py", "card.md"}
    for member in members:
        assert (shipped / member["name"] / "model.onnx").stat().st_size == member["size_bytes"]
    from slimfront.studies.review import Review

    told = {decision.bundle: decision.text for decision in Review(run.folder).decisions}
    assert {str(shipped / name): "two phones" for name in names}.items() <= told.items()


def test_the_loader_runs_without_slimfront_and_gives_what_the_members_give(copy: Path):
    best = max(json.loads((copy / "shipment.json").read_text())["members"], key=lambda member: member["psnr_db"])
    code = (
        "with np.load(f'{model.facts[\"name\"]}/check.npz') as stored:\n"
        "    found = np.concatenate([model.run({'x': row[None]})[0] for row in stored['input:x']])\n"
        "    print(model.facts['name'], np.abs(found.clip(0, 1) - stored['output']).max() < 1e-3)"
    )
    assert answer(copy, f"model = load()\n{code}") == f"{best['name']} True"


def test_the_loader_measures_once_and_keeps_budgets_of_time_and_memory(copy: Path):
    members = json.loads((copy / "shipment.json").read_text())["members"]
    low, high = sorted(members, key=lambda member: member["psnr_db"])
    fast = [1.0 if member is low else 5.0 for member in members]
    pretend(copy, milliseconds=fast, megabytes=fast)
    name = "print(model.facts['name'])"
    assert answer(copy, f"model = load(milliseconds=2); {name}") == low["name"]
    assert answer(copy, f"model = load(milliseconds=6); {name}") == high["name"]
    assert answer(copy, f"model = load(milliseconds=6, megabytes=3); {name}") == low["name"]
    done = on_the_device(copy, "from load import load\nload(milliseconds=0.5)")
    assert f"no model keeps 0.5 milliseconds here: {low['name']} takes 1" in done.stderr
    kept = json.loads((copy / "measured.json").read_text())
    (copy / "measured.json").write_text(json.dumps(kept | {"device": "another"}))
    answer(copy, "load(milliseconds=1e6)")
    again = json.loads((copy / "measured.json").read_text())
    assert again["device"] == kept["device"]
    assert [member["milliseconds"] for member in again["members"]] != fast


def test_limits_beside_the_front_s_objectives_choose_among_all_that_keep_them(run: Run):
    slowest = max(trial.latency_ms for trial in run.trials if trial.measured)
    everything = {trial.number for trial in spread(run, 2, Limits(max_latency=2 * slowest))}
    assert everything == {trial.number for trial in spread(run, 2, Limits())}


def test_what_was_measured_of_other_models_does_not_count(copy: Path):
    pretend(copy, milliseconds=[1.0, 2.0])
    shipment = json.loads((copy / "shipment.json").read_text())
    for member in shipment["members"]:
        member["sha256"] = member["sha256"][::-1]
    (copy / "shipment.json").write_text(json.dumps(shipment))
    answer(copy, "load(milliseconds=1e6)")
    assert [one["milliseconds"] for one in json.loads((copy / "measured.json").read_text())["members"]] != [1.0, 2.0]


def test_a_shipment_verifies_and_every_damage_is_found(copy: Path):
    verified = verify(copy)
    assert not failed(verified)
    first, second = (member["name"] for member in json.loads((copy / "shipment.json").read_text())["members"])
    assert {f"{first}: sha256", f"{second}: sha256", "loader"} <= {check["name"] for check in verified["checks"]}
    model = copy / second / "model.onnx"
    model.write_bytes(model.read_bytes() + b"\0")
    (copy / "load.py").write_text("# mine")
    shutil.rmtree(copy / first)
    assert verify(copy)["failed"] == ["loader", first, f"{second}: sha256"]
