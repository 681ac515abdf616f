"""What was said of a run is kept: appended, read back, whole lines only."""

from __future__ import annotations

from pathlib import Path

import pytest

from slimfront.spaces.errors import InputError
from slimfront.studies.review import MOST_TEXT, REVIEW_FILE, Decision, Judgement, Note, Review, now

NOTE = Note(who="Ada", when=now(), trial=3, key="k3", text="fine <b>")
JUDGEMENT = Judgement(who="Ada", when=now(), session="s", image=1, left="k3", right="k0", better="neither")
DECISION = Decision(who="Ada", when=now(), trial=3, key="k3", text="why", against=(1, 2), bundle="out")


def test_what_was_said_is_read_back(tmp_path: Path):
    Review(tmp_path).add(NOTE, JUDGEMENT)
    Review(tmp_path).add(DECISION)
    assert list(Review(tmp_path).said) == [NOTE, JUDGEMENT, DECISION]
    assert Review(tmp_path).judgements == [JUDGEMENT]
    assert Review(tmp_path).decisions == [DECISION]


def test_the_last_note_of_a_trial_holds(tmp_path: Path):
    review = Review(tmp_path)
    review.add(NOTE, Note(who="Bob", when=now(), trial=1, key="k1"))
    assert [note.trial for note in review.shortlist] == [1, 3]
    review.add(Note(who="Bob", when=now(), trial=3, key="k3", shortlisted=False))
    assert [note.trial for note in review.shortlist] == [1]
    assert review.notes["k3"].who == "Bob"


def test_a_half_written_line_is_skipped_and_spoils_no_other(tmp_path: Path):
    Review(tmp_path).add(NOTE)
    path = tmp_path / REVIEW_FILE
    path.write_bytes(path.read_bytes() + b'{"kind":"note","who":"A')
    assert list(Review(tmp_path).said) == [NOTE]
    Review(tmp_path).add(DECISION)
    assert list(Review(tmp_path).said) == [NOTE, DECISION]


def test_what_is_too_long_is_not_kept(tmp_path: Path):
    with pytest.raises(InputError, match="cannot be kept"):
        Review(tmp_path).add(Note(who="Ada", when=now(), trial=3, key="k3", text="x" * (MOST_TEXT + 1)))
    assert not (tmp_path / REVIEW_FILE).exists()


def test_nothing_was_said_of_a_new_run(tmp_path: Path):
    assert list(Review(tmp_path).said) == []
