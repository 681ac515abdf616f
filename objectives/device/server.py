"""The runner: it waits for searches, and gives each connection a process of its own.

What a model does to that process (a crash in a kernel, a hang, too much memory) is no end of the runner: the search connects
again and is told.
"""

from __future__ import annotations

import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...spaces.errors import InputError
from .frames import Channel, DamagedError
from .greeting import LEAST_TOKEN, RefusedError, welcome

LOOK_SECONDS = 0.5  # for processes that have ended
GREETING_SECONDS = 10.0
AT_ONCE = 16  # connections
SPACE = "2GB"
ROW = struct.Struct("!32sQ")  # of what a process is at: the search's name, the number of its request


@dataclass(frozen=True)
class Place:
    """Where and how a runner serves.

    Attributes:
        token: that a search must have.
        port: 0 takes a free one.
        host: address to listen on.
        folder: of files that searches send; None is one in the user's cache folder.
        space: bytes that it may have.
    """

    token: str
    port: int
    host: str = "127.0.0.1"
    folder: Path | None = None
    space: int = 2_000_000_000

    def check(self) -> None:
        """Raise `InputError` where nothing could be served so."""
        if len(self.token) < LEAST_TOKEN:
            raise InputError(
                f"the token must have at least {LEAST_TOKEN} characters, but has {len(self.token)}: "
                "give --token, or SLIMFRONT_TOKEN in the environment"
            )
        if not hasattr(os, "fork"):
            raise InputError("a runner needs Linux, Android or macOS; on Windows start it in WSL")


def serve(place: Place, version: str, tell: Callable[[str], None], ready: Callable[[str], None]) -> None:
    """Serve until this process is interrupted.

    Args:
        place: where and how.
        version: of slimfront.
        tell: told of each connection, one line.
        ready: told the address, once it listens there.

    Raises:
        InputError: it cannot listen there, or the folder cannot be used.
    """
    place.check()
    folder = place.folder or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimfront-runner"
    try:
        family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
        listener = socket.create_server((place.host, place.port), family=family)
    except OSError as error:
        raise InputError(f"cannot listen on {place.host}:{place.port}: {error.strerror or error}") from error
    with suppress(OSError):  # said now rather than to a search
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        listener.close()
        raise InputError(f"the folder {folder} cannot be written to: give --folder")
    listener.settimeout(LOOK_SECONDS)
    host, port = listener.getsockname()[:2]
    ready(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    _Server(place, folder, version, tell, listener).run()


class _Server:
    def __init__(
        self, place: Place, folder: Path, version: str, tell: Callable[[str], None], listener: socket.socket
    ) -> None:
        self.place, self.folder, self.version, self.tell = place, folder, version, tell
        self._listener = listener
        self._table = mmap.mmap(-1, AT_ONCE * ROW.size)  # shared with the processes: what each is at
        self._rows: dict[int, int] = {}  # by process
        self._ended: dict[str, tuple[int, int]] = {}  # by search, the request that ended its processes, how often

    def run(self) -> None:
        """Take connections until interrupted."""
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            while True:
                self._reap()
                try:
                    connection, address = self._listener.accept()
                except OSError:  # nobody for a while, or somebody who is gone already
                    continue
                self._reap()
                self._take(connection, f"{address[0]}:{address[1]}")
        finally:
            self._listener.close()
            for process in self._rows:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)

    def _take(self, connection: socket.socket, address: str) -> None:
        free = [row for row in range(AT_ONCE) if row not in self._rows.values()]
        if not free:
            self.tell(f"{address}: refused, there are {AT_ONCE} connections already")
            connection.close()
            return
        self._write(free[0], "", 0)
        sys.stderr.flush()
        try:
            process = os.fork()
        except OSError as error:
            self.tell(f"{address}: refused, no process can be started: {error.strerror}")
            connection.close()
            return
        if process:
            self._rows[process] = free[0]
            connection.close()
            return
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self._listener.close()
        status = 1
        try:
            status = self._served(connection, address, free[0])
        except KeyboardInterrupt:
            status = 0
        finally:
            os._exit(status)

    def _served(self, connection: socket.socket, address: str, row: int) -> int:
        """Serve a connection, in a process of its own; return the status to end with."""
        connection.settimeout(GREETING_SECONDS)
        channel = Channel(connection)
        try:
            name = str(welcome(channel, self.place.token, self.version).get("name", ""))[:32]
        except RefusedError as error:
            self.tell(f"{address}: refused ({'a wrong token' if str(error) == 'token' else error})")
            return 0
        except (DamagedError, EOFError, OSError):
            self.tell(f"{address}: refused (no search of slimfront's)")
            return 0
        self._end_others(name, row)
        self.tell(f"{address}: a search")
        from .service import Service  # loads NumPy, which the waiting process does without
        from .store import Store

        connection.settimeout(None)
        channel.send({"ended": self._ended.get(name, (0, 0))})
        service = Service(
            channel, Store(self.folder, self.place.space), self.version, lambda number: self._write(row, name, number)
        )
        try:
            service.serve()
        except (EOFError, OSError):
            self.tell(f"{address}: gone")
        except DamagedError as error:
            self.tell(f"{address}: {error}")
        return 0

    def _end_others(self, name: str, own: int) -> None:
        """End processes that serve the same search: it has connected anew, since it lost them."""
        self._write(own, name, 0)
        for process, row in self._rows.items():
            if row != own and self._at(row)[0] == name:
                self._write(row, name, 0)  # it does not end of what it is at
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def _at(self, row: int) -> tuple[str, int]:
        """Return the search that a process serves, and the number of the request that it is at."""
        name, number = ROW.unpack_from(self._table, row * ROW.size)
        return name.rstrip(b"\0").decode(errors="replace"), number

    def _write(self, row: int, name: str, number: int) -> None:
        ROW.pack_into(self._table, row * ROW.size, name.encode()[:32], number)

    def _reap(self) -> None:
        """Take note of processes that have ended, and of what they were at where they did not end by themselves."""
        while self._rows:
            process, status = os.waitpid(-1, os.WNOHANG)
            if not process:
                return
            row = self._rows.pop(process, None)
            if row is None:
                continue
            search, number = self._at(row)
            if status and number:
                last, times = self._ended.get(search, (0, 0))
                self._ended[search] = number, times + 1 if number == last else 1
                how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else "its time limit, or an error"
                self.tell(f"a process ended while at request {number} of a search ({how})")


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
