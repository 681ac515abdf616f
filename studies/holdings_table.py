"""What coordinators of a study have made besides records, kept by content id in the database that they share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .database import column
from .study_table import read_about
from .tables import tables
from .transactions import Transactions

if TYPE_CHECKING:
    import sqlalchemy as sa

PART_BYTES = 1 << 20  # of one row: what servers take in one statement may be 4 MiB, in which bytes are escaped


def keep(database: Transactions, study: str, content: str, data: bytes) -> None:
    """Keep something where it is not kept yet.

    Args:
        database: that keeps the study's records.
        study: digest of the study.
        content: its content id.
        data: what it is.

    Raises:
        InputError: the database stays away.
    """
    import sqlalchemy as sa

    table = database.tables.holdings
    ask = sa.select(sa.func.count()).where(table.c.study == study, table.c.content == content)
    starts = range(0, len(data), PART_BYTES)

    def write(connection: sa.Connection) -> None:
        if connection.execute(ask).scalar_one():
            return
        for place, start in enumerate(starts):
            body = data[start : start + PART_BYTES]
            connection.execute(table.insert().values(study=study, content=content, place=place, body=body))

    database.do(write)


def kept(database: Transactions, study: str, content: str) -> bytes | None:
    """Return what is kept under a content id; None where nothing is."""
    return _whole(database.do(lambda connection: connection.execute(_parts(study, content)).scalars().all()))


class SharedHoldings:
    """What coordinators of a study share, for who only reads.

    Args:
        url: of the database.
        study: digest of the study.
    """

    def __init__(self, url: str, study: str) -> None:
        self._url = url
        self._study = study

    def kept(self, content: str) -> bytes | None:
        """Return what is kept under a content id; None where nothing is."""
        return _whole(column(self._url, _parts(self._study, content)))

    def agreed(self, facts: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the coordinators agree on; of nothing else."""
        return read_about(self._url, self._study)


def _parts(study: str, content: str) -> sa.Select[Any]:
    import sqlalchemy as sa

    table = tables().holdings
    return sa.select(table.c.body).where(table.c.study == study, table.c.content == content).order_by(table.c.place)


def _whole(parts: Any) -> bytes | None:
    return b"".join(parts) if parts else None
