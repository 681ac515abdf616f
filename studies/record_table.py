"""The records of a study in a database, for several coordinators and readers at once.

slimfront_studies       what run.json holds, once for each study
slimfront_records       the records, as JSON, in the order in which they were written
slimfront_trials        whose a trial is: a candidate has one trial, and one coordinator at a time works on it
slimfront_coordinators  who is at work: a counter that stands still tells that its coordinator has died
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from .database import complete, engine, first_line, made_meanwhile, tables, unreachable
from .process import is_gone, this_process
from .records import Record, numbered, plain_record, record_of

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

BEAT_SECONDS = 3.0
LEASE_SECONDS = 60.0  # after which a coordinator whose counter stands still is taken for dead
PATIENCE_SECONDS = 600.0  # for which a database that does not answer is waited for
TRIES = 4  # to make tables that others may be making as well
WINDOW = 1000  # records before the latest that are looked at again: others may have committed them late


class RecordTable:
    """The records of one study in a database.

    Args:
        url: of the database, e.g. "postgresql://user@host/name"; tables are made where they are missing.
        study: digest of the study.
        waiting: is told, in one line, when the database does not answer.

    Raises:
        InputError: the database cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, study: str, waiting: Callable[[str], None] = lambda text: None) -> None:
        self.url = complete(url)
        self.study = study
        self.waiting = waiting
        self.owner = uuid.uuid4().hex
        self._engine = engine(self.url)
        self._tables = tables()
        self._mine: set[int] = set()
        self._seen: dict[str, int] = {}  # by unique name, the place of records that were read or written
        self._last = 0
        self._beats: dict[str, tuple[int, float]] = {}  # by coordinator, its counter and since when it stands there
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self._create_tables()

    def _create_tables(self) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._tables.create_all(self._engine)
                return
            except Exception as error:
                if not (left and made_meanwhile(error)):
                    raise unreachable(self.url, error) from error
                time.sleep(0.5)

    # What several coordinators agree on.

    def about(self, own: dict[str, Any]) -> dict[str, Any]:
        """Return what the study's first coordinator wrote about it; ``own`` where this is the first."""
        import sqlalchemy as sa

        studies = self._tables.tables["slimfront_studies"]

        def take(connection: sa.Connection) -> dict[str, Any]:
            found = connection.execute(sa.select(studies.c.about).where(studies.c.study == self.study)).scalar()
            if found is None:
                connection.execute(studies.insert().values(study=self.study, about=json.dumps(own)))
                return own
            return dict(json.loads(found))

        try:
            return self._patiently(take)
        except sa.exc.IntegrityError:  # another one was first
            return self._patiently(take)

    def known_about(self) -> dict[str, Any] | None:
        """Return what the study's first coordinator wrote about it; None where there was none yet."""
        import sqlalchemy as sa

        studies = self._tables.tables["slimfront_studies"]
        ask = sa.select(studies.c.about).where(studies.c.study == self.study)
        found = self._patiently(lambda connection: connection.execute(ask).scalar())
        return None if found is None else dict(json.loads(found))

    def agreed(self, facts: Mapping[str, str]) -> Mapping[str, Any]:
        """Add facts to what is kept about the study where it has none of their names yet; return what is kept."""
        import sqlalchemy as sa

        studies = self._tables.tables["slimfront_studies"]
        here = studies.c.study == self.study

        def take(connection: sa.Connection) -> dict[str, Any]:
            known = json.loads(
                connection.execute(sa.select(studies.c.about).where(here).with_for_update()).scalar_one()
            )
            kept = {**facts, **known}
            if kept != known:
                connection.execute(studies.update().where(here).values(about=json.dumps(kept)))
            return kept

        return self._patiently(take)

    # Records.

    def append(self, *records: Record) -> None:
        """Write records and wait until the database has them."""
        rows = [self._row(record) for record in records]
        self._patiently(lambda connection: self._insert(connection, rows))

    def take_over(self, records: Sequence[Record]) -> bool:
        """Write the records of a run that was kept elsewhere; return False where there are some of the study already."""
        import sqlalchemy as sa

        trials = self._tables.tables["slimfront_trials"]
        rows = [self._row(record) for record in records]
        numbers = {record.trial: record.key for record in records}
        own = [{"study": self.study, "number": n, "key": key, "owner": self.owner} for n, key in numbers.items()]
        count = sa.select(sa.func.count()).where(trials.c.study == self.study)

        def write(connection: sa.Connection) -> bool:
            if connection.execute(count).scalar_one():
                return False
            connection.execute(trials.insert(), own)
            self._insert(connection, rows)
            return True

        taken = self._patiently(write)
        self._mine |= set(numbers) if taken else set()
        for row in rows:
            self._seen.pop(row["name"], None)  # to be read as all others are
        return taken

    def claim(self, trials: Sequence[Sequence[Record]], first: int) -> list[list[Record]]:
        """Write the first records of trials; return those of candidates that no other coordinator was faster with.

        Args:
            trials: the records of each.
            first: ignored: numbers follow from what the database holds.
        """
        won = [self._claim(records) for records in trials]
        return [records for records in won if records is not None]

    def _claim(self, records: Sequence[Record]) -> list[Record] | None:
        import sqlalchemy as sa

        trials = self._tables.tables["slimfront_trials"]
        here = trials.c.study == self.study
        key = records[0].key

        def take(connection: sa.Connection) -> list[Record] | None:
            known = connection.execute(
                sa.select(trials.c.number, trials.c.owner).where(here, trials.c.key == key)
            ).first()
            if known is not None and known.owner != self.owner:
                return None
            if known is not None:  # the database took it, and did not come to say so
                return [numbered(record, known.number) for record in records]
            number = 1 + int(
                connection.execute(
                    sa.select(sa.func.coalesce(sa.func.max(trials.c.number), -1)).where(here)
                ).scalar_one()
            )
            connection.execute(trials.insert().values(study=self.study, number=number, key=key, owner=self.owner))
            found = [numbered(record, number) for record in records]
            self._insert(connection, [self._row(record) for record in found])
            return found

        while True:
            try:
                found = self._patiently(take)
            except sa.exc.IntegrityError:  # another one took the number or the candidate meanwhile
                continue
            if found is not None:
                self._mine.add(found[0].trial)
            return found

    def news(self) -> list[Record]:
        """Return the records that others have written since the last call; at first all there are."""
        import sqlalchemy as sa

        table = self._tables.tables["slimfront_records"]
        names = (
            sa.select(table.c.id, table.c.name)
            .where(table.c.study == self.study, table.c.id > self._last - WINDOW)
            .order_by(table.c.id)
        )

        def read(connection: sa.Connection) -> tuple[dict[str, int], list[str]]:
            found = {row.name: row.id for row in connection.execute(names)}
            new = [id_ for name, id_ in found.items() if name not in self._seen]
            bodies = [
                body
                for first in range(0, len(new), WINDOW)
                for body in connection.execute(
                    sa.select(table.c.body).where(table.c.id.in_(new[first : first + WINDOW])).order_by(table.c.id)
                ).scalars()
            ]
            return found, bodies

        found, bodies = self._patiently(read)
        self._last = max([self._last, *found.values()])
        seen = {**self._seen, **found}
        self._seen = {name: id_ for name, id_ in seen.items() if id_ > self._last - WINDOW or id_ < 0}
        return [record for body in bodies if (record := record_of(body)) is not None]

    # Whose trials are.

    def mine(self, number: int) -> bool:
        """Whether a trial is this coordinator's to work on."""
        return number in self._mine

    def adopt(self) -> set[int]:
        """Take over the trials of coordinators that have ended or died; return their numbers."""
        import sqlalchemy as sa

        trials = self._tables.tables["slimfront_trials"]
        here = trials.c.study == self.study
        owners = self._patiently(lambda c: c.execute(sa.select(trials.c.owner).where(here).distinct()).scalars().all())
        dead = set(owners) - {self.owner} - self._alive()
        found: set[int] = set()
        for owner in dead:

            def take(connection: sa.Connection, owner: str = owner) -> set[int]:
                theirs = sa.select(trials.c.number).where(here, trials.c.owner == owner)
                numbers = set(connection.execute(theirs.with_for_update()).scalars())
                connection.execute(trials.update().where(here, trials.c.owner == owner).values(owner=self.owner))
                return numbers

            found |= self._patiently(take)
        self._mine |= found
        return found

    @property
    def others(self) -> bool:
        """Whether another coordinator may be at work on the study."""
        return bool(self._alive() - {self.owner})

    def _alive(self) -> set[str]:
        """Return the coordinators that may be alive: their counters have moved of late, as this process saw them."""
        import sqlalchemy as sa

        coordinators = self._tables.tables["slimfront_coordinators"]
        rows = self._patiently(lambda c: c.execute(sa.select(coordinators)).all())
        now = time.monotonic()
        alive = set()
        for row in rows:
            beat, since = self._beats.get(row.owner, (-1, now))
            if beat != row.beat:
                since = now
            self._beats[row.owner] = row.beat, since
            if row.study == self.study and now - since < LEASE_SECONDS and not is_gone(row.process):
                alive.add(row.owner)
        return alive

    # At work.

    def __enter__(self) -> RecordTable:
        coordinators = self._tables.tables["slimfront_coordinators"]
        own = {"owner": self.owner, "study": self.study, "process": this_process(), "beat": 0}
        self._patiently(lambda connection: connection.execute(coordinators.insert().values(**own)))
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave: what is not finished may be taken over by others at once."""
        coordinators = self._tables.tables["slimfront_coordinators"]
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
            with _errors_ignored(), self._engine.begin() as connection:
                connection.execute(coordinators.delete().where(coordinators.c.owner == self.owner))
        self._engine.dispose()

    def _beat(self) -> None:
        coordinators = self._tables.tables["slimfront_coordinators"]
        own = coordinators.c.owner == self.owner
        while not self._ended.wait(BEAT_SECONDS):
            with _errors_ignored(), self._engine.begin() as connection:  # a database that is away is met elsewhere
                connection.execute(coordinators.update().where(own).values(beat=coordinators.c.beat + 1))

    def _row(self, record: Record) -> dict[str, Any]:
        body = json.dumps(plain_record(record), allow_nan=False)
        return {"study": self.study, "name": uuid.uuid4().hex, "body": body}

    def _insert(self, connection: sa.Connection, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows that the database does not have yet: it may have taken them and not have come to say so."""
        import sqlalchemy as sa

        table = self._tables.tables["slimfront_records"]
        names = [row["name"] for row in rows]
        known = set(connection.execute(sa.select(table.c.name).where(table.c.name.in_(names))).scalars())
        new = [row for row in rows if row["name"] not in known]
        if new:
            connection.execute(table.insert(), new)
        self._seen.update(dict.fromkeys(names, -1))

    def _patiently(self, what: Callable[[sa.Connection], T]) -> T:
        """Do something in one transaction; wait for a database that is away.

        Raises:
            InputError: it stays away.
        """
        import sqlalchemy as sa

        end, told = time.monotonic() + PATIENCE_SECONDS, False
        pause = 0.2
        while True:
            try:
                with self._engine.begin() as connection:
                    return what(connection)
            except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                if time.monotonic() > end:
                    raise unreachable(self.url, error) from error
                if not told:
                    self.waiting(f"the storage does not answer ({first_line(error)}); waiting for it, nothing is lost")
                    told = True
                self._beats.clear()  # what nobody could write says nothing
                self._engine.dispose()
                time.sleep(pause)
                pause = min(2 * pause, 5.0)


def read_table(url: str, study: str) -> list[Record]:
    """Return the records of a study in a database in order.

    Raises:
        InputError: the database cannot be reached.
    """
    import sqlalchemy as sa

    table = tables().tables["slimfront_records"]
    bodies = _read(url, sa.select(table.c.body).where(table.c.study == study).order_by(table.c.id))
    return [record for body in bodies if (record := record_of(body)) is not None]


def read_about(url: str, study: str) -> dict[str, Any]:
    """Return what a database keeps about a study.

    Raises:
        InputError: the database cannot be reached.
    """
    import sqlalchemy as sa

    table = tables().tables["slimfront_studies"]
    found = _read(url, sa.select(table.c.about).where(table.c.study == study))
    return dict(json.loads(found[0])) if found else {}


def _read(url: str, ask: sa.Select[Any]) -> Sequence[Any]:
    """Return the values of a column. Raises `InputError` where the database cannot be reached."""
    import sqlalchemy as sa

    full = complete(url)
    try:
        with engine(full).connect() as connection:
            return connection.execute(ask).scalars().all()
    except sa.exc.SQLAlchemyError as error:
        raise unreachable(full, error) from error


@contextmanager
def _errors_ignored() -> Iterator[None]:
    import sqlalchemy as sa

    with suppress(sa.exc.SQLAlchemyError):
        yield
