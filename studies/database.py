"""Databases that keep records: their URLs, drivers and tables."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql"}
EXTRAS = {"psycopg": "postgresql", "pymysql": "mysql"}
PASSWORD_VARIABLE = "SLIMFRONT_STORAGE"  # may hold the whole URL, so that no file holds a password


def absolute(url: str) -> str:
    """Return a URL that means the same wherever it is opened: a relative path of a SQLite file is made absolute."""
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:  # told of when it is opened
        return url
    if not parsed.drivername.startswith("sqlite") or parsed.database in (None, "", ":memory:"):
        return url
    return parsed.set(database=str(Path(parsed.database).resolve())).render_as_string(hide_password=False)


def is_database(storage: str) -> bool:
    """Whether a storage is a database rather than the path of a journal file."""
    return "://" in storage


def complete(url: str) -> str:
    """Return a URL with its driver, and with its password where the environment has it.

    Raises:
        InputError: it cannot be read, or the driver is not installed.
    """
    import sqlalchemy as sa

    try:
        parsed = sa.make_url(url)
        given = os.environ.get(PASSWORD_VARIABLE)
        if given and without_password(given) == without_password(url):
            parsed = sa.make_url(given)
        driver = DRIVERS.get(parsed.drivername)
        if driver is not None:
            parsed = parsed.set(drivername=f"{parsed.drivername}+{driver}")
        parsed.get_dialect().import_dbapi()
    except ModuleNotFoundError as error:
        name = (error.name or "").split(".")[0]
        extra = f"slimfront[{EXTRAS[name]}]" if name in EXTRAS else name
        raise InputError(f"--storage {without_password(url)!r} needs a driver: pip install '{extra}'") from error
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError) as error:
        raise InputError(
            f"--storage {without_password(url)!r} cannot be read: give postgresql://user@host/name, mysql://…, "
            f"sqlite:///file, or the path of a journal file ({first_line(error)})"
        ) from error
    return parsed.render_as_string(hide_password=False)


def without_password(url: str) -> str:
    """Return a URL as it may be written to a file and shown to people."""
    import sqlalchemy as sa

    try:
        full = sa.make_url(url)
    except sa.exc.ArgumentError:
        return url
    name, _, driver = full.drivername.partition("+")
    kind = name if driver == DRIVERS.get(name) else full.drivername
    query = {key: value for key, value in full.query.items() if key not in ("password", "passwd")}
    bare = sa.URL.create(kind, full.username, None, full.host, full.port, full.database, query)
    return bare.render_as_string(hide_password=False)


def engine(url: str) -> sa.Engine:
    """Return an engine; SQLite's takes its lock when a transaction begins, and waits for it."""
    import sqlalchemy as sa

    logging.getLogger("sqlalchemy").setLevel(logging.ERROR)
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    made = sa.create_engine(url, connect_args={"timeout": 60})

    @sa.event.listens_for(made, "connect")
    def _no_implicit_begin(connection: Any, _: object) -> None:
        connection.isolation_level = None

    @sa.event.listens_for(made, "begin")
    def _begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def tables() -> sa.MetaData:
    """Return the description of the tables."""
    import sqlalchemy as sa

    made = sa.MetaData()
    text = sa.Text().with_variant(sa.Text(2**32 - 1), "mysql")
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    study = lambda: sa.Column("study", sa.String(64), nullable=False)  # noqa: E731
    sa.Table("slimfront_studies", made, sa.Column("study", sa.String(64), primary_key=True), sa.Column("about", text))
    sa.Table(
        "slimfront_records",
        made,
        sa.Column("id", number, primary_key=True, autoincrement=True),
        study(),
        sa.Column("name", sa.String(32), nullable=False, unique=True),
        sa.Column("body", text, nullable=False),
        sa.Index("slimfront_records_study", "study", "id"),
    )
    sa.Table(
        "slimfront_trials",
        made,
        sa.Column("study", sa.String(64), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(32), nullable=False),
        sa.UniqueConstraint("study", "key", name="slimfront_trials_key"),
    )
    sa.Table(
        "slimfront_coordinators",
        made,
        sa.Column("owner", sa.String(32), primary_key=True),
        study(),
        sa.Column("process", sa.String(255), nullable=False),
        sa.Column("beat", sa.Integer, nullable=False),
    )
    return made


def made_meanwhile(error: Exception) -> bool:
    """Whether tables could not be made since another process was making them."""
    import sqlalchemy as sa

    return isinstance(error, sa.exc.IntegrityError) or "already exists" in str(error)


def unreachable(url: str, error: Exception) -> InputError:
    """Return what to tell where a database cannot be worked with."""
    return InputError(
        f"the storage {without_password(url)!r} cannot be worked with: {first_line(error)}; all that was finished is kept, "
        "and the same command continues"
    )


def first_line(error: Exception) -> str:
    """Return what a database error says, in a line."""
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
