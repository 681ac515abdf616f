"""Transactions on a database that may go away: each is tried again until it is through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from .database import complete, engine, first_line, made_meanwhile, unreachable
from .tables import clock, tables

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

PATIENCE_SECONDS = 600.0  # for which a database that does not answer is waited for
UNTOLD_SECONDS = 0.3  # a pause after which another try may well do
TRIES = 4  # to make tables that others may be making as well


class Transactions:
    """A database with its tables, and the transactions on it.

    What a transaction does may be done more than once: a database may have taken it, and not have come to say so.

    Args:
        url: of the database, e.g. "postgresql://user@host/name"; tables are made where they are missing.
        note: is told, in one line, when the database does not answer.

    Attributes:
        failed: when a transaction failed last, by the monotonic clock.

    Raises:
        InputError: the database cannot be reached, or its driver is not installed.
    """

    def __init__(self, url: str, note: Callable[[str], None]) -> None:
        self.url = complete(url)
        self.note = note
        self.tables = tables()
        self.failed = float("-inf")
        self._engine = engine(self.url)
        self.clock = clock(self._engine.dialect.name)
        self._create_tables()

    def _create_tables(self) -> None:
        for left in reversed(range(TRIES)):
            try:
                self.tables.metadata.create_all(self._engine)
                return
            except Exception as error:
                if not (left and made_meanwhile(error)):
                    raise unreachable(self.url, error) from error
                time.sleep(0.5)

    def do(self, what: Callable[[sa.Connection], T]) -> T:
        """Do something in one transaction; where others were faster, or the database is away, begin again.

        Raises:
            InputError: it stays away.
        """
        import sqlalchemy as sa

        failure: Exception | None = None
        told = False
        for pause in _pauses():
            try:
                with self._engine.begin() as connection:
                    return what(connection)
            except (sa.exc.IntegrityError, sa.exc.OperationalError, sa.exc.InterfaceError) as error:
                failure = error
                self._failed(error)
            if pause > UNTOLD_SECONDS and not told:
                self.note(f"the storage does not answer ({first_line(failure)}); waiting for it, nothing is lost")
                told = True
            time.sleep(pause)
        raise unreachable(self.url, failure or TimeoutError()) from failure

    def attempt(self, what: Callable[[sa.Connection], object]) -> None:
        """Do something in one transaction where the database can be had at once; that it cannot is met elsewhere."""
        import sqlalchemy as sa

        try:
            with self._engine.begin() as connection:
                what(connection)
        except sa.exc.SQLAlchemyError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        import sqlalchemy as sa

        if not isinstance(error, sa.exc.IntegrityError):
            self.failed = time.monotonic()

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _pauses() -> Iterator[float]:
    """Yield ever longer pauses, in seconds, until patience is at its end."""
    end, pause = time.monotonic() + PATIENCE_SECONDS, 0.1
    while time.monotonic() < end:
        yield pause
        pause = min(2.0 * pause, 5.0)
