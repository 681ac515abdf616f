"""What the coordinators of a study agree on in a database: what its first one wrote about it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .transactions import Transactions

if TYPE_CHECKING:
    import sqlalchemy as sa


def known_about(database: Transactions, study: str) -> dict[str, Any] | None:
    """Return what the study's first coordinator wrote about it; None where there was none yet.

    Args:
        database: that keeps the study's records.
        study: digest of the study.
    """
    return database.do(lambda connection: _found(connection, database.tables.studies, study))


def about(database: Transactions, study: str, own: dict[str, Any]) -> dict[str, Any]:
    """Return what the study's first coordinator wrote about it; ``own``, which is written, where this is the first."""

    def take(connection: sa.Connection) -> dict[str, Any]:
        studies = database.tables.studies
        found = _found(connection, studies, study)
        if found is None:
            connection.execute(studies.insert().values(study=study, about=json.dumps(own)))
        return own if found is None else found

    return database.do(take)


def _found(connection: sa.Connection, studies: sa.Table, study: str) -> dict[str, Any] | None:
    import sqlalchemy as sa

    found = connection.execute(sa.select(studies.c.about).where(studies.c.study == study)).scalar()
    return None if found is None else dict(json.loads(found))
