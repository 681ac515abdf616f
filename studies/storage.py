"""Where a run's records are kept: in its folder, or in a database that several coordinators share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..spaces.errors import InputError
from .database import absolute, complete, is_database, without_password
from .holdings import OpenHoldings
from .records import RecordFile, Records, read_records
from .run_folder import (
    RECORDS_FILE,
    RUN_FILE,
    about_run,
    make_folder,
    read_run_file,
    start_run,
    use_machine_facts,
    write_whole,
)
from .study_table import about, known_about

if TYPE_CHECKING:
    from .record_table import RecordTable
    from .study import Study


def database_of(folder: Path, storage: str | None) -> str | None:
    """Return the URL of the database that keeps a run's records, with its password; None where its folder does.

    Args:
        folder: the run folder, which may not be there yet.
        storage: what was given: a database, the path of a journal file, or nothing.

    Raises:
        InputError: the run's records lie in another database, or the URL cannot be used.
    """
    known = read_run_file(folder).get("storage") if (folder / RUN_FILE).exists() else None
    given = absolute(storage) if storage is not None and is_database(storage) else None
    if given is not None and known is not None and without_password(given) != known:
        raise InputError(
            f"{folder} keeps its records in {known}, not in {without_password(given)}; "
            "leave --storage out, or choose another run folder"
        )
    kept = given or known
    return None if kept is None else complete(str(kept))


@contextmanager
def open_records(
    folder: Path, study: Study, database: str | None, note: Callable[[str], None] = lambda text: None
) -> Iterator[Records]:
    """Make a folder the run of a study, or check that it is, and hold its records open.

    The study's space becomes the one that the run was begun with.

    Args:
        folder: the run folder.
        study: what is searched.
        database: of `database_of`.
        note: is told when the database does not answer, and what other processes have taken over.

    Raises:
        InputError: the folder is the run of another study, another process holds its records, or it cannot be written to.
    """
    if database is None:
        use_machine_facts(folder, study)
        make_folder(folder)
        with RecordFile(folder / RECORDS_FILE) as file:
            start_run(folder, study, study.environment)
            yield file
        return
    from .record_table import RecordTable

    table = RecordTable(database, study.digest, note)
    known = known_about(table.database, study.digest)
    if known is None:
        use_machine_facts(folder, study)
    else:
        study.use_machine_facts(known)
    make_folder(folder)
    storage = without_password(database)
    with table:
        study.use_machine_facts(about(table.database, study.digest, about_run(study, storage)))
        _move(folder, study, table, storage)
        start_run(folder, study, study.environment, storage)
        yield table


def _move(folder: Path, study: Study, table: RecordTable, storage: str) -> None:
    """Move a run's own records into the database, where it was begun without one.

    Raises:
        InputError: the database has records of the study already, or another process writes to the folder.
    """
    if not (folder / RUN_FILE).exists():
        return
    own = read_run_file(folder)
    if "storage" in own or own["study"]["digest"] != study.digest:
        return  # `start_run` tells of another study
    with RecordFile(folder / RECORDS_FILE):
        records = list(read_records(folder / RECORDS_FILE))
        if records and not table.take_over(records):
            raise InputError(
                f"{folder} has records of its own, and {storage} has others of the same study; choose another run folder"
            )
        OpenHoldings(folder, table).share()
        write_whole(folder / RUN_FILE, json.dumps({**own, "storage": storage}, indent=1))
