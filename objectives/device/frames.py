"""The frames that go between a search and a runner: a header in JSON, raw bytes behind it, and a seal on both.

A frame is the word `MAGIC`, the lengths of header and payload (4 and 8 bytes, the highest first), the header, the payload, and
once both sides have shown that they know the token, an HMAC-SHA256 over the frame's number and all of it: what was changed on
the way, sent twice or left out is found. Nothing is encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

MAGIC = b"slim"
HEAD = struct.Struct("!4sIQ")
CHUNK = 1 << 18  # bytes that are sent or received at once
MOST_HEADER = 1 << 20  # bytes
GREETING_HEADER = 1 << 12  # while nobody has shown a token
MOST_PAYLOAD = 1 << 31
KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, times
SEAL = hashlib.sha256().digest_size

Header = dict[str, Any]


class Sink(Protocol):
    """What takes a payload as it comes."""

    def write(self, data: bytes, /) -> Any:
        """Take the next bytes."""
        ...


class DamagedError(Exception):
    """What arrived is not what was sent, or no frame at all."""


class Channel:
    """A connection that sends and receives frames; several threads may send.

    Args:
        connection: open; its time limit is that of every part that is sent or received.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._keys: tuple[bytes, bytes] | None = None
        self._sent = self._received = 0
        self._sending = threading.Lock()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():  # a machine that is gone is found within a minute
            if hasattr(socket, name):
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def seal_with(self, sent: bytes, received: bytes) -> None:
        """Seal every frame from now on: with one key those that are sent, with another check those that are received."""
        self._keys = sent, received

    def send(self, header: Header, payload: Iterable[bytes] = (), size: int = 0) -> None:
        """Send a frame.

        Args:
            header: plain data.
            payload: in parts.
            size: of the payload in bytes.

        Raises:
            OSError: the connection is lost, or a part takes longer than the connection's time limit.
        """
        text = json.dumps(header, allow_nan=False).encode()
        with self._sending:
            seal = self._seal(0, self._sent)
            self._sent += 1
            for part in (HEAD.pack(MAGIC, len(text), size) + text, *_parts(payload)):
                self.connection.sendall(part)
                seal.update(part)
            if self._keys is not None:
                self.connection.sendall(seal.digest())

    def receive(
        self, sink: Callable[[Header, int], Sink] | None = None, most: int = MOST_PAYLOAD
    ) -> tuple[Header, bytes]:
        """Return the next frame's header, and its payload; empty where ``sink`` took that.

        Args:
            sink: given the header and the payload's size, returns what takes the payload.
            most: bytes that a payload may have; with none the frames of a greeting are expected, whose headers are short.

        Raises:
            DamagedError: what arrived is no frame, too large, or not what was sent.
            EOFError: the connection ended.
            OSError: it is lost, or nothing came for as long as its time limit.
        """
        seal = self._seal(1, self._received)
        self._received += 1
        head = self._exactly(HEAD.size)
        magic, length, size = HEAD.unpack(head)
        longest = GREETING_HEADER if self._keys is None else MOST_HEADER
        if magic != MAGIC or length > longest or size > (0 if self._keys is None else most):
            raise DamagedError("what arrived is no frame of slimfront's, or too large a one")
        text = self._exactly(length)
        seal.update(head + text)
        try:
            header = json.loads(text)
        except ValueError:
            header = None
        if not isinstance(header, dict):
            raise DamagedError("what arrived has no header")
        taken = bytearray()
        into = taken.extend if sink is None or not size else sink(header, size).write
        while size:
            part = self._exactly(min(size, CHUNK))
            size -= len(part)
            seal.update(part)
            into(part)
        if self._keys is not None and not hmac.compare_digest(self._exactly(SEAL), seal.digest()):
            raise DamagedError("what arrived was changed on the way")
        return header, bytes(taken)

    def close(self) -> None:
        """End the connection."""
        self.connection.close()

    def _seal(self, which: int, number: int) -> hmac.HMAC:
        key = b"" if self._keys is None else self._keys[which]
        return hmac.new(key, struct.pack("!Q", number), hashlib.sha256)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            part = self.connection.recv(size - len(found))
            if not part:
                raise EOFError("the connection ended")
            found += part
        return bytes(found)


def _parts(payload: Iterable[bytes]) -> Iterable[bytes]:
    """Yield a payload in parts that are sent within a time limit each."""
    for part in payload:
        for start in range(0, len(part), CHUNK):
            yield part[start : start + CHUNK]
