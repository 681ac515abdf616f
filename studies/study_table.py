"""What the coordinators of a study agree on in a database: what its first one wrote about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .database import column
from .tables import tables
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


def agreed(database: Transactions, study: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Add facts to what is kept about a study where it has none of their names yet; return what is kept."""

    def take(connection: sa.Connection) -> dict[str, Any]:
        import sqlalchemy as sa

        studies = database.tables.studies
        ask = sa.select(studies.c.about).where(studies.c.study == study).with_for_update()
        known = json.loads(connection.execute(ask).scalar_one())
        kept = {**facts, **known}
        if kept != known:
            connection.execute(studies.update().where(studies.c.study == study).values(about=json.dumps(kept)))
        return kept

    return database.do(take)


def read_about(url: str, study: str) -> dict[str, Any]:
    """Return what a database keeps about a study; nothing where it does not know it.

    Raises:
        InputError: the database cannot be reached.
    """
    import sqlalchemy as sa

    table = tables().studies
    found = column(url, sa.select(table.c.about).where(table.c.study == study))
    return dict(json.loads(found[0])) if found else {}


def _found(connection: sa.Connection, studies: sa.Table, study: str) -> dict[str, Any] | None:
    import sqlalchemy as sa

    found = connection.execute(sa.select(studies.c.about).where(studies.c.study == study)).scalar()
    return None if found is None else dict(json.loads(found))
