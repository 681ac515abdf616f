"""Whose the trials of a study are: a candidate has one trial, and one coordinator at a time works on it.

All of it is done in the transactions of others: what follows from an answer is done in the same one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from .tables import parts

if TYPE_CHECKING:
    import sqlalchemy as sa


class TrialTable:
    """The trials of one study.

    Args:
        trials: the table.
        study: digest of the study.
        owner: the coordinator that asks.
    """

    def __init__(self, trials: sa.Table, study: str, owner: str) -> None:
        self._trials = trials
        self._here = trials.c.study == study
        self._study = study
        self._owner = owner

    def take(self, connection: sa.Connection, keys: Sequence[str], total: int | None) -> dict[str, int]:
        """Give candidates that have no trial the next numbers, below ``total``; return those of this coordinator by key."""
        import sqlalchemy as sa

        trials = self._trials
        known = {
            row.key: row
            for part in parts(keys)
            for row in connection.execute(sa.select(trials).where(self._here, trials.c.key.in_(part)))
        }
        first = self._next(connection)
        new = [key for key in keys if key not in known][: None if total is None else max(total - first, 0)]
        numbers = {key: first + place for place, key in enumerate(new)}
        self.enter(connection, numbers)
        return {key: row.number for key, row in known.items() if row.owner == self._owner} | numbers

    def enter(self, connection: sa.Connection, numbers: Mapping[str, int]) -> None:
        """Enter trials of this coordinator, their numbers by key."""
        own = {"study": self._study, "owner": self._owner}
        if numbers:
            rows = [{**own, "key": key, "number": number} for key, number in numbers.items()]
            connection.execute(self._trials.insert(), rows)

    def empty(self, connection: sa.Connection) -> bool:
        """Whether there are none yet."""
        return not self._next(connection)

    def taken_away(self, connection: sa.Connection, numbers: Collection[int]) -> set[int]:
        """Return which of these are another coordinator's; the others stay this one's until the transaction's end."""
        import sqlalchemy as sa

        trials = self._trials
        found: set[int] = set()
        for part in parts(sorted(numbers)):
            ask = sa.select(trials.c.number, trials.c.owner).where(self._here, trials.c.number.in_(part))
            rows = connection.execute(ask.order_by(trials.c.number).with_for_update(read=True))
            found |= {row.number for row in rows if row.owner != self._owner}
        return found

    def owners(self, connection: sa.Connection) -> set[str]:
        """Return the other coordinators that have trials."""
        import sqlalchemy as sa

        owner = self._trials.c.owner
        return set(connection.execute(sa.select(owner).where(self._here, owner != self._owner).distinct()).scalars())

    def inherit(self, connection: sa.Connection, owners: Collection[str]) -> None:
        """Give this coordinator the trials of others."""
        trials = self._trials
        for owner in owners:
            connection.execute(trials.update().where(self._here, trials.c.owner == owner).values(owner=self._owner))

    def own(self, connection: sa.Connection) -> set[int]:
        """Return the numbers of this coordinator's."""
        import sqlalchemy as sa

        trials = self._trials
        ask = sa.select(trials.c.number).where(self._here, trials.c.owner == self._owner)
        return set(connection.execute(ask).scalars())

    def _next(self, connection: sa.Connection) -> int:
        import sqlalchemy as sa

        last = sa.select(sa.func.coalesce(sa.func.max(self._trials.c.number), -1)).where(self._here)
        return 1 + int(connection.execute(last).scalar_one())
