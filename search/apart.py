"""Work in a process of its own: for candidates on which the search's process ended again and again.

A candidate that ends the process that runs it (a segmentation fault in a kernel, too much memory) is told from one whose
search was merely killed by how a process ends that does nothing else.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from ..spaces.errors import InputError, last_line
from ..studies.study import Study
from . import parcel, remote
from .work import Results, Told, Work

SECONDS = 3600.0  # that the work may take: a hang is no fault that a search should wait for
WRONG_INPUT = 2


def perform_apart(study: Study, models: Path, work: Work, left: float = math.inf) -> Told:
    """Do a piece of work in a new process; return what was found, and, where it did not do it all, how the process ended.

    It may take `search.stage_timeout` of the study, by default `SECONDS`.

    Args:
        study: with its builder prepared.
        models: folder of the model files.
        work: what is to be done.
        left: seconds after which it is ended unfinished, through no fault of its own.

    Raises:
        InputError: the disk cannot be written to.
    """
    digest = parcel.digest_of(study)
    if not parcel.is_here(digest):
        parcel.unpack(digest, parcel.pack(study, []))
    memory = int(remote.MEMORY * remote.memory())
    place = str(models.resolve())
    machine = study.environment.machine
    order = remote.Order(digest, "", work, place, machine=machine, knowledge=1, memory=memory)
    given = pickle.dumps((order, remote.knowledge_of(study.predictor)))
    limit = study.settings.search.stage_seconds or SECONDS
    command = [sys.executable, "-c", "from slimfront.search.apart import main; main()"]
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=min(limit, left), check=False)
    except subprocess.TimeoutExpired as error:
        late = f"it took longer than {limit:.0f} s in a process of its own"
        return Told(work, _found(error.stdout or b""), over=True, lost=late if limit <= left else None)
    if done.returncode == WRONG_INPUT:
        raise InputError(last_line(done.stderr.decode(errors="replace")))
    found = _found(done.stdout)
    if done.returncode:
        how = _end(done.returncode, done.stderr.decode(errors="replace"))
        return Told(work, found, over=True, lost=f"its process {how}")
    return Told(work, found, over=True)


def _found(written: bytes) -> Results:
    """Return the stages that a process has told of, one after another; what it was just writing when it ended is none."""
    stream, found = io.BytesIO(written), []
    with suppress(EOFError, pickle.UnpicklingError):
        while True:
            found += pickle.load(stream)
    return tuple(found)


def _end(status: int, errors: str) -> str:
    """Say how a process ended."""
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"failed: {last_line(errors) or f'exit status {status}'}"


def main() -> None:
    """Take an order from standard input, and write each stage that is finished to standard output."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)  # what libraries print is no result
        order, knowledge = pickle.load(sys.stdin.buffer)
        try:
            for step in remote.work(order, knowledge):
                pickle.dump(step.results, out)
                out.flush()
        except InputError as error:
            sys.exit(_tell(error))


def _tell(error: InputError) -> int:
    print(error, file=sys.stderr)
    return WRONG_INPUT
