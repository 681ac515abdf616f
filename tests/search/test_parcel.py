"""A study in one piece: what comes out is what was put in, and parcels that nobody uses do not stay for ever."""

import os
import time

import pytest

from slimfront.search import parcel, remote
from slimfront.spaces.candidate import Candidate
from slimfront.studies.study import load_study

DAY = 86400


@pytest.fixture
def packed(study_folder, tmp_path, monkeypatch):
    """A parcel, and a node's cache that has not seen it."""
    study = load_study(study_folder)
    found = parcel.pack(study, [])
    monkeypatch.setenv("SLIMFRONT_CACHE", str(tmp_path / "cache"))
    return study, found


def grow_old(digest, days):
    then = time.time() - days * DAY
    os.utime(parcel.place(digest) / "study" / parcel.FACTS_FILE, (then, then))


def test_a_study_is_the_same_on_the_other_side(packed):
    study, content = packed
    parcel.unpack("one", content)
    assert parcel.opened("one").digest == study.digest


def test_parcels_that_nobody_has_used_for_a_month_are_deleted_when_another_one_comes(packed):
    _, content = packed
    for digest in ("unused", "used", "opened"):
        parcel.unpack(digest, content)
    grow_old("unused", 31)
    grow_old("used", 29)
    grow_old("opened", 31)
    parcel.opened("opened")
    parcel.unpack("new", content)
    there = {digest for digest in ("unused", "used", "opened", "new") if parcel.is_here(digest)}
    assert there == {"used", "opened", "new"}
    assert not parcel.place("unused").exists()


def test_the_files_of_a_search_are_deleted_and_those_of_others_are_not(packed):
    _, content = packed
    parcel.unpack("one", content)
    for search in ("mine", "other"):
        parcel.models_of("one", search).mkdir(parents=True)
        (parcel.models_of("one", search) / f"{Candidate().key}.onnx").touch()
    remote.clean("one", "mine")
    remote.clean("one", "never seen")
    assert not parcel.models_of("one", "mine").exists()
    assert list(parcel.models_of("one", "other").iterdir())
    assert parcel.is_here("one")
