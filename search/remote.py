"""What runs on a worker: it opens the study once, then does the work that it is given, and tells of each stage."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from ..objectives.predictor import Predictor
from ..objectives.predictor_file import take_predictor, write_predictor
from ..objectives.runtimes import RUNTIMES
from ..spaces.build import file_parts
from ..spaces.cache import cache_folder
from ..spaces.candidate import Candidate
from ..studies.holdings import TRAINED_SUFFIX, WEIGHTS_FOLDER, RunHoldings
from ..studies.run_folder import placing, writing_to
from . import parcel
from .evaluate import Evaluator
from .work import Results, Work, perform

MEMORY = 0.9  # of a machine's memory, for all of its workers together
PACKAGES = (
    "slimfront",
    "onnxruntime",
    "onnx",
    "onnx-ir",
    "numpy",
    "scipy",
    "torch",
)  # what files and readings depend on
PACKERS = {"litert": ("litert-torch", "litert-converter")}  # by runtime, what makes its files beside its own package


@dataclass(frozen=True)
class Order:
    """A piece of work for a worker.

    Attributes:
        study: what its parcel is known by.
        search: a name for the search: it has model files of its own on a node that does not share the coordinator's.
        work: what is to be done.
        models: folder of the model files, where the worker's node shares it; else the node has one of its own.
        files: model files and trained weights by name, for a node that has a folder of its own.
        returns: whether the worker sends the file that it built.
        machine: fingerprint of the machine whose speed is predicted.
        knowledge: number of the predictor's state.
        memory: bytes that the worker may take.
    """

    study: str
    search: str
    work: Work
    models: str | None
    files: dict[str, bytes] = field(default_factory=dict)
    returns: bool = False
    machine: str = ""
    knowledge: int = 0
    memory: int | None = None


@dataclass(frozen=True)
class Step:
    """What a worker tells: that it has begun, stages that are finished, and files.

    Attributes:
        results: trials' numbers and their stages.
        files: model files by name.
    """

    results: Results = ()
    files: dict[str, bytes] = field(default_factory=dict)


def versions(runtime: str) -> dict[str, str]:
    """Return the versions of Python and of what files and readings depend on.

    Args:
        runtime: of the study.

    Raises:
        InputError: the runtime is not installed.
    """
    RUNTIMES[runtime].version()  # says what to install
    packages = dict.fromkeys((*PACKAGES, RUNTIMES[runtime].package, *PACKERS.get(runtime, ())))
    return {"python": ".".join(map(str, sys.version_info[:3]))} | {name: metadata.version(name) for name in packages}


def about(marks: dict[str, str], provider: str, threads: int, runtime: str) -> dict[str, Any]:
    """Return what the coordinator has to know of a node.

    Args:
        marks: by path, what a file holds that the coordinator wrote: a node that finds it shares the folder.
        provider: execution provider of the study.
        threads: of the study.
        runtime: of the study.
    """
    from ..studies.environment import current_environment

    def reads(path: str, mark: str) -> bool:
        try:
            return Path(path).read_text(encoding="utf-8") == mark
        except OSError:
            return False

    environment = current_environment(provider, threads, runtime)
    return {
        "host": socket.gethostname(),
        "versions": versions(runtime),
        "environment": environment.to_json(),
        "digest": environment.digest,
        "cache": str(cache_folder()),
        "shares": [path for path, mark in marks.items() if reads(path, mark)],
        "memory": memory(),
    }


def memory() -> int:
    """Return the bytes of memory that this machine has, or that its container may take."""
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found = min(found, int(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return found


def unpack(digest: str, packed: bytes) -> bool:
    """Unpack a study on this node."""
    parcel.unpack(digest, packed)
    return True


@lru_cache(maxsize=1)
def _evaluator(digest: str, machine: str, models: str) -> Evaluator:
    """Return what evaluates candidates of a study; it is opened once in a worker's life."""
    study = parcel.opened(digest)
    study.prepare_spaces()
    study.machine = machine
    return Evaluator(study, Path(models), predictor=study.predictor)


_known: dict[str, int] = {}  # by study, which state of the predictor this worker has


def work(order: Order, knowledge: bytes | None) -> Iterator[Step]:
    """Do a piece of work; yield an empty step when it begins, then what is found.

    Args:
        order: what to do.
        knowledge: what the predictor has learned.
    """
    if order.memory is not None:
        _limit_memory(order.memory)
    models = order.models or str(parcel.models_of(order.study, order.search))
    Path(models).mkdir(parents=True, exist_ok=True)
    evaluator = _evaluator(order.study, order.machine, models)
    evaluator.study.builder.holdings = RunHoldings(Path(models).parent, parcel.study_of(order.study))
    if knowledge is not None and _known.get(order.study) != order.knowledge:
        _learn(evaluator, knowledge)
        _known[order.study] = order.knowledge
    for name, content in order.files.items():
        write_whole(_place(Path(models), name), content)
    yield Step()
    for results in perform(evaluator, order.work):
        yield Step(results)
    if order.models is None:
        found = _files(order.work, evaluator)
        files = {file.name: file.read_bytes() for file in found} if order.returns else {}
        for file in found:
            file.unlink(missing_ok=True)
        if files:
            yield Step(files=files)


def _place(models: Path, name: str) -> Path:
    """Return where a file that was sent belongs."""
    return models.parent / WEIGHTS_FOLDER / name if name.endswith(TRAINED_SUFFIX) else models / name


def _files(work: Work, evaluator: Evaluator) -> list[Path]:
    """Return the model files of candidates that were worked on; the reference's is needed on."""
    candidates = {trial.candidate for trial in work.trials} - {Candidate()}
    return [file for path in sorted(map(evaluator.path, candidates)) for file in file_parts(path)]


def clean(study: str, search: str) -> None:
    """Delete the model files and weights of a search that has ended, on a node that has files of its own."""
    shutil.rmtree(parcel.models_of(study, search).parent, ignore_errors=True)


def knowledge_of(predictor: Predictor) -> bytes:
    """Return what a predictor has learned."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "predictor.npz"
        write_predictor(predictor, path)
        return path.read_bytes()


def _learn(evaluator: Evaluator, knowledge: bytes) -> None:
    predictor = evaluator.study.predictor
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        path = Path(folder) / "predictor.npz"
        path.write_bytes(knowledge)
        take_predictor(predictor, path, anew=True)


def _limit_memory(size: int) -> None:
    """Let this worker's own data grow to so many bytes; more is a failure of the candidate, not of the machine."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


def write_whole(path: Path, content: bytes) -> None:
    """Write a model file so that it is there whole or not at all. Raises `InputError` where the disk has no room."""
    with writing_to(path.parent.parent), placing(path) as part:
        part.write_bytes(content)
