"""A search's connection to a runner on a device: requests that are asked again where the connection was cut.

A request names files by their hashes and leaves nothing behind that a later one needs, so that any of them can be asked again, of
a runner that was started anew as well.
"""

from __future__ import annotations

import hashlib
import io
import math
import re
import secrets
import socket
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from .device.frames import CHUNK, Channel, DamagedError, Header
from .device.greeting import RefusedError, introduce

FIRST_WAITS = (0.5, 1.0)  # seconds before another try, where nothing was ever answered
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # where it was
CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0  # without a sign of life; a runner gives one every two
REQUEST_SECONDS = 600.0  # that a request may take on the device
MOST_DAMAGED = 3  # times that what arrives may be damaged in one request
MOST_ENDED = 2  # times that a request may end the process that does it
MOST_LACKED = 3  # times that files are sent for one request
WHOLE_BYTES = 1 << 28  # a larger file is sent as it is, in parts
LEAST_SAVED = 0.9  # of its bytes: a file that is not smaller packed is sent as it is
BUSY_SECONDS = 60.0  # between two notes that the device is busy
LEAST_PORT, MOST_PORT = 1, 65535


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of "host:port" or "[::1]:port". Raises `ValueError` that says what must be."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:/@\[\]]+)):(\d{1,5})", text)
    if match is None or not LEAST_PORT <= int(match[3]) <= MOST_PORT:
        raise ValueError(f"must be 'host:port', such as 'raspberrypi:7007', but got {text!r}")
    return match[1] or match[2], int(match[3])


@dataclass(frozen=True)
class Blob:
    """A file to be sent.

    Attributes:
        content: its bytes, or where it lies.
        name: its sha256.
    """

    content: bytes | Path
    name: str

    @classmethod
    def of(cls, content: bytes | Path) -> Blob:
        """Return a file, by what it holds.

        Raises:
            InputError: it is a model whose weights lie in a file beside it.
        """
        if isinstance(content, bytes):
            return cls(content, hashlib.sha256(content).hexdigest())
        if content.with_name(content.name + ".data").exists():
            raise InputError(
                f"{content.name}: a model above 2 GB, whose weights lie beside it, cannot be sent to a device"
            )
        with content.open("rb") as file:
            return cls(content, hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def of_array(cls, array: np.ndarray) -> Blob:
        """Return an array as a file."""
        stream = io.BytesIO()
        np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
        return cls.of(stream.getvalue())

    @property
    def size(self) -> int:
        """Its bytes. Raises `OSError` where it is gone."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size

    def parts(self) -> tuple[int, bool, Iterator[bytes]]:
        """Return the bytes that are sent, whether they are packed, and what is sent."""
        if self.size > WHOLE_BYTES and isinstance(self.content, Path):
            return self.size, False, _read(self.content)
        whole = self.content if isinstance(self.content, bytes) else self.content.read_bytes()
        packed = zlib.compress(whole, 1)
        if len(packed) > LEAST_SAVED * len(whole):
            return len(whole), False, iter([whole])
        return len(packed), True, iter([packed])


@dataclass(frozen=True)
class Reply:
    """What a runner answers: a header, and the parts of its payload."""

    header: Header
    parts: Sequence[bytes]

    def array(self, number: int) -> np.ndarray:
        """Return a part as an array."""
        return np.asarray(np.lib.format.read_array(io.BytesIO(self.parts[number]), allow_pickle=False))


class Connection:
    """The way to a runner; threads may share it.

    Args:
        address: "host:port".
        token: that the runner was started with.
        runtime: what models run on there, by its name in a study file.
        threads: of an inference.
        provider: execution provider, of ONNX Runtime.
        note: told of connections that were lost, and of waits; by default written to standard error.
    """

    def __init__(
        self,
        address: str,
        token: str,
        runtime: str,
        threads: int,
        provider: str,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self.address = address
        self.forgotten: list[str] = []  # models whose sessions nobody has any more
        self._token = token
        self._use = {"op": "use", "runtime": runtime, "threads": threads, "provider": provider}
        self._note = note or _to_standard_error
        self._name = secrets.token_hex(16)
        self._lock = threading.RLock()
        self._channel: Channel | None = None
        self._told: Header = {}  # what the runner said of its machine
        self._number = 0
        self._holds = 0
        self._busy_told = -math.inf

    @property
    def facts(self) -> Mapping[str, Any]:
        """What the runner says of its machine (`device.facts`), and of the runtime. Raises `InputError` as `ask`."""
        with self._lock:
            if not self._told:
                self.ask("release")
            return dict(self._told["facts"])

    @property
    def providers(self) -> Sequence[str]:
        """The execution providers of ONNX Runtime there. Raises `InputError` as `ask`."""
        _ = self.facts
        return list(self._told["providers"])

    def ask(
        self,
        op: str,
        facts: Mapping[str, Any] | None = None,
        blobs: Sequence[Blob] = (),
        progress: Progress | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Reply:
        """Ask the runner for something; connect, and send what it lacks, where that is needed.

        Args:
            op: the request (`device.service`).
            facts: of it.
            blobs: files that it names.
            progress: told of what the runner tells meanwhile.
            seconds: that it may take on the device.

        Raises:
            InputError: the runner cannot be reached, refuses this search, or what is asked is wrong.
            BuildError: the runtime refuses a model, fails, or its process ends while at it.
        """
        with self._lock:
            self._number += 1
            damaged = tried = 0
            while True:
                try:
                    return self._asked({**(facts or {}), "op": op, "limit": seconds}, blobs, progress)
                except RefusedError as error:
                    self.close()
                    raise InputError(f"target.device {self.address!r}: {error}") from None
                except (DamagedError, EOFError, OSError) as error:
                    self.close()
                    reason = _reason(error)
                    damaged += isinstance(error, DamagedError)
                if damaged == MOST_DAMAGED:
                    raise InputError(
                        f"target.device {self.address!r}: what is sent there arrives damaged ({damaged} tries): "
                        "look at the cable, the network, or what stands between; the same command continues"
                    )
                waits = WAITS if self._told else FIRST_WAITS
                if tried == len(waits):
                    raise InputError(
                        f"target.device {self.address!r} does not answer ({reason}; {tried + 1} tries): start slimfront "
                        "runner there, and look at host and port; the same command continues"
                    )
                tried += 1
                self._note(
                    f"the device {self.address} {'is lost' if self._told else 'does not answer'} ({reason}): trying again "
                    f"in {waits[tried - 1]:g} s "
                    f"({tried} of {len(waits)})"
                )
                time.sleep(waits[tried - 1])

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others from timing on the device; wait until nobody does."""
        with self._lock:
            self._holds += 1
            try:
                if self._holds == 1:
                    self.ask("hold")
                yield
            finally:
                self._holds -= 1
                if not self._holds and self._channel is not None:
                    try:
                        self._asked({"op": "release", "limit": REQUEST_SECONDS}, (), None)
                    except (DamagedError, EOFError, OSError, RefusedError):
                        self.close()  # which gives it back as well

    def close(self) -> None:
        """End the connection; the next request opens another."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _asked(self, request: Header, blobs: Sequence[Blob], progress: Progress | None) -> Reply:
        """Ask once, over a connection that is opened where there is none."""
        channel = self._connected()
        forget, self.forgotten[:] = list(self.forgotten), []
        known = {blob.name: blob for blob in blobs}
        for _ in range(MOST_LACKED):
            channel.send({**request, "number": self._number, "forget": forget})
            reply = self._reply(channel, request["limit"], progress)
            missing = reply.header.get("missing", ())
            if not missing:
                return reply
            for name in missing:
                self._put(channel, known[name])
        raise InputError(
            f"target.device {self.address!r} has too little room for what one request needs: start its runner with more --space"
        )

    def _put(self, channel: Channel, blob: Blob) -> None:
        try:
            whole, (size, packed, parts) = blob.size, blob.parts()
        except OSError as error:
            raise BuildError(f"the file that the device {self.address} lacks is gone here, too: {error}") from error
        if whole > self._told["space"]:
            raise InputError(
                f"target.device {self.address!r} takes files of at most {self._told['space']:,} bytes (slimfront runner "
                f"--space), but one has {whole:,}"
            )
        header = {"op": "put", "number": self._number, "name": blob.name, "size": whole, "packed": packed}
        channel.send(header, parts, size)
        self._reply(channel, REQUEST_SECONDS, None)

    def _reply(self, channel: Channel, seconds: float, progress: Progress | None) -> Reply:
        """Return the answer to what was sent."""
        end = time.monotonic() + seconds + SILENT_SECONDS
        while True:
            header, payload = channel.receive()
            if not header.get("working"):
                break
            if progress is not None and "progress" in header:
                progress(*header["progress"])
            if header.get("waits"):  # for another's timing, which takes nothing of this one's time
                end = time.monotonic() + seconds + SILENT_SECONDS
                if time.monotonic() - self._busy_told > BUSY_SECONDS:
                    self._note(f"the device {self.address} is busy with another timing: waiting for it")
                    self._busy_told = time.monotonic()
            elif time.monotonic() > end:
                raise TimeoutError(f"no answer in {seconds:.0f} s")
        message = str(header.get("message", ""))
        match header.get("error"):
            case "build":
                raise BuildError(message)
            case "input":
                raise InputError(f"target.device {self.address!r}: {message}")
            case "damaged":
                raise DamagedError("what arrived there was changed on the way")
        return Reply(header, _cut(payload, header.get("parts", ())))

    def _connected(self) -> Channel:
        """Return the channel; open one, and choose the runtime, where there is none."""
        if self._channel is not None:
            return self._channel
        connection = socket.create_connection(parse_address(self.address), timeout=CONNECT_SECONDS)
        channel = Channel(connection)
        try:
            introduce(channel, self._token, __version__, self._name)
            connection.settimeout(SILENT_SECONDS)
            request, times = channel.receive()[0]["ended"]
            if request == self._number and times >= MOST_ENDED:
                raise BuildError(
                    f"on the device {self.address} it ends the process that runs it ({times} tries): a crash of the runtime, "
                    "too little memory, or too much time"
                )
            self._choose(channel)
            if self._holds:
                channel.send({"op": "hold", "number": self._number, "limit": REQUEST_SECONDS})
                self._reply(channel, REQUEST_SECONDS, None)
        except TimeoutError:
            channel.close()
            raise TimeoutError("what answers there says nothing that a runner would") from None
        except DamagedError:
            channel.close()
            if not self._told:
                raise RefusedError("what answers there is no runner of slimfront's") from None
            raise
        except BaseException:
            channel.close()
            raise
        self._channel = channel
        return channel

    def _choose(self, channel: Channel) -> None:
        """Choose the runtime on a new connection; it must be the machine that it was before."""
        channel.send({**self._use, "number": self._number, "limit": REQUEST_SECONDS})
        told = self._reply(channel, REQUEST_SECONDS, None).header
        now = told["facts"]
        before = self._told.get("facts") or now
        changed = [f"{key} {before.get(key)}, now {value}" for key, value in now.items() if before.get(key) != value]
        if changed:
            raise InputError(
                f"target.device {self.address!r} is another machine than before ({'; '.join(changed)}): timings of the two "
                "cannot be mixed; the same command continues on what is there now"
            )
        self._told = told


def _cut(payload: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Return the parts of a payload."""
    parts, start = [], 0
    for size in sizes:
        parts.append(payload[start : start + size])
        start += size
    return parts


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            yield part


def _reason(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return str(text) or type(error).__name__


def _to_standard_error(text: str) -> None:
    print(f"slimfront: {text}", file=sys.stderr, flush=True)
