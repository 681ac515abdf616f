"""Ray: started here or joined, and whether it is still there; nothing else of the search knows of Ray but the pool on top."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import secrets
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..spaces.errors import InputError, last_line
from . import remote

SLOT = "slimfront_timing"  # one on each node that may time
ANSWER_SECONDS = 10.0  # a node may take to show that it is there
JOIN_SECONDS = 14.0  # asking a cluster whether it lets this process in may take
PORT_SECONDS = 4.0  # until a port answers
HEAD_SECONDS = 30.0  # a cluster's head may be away; after 60, Ray's client would end this process without a word
MARK = "SLIMFRONT_SEARCH"  # variable in the environment of all that a local Ray runs
SOCKETS, LISTENED_ON = Path("/proc/net/unix"), "00010000"  # where Linux lists local sockets, and the flag of servers
AUTH_MODE, AUTH_TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"  # Ray's own
REFUSALS = (b"InvalidAuthToken", b"authentication token")  # in what Ray says without the right token
GOES_ON = "the same command goes on where this one ended"
LOCAL_STORE = 500_000_000  # bytes that Ray's own memory takes on a machine that it was started on for one search

_sweeper: subprocess.Popen[bytes] | None = None


@contextmanager
def connected(workers: int | None, address: str | None, threads: int = 1) -> Iterator[None]:
    """Be connected with a Ray that was started here for so many workers, or, with an address, with a cluster.

    Raises:
        InputError: a wrong number of workers, or no Ray at the address that lets this process in.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers must be a whole number, at least 1, but got {workers!r}")
    try:
        if address is None:
            start((workers or 1) * threads)
        else:
            join(address)
        yield
    finally:
        stop()


def start(cpus: int) -> None:
    """Start Ray on this machine alone, for so many processors; it ends with this process, however that ends.

    It takes no work but this process's: whoever connects must know a token, which is nowhere but in the memory of Ray's
    processes.
    """
    global _sweeper
    mark = f"slimfront-{uuid.uuid4().hex}"
    watch = [sys.executable, "-S", str(Path(__file__).with_name("sweeper.py")), mark]
    _sweeper = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    # inherited by all that Ray starts
    with _environment({MARK: mark, AUTH_MODE: "token", AUTH_TOKEN: secrets.token_hex(32)}):
        _init(
            address="local",
            num_cpus=cpus,
            resources={SLOT: 1},
            include_dashboard=False,
            object_store_memory=LOCAL_STORE,
            _node_ip_address="127.0.0.1",
        )


def join(address: str) -> None:
    """Join a cluster.

    Raises:
        InputError: nobody answers there, or not without a token, or with another version of Ray or Python.
    """
    import ray

    settings = entry(address)
    try:
        with _environment(settings):
            _init(address=address)
    except ConnectionError as error:
        raise _nobody(address) from error
    except (RuntimeError, ValueError, ray.exceptions.RaySystemError) as error:
        raise InputError(f"cannot join the Ray cluster at {address!r}: {what_failed(error)}") from error


def may_grow() -> bool:
    """Whether nodes may join: a Ray that was started here has one, for this process alone."""
    return _sweeper is None


def _init(**settings: Any) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with quiet():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    if hasattr(ray._private.worker, "print_to_stdstream"):  # it writes of workers that died to standard output
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def entry(address: str) -> dict[str, str]:
    """Return the variables of the environment with which a cluster lets this process in.

    Ray's own health check is asked, which ends in time where its client would go on trying. A token is shown to a cluster
    that asks for one only.

    Raises:
        InputError: nobody answers there in `JOIN_SECONDS`, or not without a token.
    """
    end = time.monotonic() + JOIN_SECONDS
    if address != "auto":
        _check_port(address)
    for settings in ({},) if AUTH_MODE in os.environ else ({}, {AUTH_MODE: "token"}):
        found = _health(address, settings, end - time.monotonic())
        if found is None or (found.returncode != 0 and not any(words in found.stderr for words in REFUSALS)):
            raise _nobody(address)
        if found.returncode == 0:
            return settings
    raise InputError(
        f"the Ray cluster at {address!r} asks for a token, and there is none here or another one: set RAY_AUTH_MODE=token "
        "and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head, or put that into ~/.ray/auth_token"
    )


def _check_port(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(
            f"--ray {address!r} is no address: give host:port of the cluster's head (6379 by default), or auto"
        )
    if not _listens(host, int(port), PORT_SECONDS):
        raise _nobody(address)


def _health(address: str, settings: Mapping[str, str], seconds: float) -> subprocess.CompletedProcess[bytes] | None:
    """Run Ray's health check; None where it takes longer."""
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    ask += [] if address == "auto" else ["--address", address]
    try:
        return subprocess.run(
            ask, capture_output=True, timeout=max(seconds, 0.0), check=False, env={**os.environ, **settings}
        )
    except subprocess.TimeoutExpired:
        return None


def _listens(host: str, port: int, seconds: float) -> bool:
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError:
        return False
    return True


def _nobody(address: str) -> InputError:
    if address == "auto":
        return InputError("no Ray answers at 'auto': start one with `ray start --head`, or give its address, host:port")
    return InputError(f"no Ray answers at {address!r}: is it running, and can this machine reach the port?")


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Let Ray start with these variables in its environment; its own changes to them do not stay."""
    before = {name: os.environ.get(name) for name in (MARK, AUTH_MODE, AUTH_TOKEN)}
    os.environ.update(settings)
    _read_anew()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _read_anew() -> None:
    """Let Ray forget the token of the cluster before, which it keeps for as long as this process lives."""
    with contextlib.suppress(AttributeError):  # a Ray that knows no tokens
        raylet: Any = importlib.import_module("ray._raylet")
        loader = raylet.AuthenticationTokenLoader.instance()
        raylet.Config.initialize("")
        loader.reset_cache()


def stop() -> None:
    """Leave the cluster; one that was started here ends with its workers."""
    import ray

    global _sweeper
    with quiet():
        ray.shutdown()
    _read_anew()
    if _sweeper is not None and _sweeper.stdin is not None:
        with suppress(OSError):
            _sweeper.stdin.write(b"ended")
            _sweeper.stdin.close()
        _sweeper.wait()
    _sweeper = None


class Connection:
    """What this process's work on a cluster hangs on: Ray on this machine, and the cluster's head.

    Both are asked by their sockets: Ray's client ends the whole process when it finds that one of them is gone.
    """

    def __init__(self) -> None:
        import ray

        context = ray.get_runtime_context()
        own = next(node for node in alive() if node["NodeID"] == context.get_node_id())
        self.head = context.gcs_address
        self._own = own["RayletSocketName"]
        self._heard = time.monotonic()

    def check(self) -> None:
        """Check that Ray on this machine still runs.

        Raises:
            InputError: it does not.
        """
        if self._is_listed():  # to connect leaves a line in Ray's log each time
            return
        with socket.socket(socket.AF_UNIX) as asked:
            asked.settimeout(PORT_SECONDS)
            try:
                asked.connect(self._own)
            except (ConnectionRefusedError, FileNotFoundError) as error:
                raise InputError(f"Ray on this machine has ended; {GOES_ON}") from error
            except OSError:  # too busy to answer
                return

    def _is_listed(self) -> bool:
        """Whether Linux lists the socket as one that is listened on."""
        try:
            lines = SOCKETS.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return False
        return any(line.endswith(f" {self._own}") and line.split()[3] == LISTENED_ON for line in lines)

    def head_answers(self) -> bool:
        """Whether the cluster's head answers now.

        Raises:
            InputError: it has not for `HEAD_SECONDS`.
        """
        host, _, port = self.head.rpartition(":")
        if _listens(host.strip("[]"), int(port), PORT_SECONDS):
            self._heard = time.monotonic()
            return True
        if time.monotonic() - self._heard > HEAD_SECONDS:
            raise InputError(
                f"the head of the Ray cluster at {self.head} does not answer any more; once it does, {GOES_ON}"
            )
        return False


def alive() -> list[dict[str, Any]]:
    """Return Ray's descriptions of the nodes that are alive."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def listens(node: Mapping[str, Any]) -> bool:
    """Whether a node's Ray takes connections; not where the node is gone. `node` is Ray's description of it."""
    return _listens(node["NodeManagerAddress"], node["NodeManagerPort"], PORT_SECONDS)


def answers(node_id: str) -> bool:
    """Whether a node still runs what it is given: Ray may list one for a while that is gone."""
    import ray

    try:
        ray.get(task_on(node_id, remote.memory).remote(), timeout=ANSWER_SECONDS)
    except ray.exceptions.RayError:
        return False
    return True


def task_on(node_id: str, function: Callable[..., Any]) -> Any:
    """Return a function as a task that takes nothing of a node's processors."""
    return task(function).options(num_cpus=0, scheduling_strategy=on(node_id))


@lru_cache
def task(function: Callable[..., Any]) -> Any:
    """Return a function as Ray's task. It is kept, since the cluster's head is sent each task once."""
    import ray

    return ray.remote(function)


def on(node_id: str) -> Any:
    """Return the strategy that places a task on a node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Ray's remarks off standard output and standard error while it starts and ends."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        yield


def what_failed(error: BaseException) -> str:
    """Return the last line of what an error says: the cause, in Ray's."""
    return last_line(str(error)) or type(error).__name__
