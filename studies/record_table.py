"""The records of a study in a database, for several coordinators and readers at once."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import holdings_table
from .attendance import LEASE_SECONDS, Attendance
from .database import column
from .records import Record, numbered, plain_record, record_of
from .study_table import agreed
from .tables import parts, tables
from .transactions import Transactions
from .trial_table import TrialTable

if TYPE_CHECKING:
    import sqlalchemy as sa

WINDOW = 1000  # records before the latest that are looked at again: others may have committed them late
OWN = -1  # the place of a record that was written and not met since


class RecordTable:
    """The records of one study in a database; as a context, this process is one of its coordinators.

    Each record is written under a name of its own, so that none is written twice where a transaction is tried again.

    Args:
        url: of the database, e.g. "postgresql://user@host/name"; tables are made where they are missing.
        study: digest of the study.
        note: is told, in one line, when the database does not answer, and what others have taken over.

    Raises:
        InputError: the database cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, study: str, note: Callable[[str], None] = lambda text: None) -> None:
        self.study = study
        self.database = Transactions(url, note)
        self._attendance = Attendance(self.database, study)
        self._trials = TrialTable(self.database.tables.trials, study, self._attendance.owner)
        self._mine: set[int] = set()
        self._seen: dict[str, int] = {}  # by name, the place of records that were read or written
        self._last = 0

    def append(self, *records: Record) -> list[Record]:
        """Write records and wait until the database has them; return those of trials that nobody has taken over."""
        named = {uuid.uuid4().hex: record for record in records}

        def write(connection: sa.Connection) -> set[int]:
            lost = self._trials.taken_away(connection, {record.trial for record in records})
            self._insert(connection, {name: record for name, record in named.items() if record.trial not in lost})
            return lost

        lost = self.database.do(write)
        self._lose(lost)
        written = {name: record for name, record in named.items() if record.trial not in lost}
        self._seen.update(dict.fromkeys(written, OWN))
        return list(written.values())

    def take_over(self, records: Sequence[Record]) -> bool:
        """Write the records of a run that was kept elsewhere; return False where there are others of the study already.

        They are named by what they hold, so that it shows where that was done before.
        """
        named = {_name(place, record): record for place, record in enumerate(records)}

        def write(connection: sa.Connection) -> bool:
            if self._known(connection, list(named)) == set(named):
                return True
            if not self._trials.empty(connection):
                return False
            self._trials.enter(connection, {record.key: record.trial for record in records})
            self._insert(connection, named)
            return True

        return self.database.do(write)

    def claim(self, trials: Sequence[Sequence[Record]], first: int, total: int | None = None) -> list[list[Record]]:
        """Write the first records of trials; return those of candidates that no other coordinator was faster with.

        Args:
            trials: the records of each.
            first: ignored: numbers follow from what the database holds.
            total: how many trials there may be of all coordinators; by default any number.
        """
        names = [[uuid.uuid4().hex for _ in own] for own in trials]

        def write(connection: sa.Connection) -> list[dict[str, Record]]:
            self._attendance.sign(connection)  # or others would take them for those of one that has left
            numbers = self._trials.take(connection, [own[0].key for own in trials], total)
            won = [
                {name: numbered(record, numbers[record.key]) for name, record in zip(called, own, strict=True)}
                for called, own in zip(names, trials, strict=True)
                if own[0].key in numbers
            ]
            self._insert(connection, {name: record for own in won for name, record in own.items()})
            return won

        won = self.database.do(write)
        self._seen.update(dict.fromkeys((name for own in won for name in own), OWN))
        found = [list(own.values()) for own in won]
        self._mine |= {own[0].trial for own in found}
        return found

    def news(self) -> list[Record]:
        """Return the records that others have written since the last call; at first all there are."""
        import sqlalchemy as sa

        table = self.database.tables.records
        late = sa.select(table.c.id, table.c.name).where(table.c.study == self.study, table.c.id > self._last - WINDOW)

        def read(connection: sa.Connection) -> tuple[dict[str, int], list[str]]:
            found = {row.name: row.id for row in connection.execute(late)}
            new = sorted(id_ for name, id_ in found.items() if name not in self._seen)
            bodies = [
                body
                for part in parts(new)
                for body in connection.execute(
                    sa.select(table.c.body).where(table.c.id.in_(part)).order_by(table.c.id)
                ).scalars()
            ]
            return found, bodies

        found, bodies = self.database.do(read)
        self._last = max([self._last, *found.values()])
        seen = {**self._seen, **found}
        self._seen = {name: id_ for name, id_ in seen.items() if id_ > self._last - WINDOW or id_ == OWN}
        return [record for body in bodies if (record := record_of(body)) is not None]

    def agreed(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return facts about the run on which all coordinators agree: of each, what was told of it first."""
        return agreed(self.database, self.study, facts)

    def keep(self, content: str, data: bytes) -> None:
        """Keep something that others need, under its content id."""
        holdings_table.keep(self.database, self.study, content, data)

    def kept(self, content: str) -> bytes | None:
        """Return what is kept under a content id; None where nothing is."""
        return holdings_table.kept(self.database, self.study, content)

    def mine(self, number: int) -> bool:
        """Whether a trial is this coordinator's to work on."""
        return number in self._mine

    def adopt(self) -> set[int]:
        """Take over the trials of coordinators that have ended or died; return the numbers of those that are new here."""

        def take(connection: sa.Connection) -> set[int]:
            self._attendance.sign(connection)
            owners = self._trials.owners(connection)  # first: whoever claims meanwhile is at work already
            self._trials.inherit(connection, owners - self._attendance.living(connection))
            return self._trials.own(connection)

        own = self.database.do(take)
        self._lose(self._mine - own)
        found = own - self._mine
        self._mine = own
        return found

    @property
    def others(self) -> bool:
        """Whether another coordinator may be at work on the study."""
        return self.database.do(self._attendance.others)

    def silent(self, seconds: float) -> bool:
        """Whether another coordinator, which may be at work, has shown no sign of life for so many seconds."""
        return self.database.do(lambda connection: self._attendance.silent(connection, seconds))

    def __enter__(self) -> RecordTable:
        self._attendance.arrive()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave: what is not finished may be taken over by others at once."""
        self._attendance.leave()
        self.database.close()

    def _lose(self, numbers: set[int]) -> None:
        lost = self._mine & numbers
        self._mine -= lost
        if lost:
            self.database.note(
                f"{len(lost)} candidates of this process are others' by now: it had shown no sign of life for "
                f"{LEASE_SECONDS:.0f} s"
            )

    def _insert(self, connection: sa.Connection, named: Mapping[str, Record]) -> None:
        """Write records that the database does not have yet."""
        table = self.database.tables.records
        known = self._known(connection, list(named))
        rows = [
            {"study": self.study, "name": name, "body": _body(record)}
            for name, record in named.items()
            if name not in known
        ]
        if rows:
            connection.execute(table.insert(), rows)

    def _known(self, connection: sa.Connection, names: Sequence[str]) -> set[str]:
        import sqlalchemy as sa

        name = self.database.tables.records.c.name
        return {
            found
            for part in parts(names)
            for found in connection.execute(sa.select(name).where(name.in_(part))).scalars()
        }


class TableTail:
    """The records of a study in a database, as others write them; nothing is written, and nothing is waited for.

    Args:
        url: of the database.
        study: digest of the study.
    """

    def __init__(self, url: str, study: str) -> None:
        self.url = url
        self.study = study
        self._last = 0
        self._seen: set[int] = set()

    def news(self) -> list[Record]:
        """Return the records that were written since the last call, at first all there are.

        Raises:
            InputError: the database cannot be reached.
        """
        import sqlalchemy as sa

        table = tables().records
        late = sa.select(table.c.id).where(table.c.study == self.study, table.c.id > self._last - WINDOW)
        new = sorted(set(column(self.url, late)) - self._seen)
        bodies = [
            body
            for part in parts(new)
            for body in column(self.url, sa.select(table.c.body).where(table.c.id.in_(part)).order_by(table.c.id))
        ]
        self._last = max([self._last, *new])
        self._seen = {id_ for id_ in (*self._seen, *new) if id_ > self._last - WINDOW}
        return [record for body in bodies if (record := record_of(body)) is not None]


def read_table(url: str, study: str) -> list[Record]:
    """Return the records of a study in a database in order.

    Raises:
        InputError: the database cannot be reached.
    """
    import sqlalchemy as sa

    table = tables().records
    bodies = column(url, sa.select(table.c.body).where(table.c.study == study).order_by(table.c.id))
    return [record for body in bodies if (record := record_of(body)) is not None]


def _body(record: Record) -> str:
    return json.dumps(plain_record(record), allow_nan=False)


def _name(place: int, record: Record) -> str:
    """Return the name of a record that was kept elsewhere, ``place`` the how manieth of its run."""
    return hashlib.sha256(f"{place} {_body(record)}".encode()).hexdigest()[:32]
