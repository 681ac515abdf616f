"""Importing slimfront is light, its names are lazy, and its packages import in one direction."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

import slimfront

ROOT = Path(slimfront.__file__).parent
MAY_IMPORT = {
    "spaces": {"spaces"},
    "objectives": {"objectives", "spaces"},
    "studies": {"studies", "objectives", "spaces"},
    "search": {"search", "studies", "objectives", "spaces"},
}
HEAVY = (
    "torch",
    "dash",
    "flask",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "plotly",
    "pydantic",
    "ray",
    "skimage",
    "moocore",
    "scipy",
)


def loaded_after(code: str) -> set[str]:
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_importing_slimfront_loads_nothing_heavy():
    assert loaded_after("import slimfront").isdisjoint({*HEAVY, "numpy"})


def test_help_loads_nothing_heavy():
    code = "import sys\nfrom slimfront.cli import app\ntry:\n    app(['--help'])\nexcept SystemExit:\n    pass"
    assert loaded_after(code).isdisjoint(HEAVY)


@pytest.mark.parametrize("name", slimfront.__all__)
def test_every_public_name_is_there(name: str):
    assert getattr(slimfront, name) is not None


def test_the_version_of_a_source_tree_is_that_of_its_pyproject(monkeypatch: pytest.MonkeyPatch):
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", absent)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert slimfront.__version__ == project["version"]


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = slimfront.no_such_name


@pytest.mark.parametrize("first", ["import slimfront.search.loop", "import slimfront as sf; sf.search"])
def test_search_is_a_function_whatever_was_imported_first(first: str):
    call = "try:\n    slimfront.search('no such study')\nexcept slimfront.InputError:\n    print('ok')"
    code = f"{first}\nimport slimfront\n{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "ok\n"


def modules() -> list[Path]:
    return [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported_packages(path: Path) -> set[str]:
    """Return the packages of slimfront that a module imports, wherever in it."""
    place = path.relative_to(ROOT).with_suffix("").parts
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = place[: len(place) - node.level] if node.level else ()
            parts = (*base, *(node.module.split(".") if node.module else ()))
            if not node.level:
                if parts[:1] != ("slimfront",):
                    continue
                parts = parts[1:]
            found |= {parts[0]} if parts else {alias.name for alias in node.names} - {"__version__"}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("slimfront.")}
    return found


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_in_one_direction(path: Path):
    package = path.relative_to(ROOT).parts[0]
    parts = path.relative_to(ROOT).parts
    if "benchmarks" in parts or (len(parts) == 3 and path.name.startswith("train")):
        pytest.skip("a script that stands outside")
    assert imported_packages(path) <= MAY_IMPORT[package]
