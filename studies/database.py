"""Databases that keep records: their URLs, drivers, connections and errors."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..spaces.errors import InputError

if TYPE_CHECKING:
    import sqlalchemy as sa

DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
KINDS = ("sqlite", *DRIVERS)
EXTRAS = {"psycopg": "postgresql", "pymysql": "mysql"}
PASSWORD_VARIABLE = "SLIMFRONT_STORAGE"  # may hold the whole URL, so that no file holds a password
CONNECT_SECONDS = 10  # for which a server may leave a new connection without an answer
SILENT_SECONDS = 60  # after which a connection, or a lock of SQLite's, is given up


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
        if parsed.get_backend_name() not in KINDS:
            raise sa.exc.ArgumentError(f"{parsed.get_backend_name()} is none of {', '.join(KINDS)}")
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
    """Return an engine that notices within a minute where the other end is gone.

    SQLite's takes its lock when a transaction begins, and waits for it.
    """
    import sqlalchemy as sa

    logging.getLogger("sqlalchemy").setLevel(logging.ERROR)
    parsed = sa.make_url(url)
    options = {key: value for key, value in _options(parsed).items() if key not in parsed.query}
    made = sa.create_engine(url, pool_pre_ping=True, connect_args=options)
    if made.dialect.name == "sqlite":

        @sa.event.listens_for(made, "connect")
        def _no_implicit_begin(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(made, "begin")
        def _begin(connection: sa.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return made


def column(url: str, ask: sa.Select[Any]) -> Sequence[Any]:
    """Return the values of a column that is asked for.

    Raises:
        InputError: the database cannot be reached.
    """
    import sqlalchemy as sa

    full = complete(url)
    try:
        with engine(full).connect() as connection:
            return connection.execute(ask).scalars().all()
    except sa.exc.SQLAlchemyError as error:
        raise unreachable(full, error) from error


def _options(url: sa.URL) -> dict[str, Any]:
    """Return what a driver is given so that it waits for nobody who is gone; users may say otherwise in the URL."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": SILENT_SECONDS}
    if url.get_driver_name() == "psycopg":
        quiet = SILENT_SECONDS // 3  # then two more questions, as far apart
        return {
            "connect_timeout": CONNECT_SECONDS,
            "keepalives_idle": quiet,
            "keepalives_interval": quiet,
            "keepalives_count": 2,
            "tcp_user_timeout": 1000 * SILENT_SECONDS,
        }
    if url.get_driver_name() == "pymysql":
        return {"connect_timeout": CONNECT_SECONDS, "read_timeout": SILENT_SECONDS, "write_timeout": SILENT_SECONDS}
    return {}


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
