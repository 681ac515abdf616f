"""What people said of a run's candidates: the shortlist with notes, judgements of pictures, decisions; kept in the run."""

from __future__ import annotations

import fcntl
import getpass
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from ..spaces.errors import InputError
from .records import append_lines, cannot_write, read_lines

REVIEW_FILE = "review.jsonl"
MOST_TEXT = 10_000  # characters of a note or a reason

Text = Annotated[str, msgspec.Meta(max_length=MOST_TEXT)]
Side = Literal["left", "right", "neither"]
Name = Annotated[str, msgspec.Meta(max_length=200)]


class Said(msgspec.Struct, frozen=True, tag_field="kind", omit_defaults=True, kw_only=True):
    """Something that somebody said.

    Attributes:
        who: said it.
        when: ISO 8601, UTC.
    """

    who: Name
    when: str


class Note(Said, frozen=True, tag="note"):
    """A candidate is on the shortlist, or no longer, and what is to be said of it; the last note of a trial holds.

    Attributes:
        trial: its number.
        key: its candidate's key.
        shortlisted: whether it is on the shortlist.
        text: may be empty.
    """

    trial: int
    key: str
    shortlisted: bool = True
    text: Text = ""


class Judgement(Said, frozen=True, tag="judgement"):
    """Two candidates' pictures of one image were looked at, blind.

    Attributes:
        session: of the same person's judgements, one after another.
        image: its number in the evaluation data.
        left, right: the candidates' keys.
        better: "left", "right" or "neither".
        text: the reason, may be empty.
    """

    session: str
    image: int
    left: str
    right: str
    better: Side
    text: Text = ""


class Decision(Said, frozen=True, tag="decision"):
    """A candidate was shipped.

    Attributes:
        trial: its number.
        key: its candidate's key.
        text: why.
        against: the numbers of the neighbours on the front that it was preferred to.
        bundle: the folder that it was shipped to.
    """

    trial: int
    key: str
    text: Text = ""
    against: tuple[int, ...] = ()
    bundle: str = ""


_decoder = msgspec.json.Decoder(Note | Judgement | Decision)


class Review:
    """What was said of a run, and is added.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / REVIEW_FILE

    @property
    def size(self) -> int:
        """The bytes of what was said: it grows with everything that is added."""
        return self.path.stat().st_size if self.path.exists() else 0

    @cached_property
    def said(self) -> Sequence[Said]:
        """All that was said, in order; a line that a killed process left half-written is skipped."""
        return [said for line in read_lines(self.path) if (said := _said(line)) is not None]

    def add(self, *said: Said) -> None:
        """Write something down, safe when it returns.

        Raises:
            InputError: a text that is too long, or the disk is full or cannot be written to.
        """
        lines = b"".join(_line(one) for one in said)
        try:
            file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)  # several boards may show a run
                append_lines(file, lines)
            finally:
                os.close(file)
        except OSError as error:
            raise cannot_write(self.path.parent, error) from error
        vars(self).pop("said", None)

    @property
    def notes(self) -> dict[str, Note]:
        """The last note of each trial, by its candidate's key."""
        return {said.key: said for said in self.said if isinstance(said, Note)}

    @property
    def shortlist(self) -> list[Note]:
        """The notes of the trials on the shortlist, by number."""
        return sorted((note for note in self.notes.values() if note.shortlisted), key=lambda note: note.trial)

    @property
    def judgements(self) -> list[Judgement]:
        """All judgements, in order."""
        return [said for said in self.said if isinstance(said, Judgement)]

    @property
    def decisions(self) -> list[Decision]:
        """All decisions, in order."""
        return [said for said in self.said if isinstance(said, Decision)]


def now() -> str:
    """Return the time as it is kept: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def somebody() -> str:
    """Return the name of who runs this process, empty where it has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""


def _line(said: Said) -> bytes:
    line = msgspec.json.encode(said)
    try:
        _decoder.decode(line)
    except msgspec.ValidationError as error:
        raise InputError(f"this cannot be kept: {error}") from error
    return line + b"\n"


def _said(line: bytes) -> Said | None:
    try:
        return _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError):
        return None
