"""A PostgreSQL server of the tests' own, from the system's packages."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from pathlib import Path

FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def program(name: str) -> str | None:
    """Return where a program of PostgreSQL lies, or None."""
    found = [str(folder / name) for folder in FOLDERS if (folder / name).exists()]
    return found[0] if found else shutil.which(name)


class Server:
    """A server on a port of loopback, its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
        folder.mkdir(parents=True, exist_ok=True)
        if self.user:
            shutil.chown(folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run(program("initdb"), "-D", self.data, "-U", "tester", "--auth=trust", "-N")
        self.start()

    def database(self, password: str | None = None) -> str:
        """Make a database; return its URL, without the password that it asks for where one is given."""
        name = f"test_{uuid.uuid4().hex}"
        server = ("-h", "127.0.0.1", "-p", self.port, "-U", "tester")
        self._run(program("createdb"), *server, name)
        if password is None:
            return f"postgresql://tester@127.0.0.1:{self.port}/{name}"
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host {name} {name} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        for order in (
            f"create role {name} login password '{password}'",
            f"alter database {name} owner to {name}",
            "select pg_reload_conf()",
        ):
            self._run(program("psql"), *server, "-d", name, "-c", order)
        return f"postgresql://{name}@127.0.0.1:{self.port}/{name}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.data} -c listen_addresses=127.0.0.1"
        self._run(program("pg_ctl"), "-D", self.data, "-w", "-l", self.data / "log", "-o", options, "start")

    def stop(self) -> None:
        """Stop it at once; what was under way is broken off."""
        self._run(program("pg_ctl"), "-D", self.data, "-m", "immediate", "stop")
        time.sleep(0.1)

    def _run(self, *command: object) -> None:
        done = subprocess.run(
            [str(part) for part in command],
            user=self.user,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()}")
