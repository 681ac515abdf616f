"""A study and its statistics in one piece, sent once to each node that has them not."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from ..spaces.cache import cache_folder, content_hash
from ..studies.holdings import OpenHoldings, RunHoldings
from ..studies.study import Study, load_study

FACTS_FILE = "machine.json"
KEPT_DAYS = 30.0  # that nobody uses a parcel


def pack(study: Study, statistics: Collection[Path]) -> bytes:
    """Return a study, what was measured on this machine and shapes its space, and entries of the cache as one archive."""
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        study.save(Path(folder))
        holdings = OpenHoldings(Path(folder))
        holdings.decide(study.students)
        for base in study.students:
            holdings.keep_base(study.builder.of(base).graph)
        (Path(folder) / FACTS_FILE).write_text(json.dumps(study.machine_facts), encoding="utf-8")
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(folder, "study")
            for entry in sorted(statistics):
                if entry.exists():
                    archive.add(entry, f"cache/{entry.relative_to(cache_folder())}")
    return packed.getvalue()


def digest_of(study: Study) -> str:
    """Return what a study's parcel is known by: the study, and what shapes its space on this machine."""
    return content_hash(study.digest, study.machine_facts, *study.students)


def place(digest: str) -> Path:
    """Return where a study's parcel lies on this node."""
    return cache_folder() / "parcels" / digest


def study_of(digest: str) -> Path:
    """Return where a study's parcel lies on this node, with the graphs of its students."""
    return place(digest) / "study"


def models_of(digest: str, search: str) -> Path:
    """Return where the model files of one search of a study lie on a node that does not share the coordinator's folder.

    All that the search needs there lies in the folder around it.
    """
    return place(digest) / "searches" / search / "models"


def is_here(digest: str) -> bool:
    """Whether a study's parcel was unpacked on this node."""
    return (place(digest) / "study" / FACTS_FILE).exists()


def unpack(digest: str, parcel: bytes) -> None:
    """Unpack a study's parcel on this node, whole or not at all; its statistics go to the node's cache.

    Parcels that nobody has used for `KEPT_DAYS` are deleted.
    """
    folder = place(digest)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if is_here(digest):
            return
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        with tarfile.open(fileobj=io.BytesIO(parcel)) as archive:
            archive.extractall(part, filter="data")
        for entry in (part / "cache").glob("*/*"):
            known = cache_folder() / entry.relative_to(part / "cache")
            known.mkdir(parents=True, exist_ok=True)
            for file in entry.iterdir():
                if not (known / file.name).exists():
                    file.replace(known / file.name)
        shutil.rmtree(part / "cache", ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    _sweep(folder.parent)


def _sweep(parcels: Path) -> None:
    """Delete the parcels that nobody has used for a while."""
    for facts in parcels.glob(f"*/study/{FACTS_FILE}"):
        with suppress(OSError):  # another process sweeps, too
            if time.time() - facts.stat().st_mtime > KEPT_DAYS * 86400:
                shutil.rmtree(facts.parents[1], ignore_errors=True)


def opened(digest: str) -> Study:
    """Return the study of a parcel that was unpacked on this node, its space as where it was packed."""
    folder = study_of(digest)
    (folder / FACTS_FILE).touch()
    study = load_study(folder)
    study.use_machine_facts(json.loads((folder / FACTS_FILE).read_text(encoding="utf-8")))
    holdings = RunHoldings(folder)
    study.use_students(holdings.students or {}, holdings)
    return study
