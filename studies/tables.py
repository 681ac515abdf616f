"""The tables of a database that keeps records.

slimfront_studies       what run.json holds, once for each study
slimfront_records       the records, as JSON, in the order in which they were written
slimfront_trials        whose a trial is: a candidate has one trial, and one coordinator at a time works on it
slimfront_holdings      what coordinators have made besides records, in parts: graphs of students, and trained weights
slimfront_coordinators  who is at work: when each has last said so, by the database's clock
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import sqlalchemy as sa

T = TypeVar("T")

AT_ONCE = 1000  # values of one statement: databases take between 32,766 and 65,535
CLOCKS = {  # seconds since 1970, of the database's own clock
    "sqlite": "strftime('%s', 'now')",
    "postgresql": "floor(extract(epoch from clock_timestamp()))",
    "mysql": "unix_timestamp()",
    "mariadb": "unix_timestamp()",
}


@dataclass(frozen=True)
class Tables:
    """The tables, and what makes them."""

    metadata: sa.MetaData
    studies: sa.Table
    records: sa.Table
    trials: sa.Table
    coordinators: sa.Table
    holdings: sa.Table


def tables() -> Tables:
    """Return the description of the tables."""
    import sqlalchemy as sa

    made = sa.MetaData()
    text = sa.Text().with_variant(sa.Text(2**32 - 1), "mysql", "mariadb")
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    study = lambda: sa.Column("study", sa.String(64), nullable=False)  # noqa: E731
    return Tables(
        made,
        sa.Table(
            "slimfront_studies", made, sa.Column("study", sa.String(64), primary_key=True), sa.Column("about", text)
        ),
        sa.Table(
            "slimfront_records",
            made,
            sa.Column("id", number, primary_key=True, autoincrement=True),
            study(),
            sa.Column("name", sa.String(32), nullable=False, unique=True),
            sa.Column("body", text, nullable=False),
            sa.Index("slimfront_records_study", "study", "id"),
        ),
        sa.Table(
            "slimfront_trials",
            made,
            sa.Column("study", sa.String(64), primary_key=True),
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("key", sa.String(64), nullable=False),
            sa.Column("owner", sa.String(32), nullable=False),
            sa.UniqueConstraint("study", "key", name="slimfront_trials_key"),
        ),
        sa.Table(
            "slimfront_coordinators",
            made,
            sa.Column("owner", sa.String(32), primary_key=True),
            study(),
            sa.Column("process", sa.String(255), nullable=False),
            sa.Column("beat", sa.BigInteger, nullable=False),
        ),
        sa.Table(
            "slimfront_holdings",
            made,
            sa.Column("study", sa.String(64), primary_key=True),
            sa.Column("content", sa.String(80), primary_key=True),
            sa.Column("place", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("body", sa.LargeBinary(2**32 - 1), nullable=False),
        ),
    )


def clock(database: str) -> sa.ColumnElement[int]:
    """Return the time by the clock of a database of this kind, in whole seconds."""
    import sqlalchemy as sa

    return sa.cast(sa.literal_column(CLOCKS[database]), sa.BigInteger)


def parts(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield values, as many at a time as a statement may name."""
    for first in range(0, len(values), AT_ONCE):
        yield values[first : first + AT_ONCE]
