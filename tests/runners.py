"""A real runner in a process of its own, started from its packed file, and a network between it and a search."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from slimfront.objectives.connection import Connection
from slimfront.objectives.device.pack import pack
from slimfront.objectives.remote_engine import RemoteEngine

TOKEN = "a long secret of the tests"


class Runner:
    """A runner on loopback; killed and started again it keeps its port."""

    def __init__(self, folder: Path, *flags: str) -> None:
        folder.mkdir(exist_ok=True)
        self.file = folder / "runner.pyz"
        self.port = 0
        self.log: list[str] = []
        self._flags = ("--folder", str(folder / "files"), *flags)
        self._environment = {**os.environ, "TMPDIR": str(folder), "SLIMFRONT_TOKEN": TOKEN, "OMP_NUM_THREADS": "1"}
        pack(self.file)
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        command = [sys.executable, str(self.file), "--port", str(self.port), *self._flags]
        self.process = subprocess.Popen(
            command,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # also where it is ignored
        )
        first = self.process.stderr.readline()
        found = re.search(r"127\.0\.0\.1:(\d+)", first)
        assert found, first + self.process.stderr.read()
        self.port = int(found[1])
        threading.Thread(target=self.log.extend, args=(self.process.stderr,), daemon=True).start()

    def end(self, number: int = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(30)

    def connection(self, address: str = "", token: str = TOKEN, runtime: str = "onnxruntime") -> Connection:
        self.notes: list[str] = []
        return Connection(address or self.address, token, runtime, 1, "CPUExecutionProvider", self.notes.append)

    def engine(self, address: str = "", runtime: str = "onnxruntime") -> RemoteEngine:
        return RemoteEngine(self.connection(address, runtime=runtime))


@contextmanager
def running(folder: Path, *flags: str) -> Iterator[Runner]:
    runner = Runner(folder, *flags)
    try:
        yield runner
    finally:
        runner.end()


class Network:
    """What carries bytes to a runner, and does harm to those that go there.

    Args:
        port: the runner's.
        cut_after: bytes of a connection, after which it is cut.
        flip_at: bytes of a connection, of which the last one is changed.
        times: connections that are harmed, the first ones.
    """

    def __init__(self, port: int, cut_after: int = 0, flip_at: int = 0, times: int = 1) -> None:
        self.to, self.cut_after, self.flip_at, self.times = port, cut_after, flip_at, times
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self.connections += 1
                far = socket.create_connection(("127.0.0.1", self.to))
                harm = self.connections <= self.times
                threading.Thread(target=self._carry, args=(near, far, harm), daemon=True).start()
                threading.Thread(target=self._carry, args=(far, near, False), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, harm: bool) -> None:
        seen = 0
        with suppress(OSError):
            while data := source.recv(4096):
                if harm and 0 < self.flip_at - seen <= len(data):
                    place = self.flip_at - seen - 1
                    data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
                seen += len(data)
                sink.sendall(data)
                if harm and self.cut_after and seen >= self.cut_after:
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.close()
