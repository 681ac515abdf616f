"""Who is at work on a study: each coordinator says so again and again, by the database's clock.

One that has not for `LEASE_SECONDS` is taken for dead, and so is one whose process on this machine has ended.
"""

from __future__ import annotations

import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from .process import is_gone, this_process
from .transactions import Transactions

if TYPE_CHECKING:
    import sqlalchemy as sa

BEAT_SECONDS = 3.0
LEASE_SECONDS = 60.0
GRACE_SECONDS = 15.0  # after the database was away, when nobody could say anything
LEAVE_SECONDS = 10.0  # for which a beat that is under way is waited for at the end


class Attendance:
    """The coordinators of a study, this process among them from when it arrives until it leaves.

    Args:
        database: that keeps the study's records.
        study: digest of the study.

    Attributes:
        owner: this process's name among them.
    """

    def __init__(self, database: Transactions, study: str) -> None:
        self.owner = uuid.uuid4().hex
        self._database = database
        self._study = study
        self._coordinators = database.tables.coordinators
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def sign(self, connection: sa.Connection) -> None:
        """Say that this process is at work; it is entered where it is not, or not any more."""
        table, now = self._coordinators, self._database.clock
        if not connection.execute(table.update().where(table.c.owner == self.owner).values(beat=now)).rowcount:
            own = {"owner": self.owner, "study": self._study, "process": this_process(), "beat": now}
            connection.execute(table.insert().values(**own))

    def living(self, connection: sa.Connection) -> set[str]:
        """Strike off those that died; return the others that may be alive."""
        table = self._coordinators
        alive = set()
        for row in self._others(connection):
            same = (table.c.owner == row.owner) & (table.c.beat == row.beat)  # it has not said anything meanwhile
            if self._may_live(row) or not connection.execute(table.delete().where(same)).rowcount:
                alive.add(row.owner)
        return alive

    def silent(self, connection: sa.Connection, seconds: float) -> bool:
        """Whether one of the others that may be alive has said nothing for so many seconds."""
        rows = self._others(connection)
        return any(self._may_live(row) and row.age + 1 >= seconds for row in rows)  # ages are whole seconds

    def others(self, connection: sa.Connection) -> bool:
        """Whether others may be alive."""
        return any(self._may_live(row) for row in self._others(connection))

    def _others(self, connection: sa.Connection) -> list[Any]:
        import sqlalchemy as sa

        table = self._coordinators
        age = (self._database.clock - table.c.beat).label("age")
        others = sa.select(table, age).where(table.c.study == self._study, table.c.owner != self.owner)
        return list(connection.execute(others))

    def _may_live(self, row: Any) -> bool:
        just_back = time.monotonic() - self._database.failed < GRACE_SECONDS
        return not is_gone(row.process) and (row.age < LEASE_SECONDS or just_back)

    def arrive(self) -> None:
        """Begin to say that this process is at work."""
        self._database.do(self.sign)
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()

    def leave(self) -> None:
        """Say no more, and that it is over."""
        self._ended.set()
        if self._beating is not None:
            self._beating.join(LEAVE_SECONDS)
            table = self._coordinators
            self._database.attempt(lambda c: c.execute(table.delete().where(table.c.owner == self.owner)))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            self._database.attempt(self.sign)
