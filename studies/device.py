"""The device that a study's models run on, where it is another machine."""

from __future__ import annotations

import os

from ..objectives.connection import Connection
from ..objectives.device.command import TOKEN
from ..objectives.remote_engine import RemoteEngine
from ..spaces.errors import InputError


def connect(address: str, runtime: str, threads: int, provider: str) -> RemoteEngine:
    """Return a runtime on a device; nothing is sent to it before it is asked for something.

    Args:
        address: "host:port" of its runner.
        runtime: by its name in a study file.
        threads: of an inference.
        provider: execution provider, of ONNX Runtime.

    Raises:
        InputError: the environment holds no token.
    """
    token = os.environ.get(TOKEN, "")
    if not token:
        raise InputError(
            f"target.device {address!r} asks for the token of its runner: set {TOKEN} to what slimfront runner --token was given"
        )
    return RemoteEngine(Connection(address, token, runtime, threads, provider))
