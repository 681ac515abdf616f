"""slimfront compresses image-generating networks: a search for the Pareto front of size, speed and quality.

    import slimfront as sf

    study = sf.load_study("painting")
    run = sf.search(study, trials=45, run_dir="runs/painting")
    chosen = run.pick(max_drop=0.5)
    bundle = run.ship(chosen, "out/")

Nothing heavy is imported until a name is used (PEP 562). And nothing relative: pytest runs this file under the name of
the clone's folder as well, whatever that is.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .search.cost_tables import AdditiveCosts
    from .search.evaluate import evaluate
    from .search.frontier_sampler import FrontierSampler
    from .search.loop import search
    from .search.polish import polish
    from .search.propose import propose
    from .spaces.candidate import Candidate, LayerChoice
    from .spaces.errors import InputError, SlimfrontError
    from .studies.candidates import build
    from .studies.report import report
    from .studies.run import Run, Trial, open_run
    from .studies.study import Study, load_study
    from .studies.verify import verify

    __version__: str

_HOMES = {
    "AdditiveCosts": "search.cost_tables",
    "Candidate": "spaces.candidate",
    "FrontierSampler": "search.frontier_sampler",
    "InputError": "spaces.errors",
    "LayerChoice": "spaces.candidate",
    "Run": "studies.run",
    "SlimfrontError": "spaces.errors",
    "Study": "studies.study",
    "Trial": "studies.run",
    "build": "studies.candidates",
    "evaluate": "search.evaluate",
    "load_study": "studies.study",
    "open_run": "studies.run",
    "polish": "search.polish",
    "propose": "search.propose",
    "report": "studies.report",
    "verify": "studies.verify",
}

__all__ = [
    "AdditiveCosts",
    "Candidate",
    "FrontierSampler",
    "InputError",
    "LayerChoice",
    "Run",
    "SlimfrontError",
    "Study",
    "Trial",
    "__version__",
    "build",
    "evaluate",
    "load_study",
    "open_run",
    "polish",
    "propose",
    "report",
    "search",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "search":
        return import_module(".search", __name__)  # a package that can be called: see there
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("slimfront")
    except PackageNotFoundError:  # run from a source tree that is not installed
        import tomllib
        from pathlib import Path

        project = Path(__file__).with_name("pyproject.toml")
        if not project.is_file():
            return "unknown"
        return str(tomllib.loads(project.read_text(encoding="utf-8"))["project"]["version"])


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
