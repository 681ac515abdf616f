"""Ray: started here or joined, its nodes looked at; nothing else of the search knows of Ray but the pool on top of this."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..spaces.errors import InputError
from ..spaces.session import CPU
from . import remote

SLOT = "slimfront_timing"  # one on each node that may time
ANSWER_SECONDS = 10
MARK = "SLIMFRONT_SEARCH"  # variable in the environment of all that a local Ray runs
LOCAL_STORE = 500_000_000  # bytes that Ray's own memory takes on a machine that it was started on for one search

_sweeper: subprocess.Popen[bytes] | None = None


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        id: Ray's.
        host: its name, with the start of the id where several nodes are on one host.
        cpus: that Ray counts there.
        slots: timing slots that were declared there.
        facts: what the node says of itself (`remote.about`).
    """

    id: str
    host: str
    cpus: int
    slots: int
    facts: Mapping[str, Any]


@contextmanager
def connected(workers: int | None, address: str | None, threads: int = 1) -> Iterator[None]:
    """Be connected with a Ray that was started here for so many workers, or, with an address, with a cluster.

    Raises:
        InputError: a wrong number of workers, no Ray at the address, or nodes with other versions of packages.
    """
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise InputError(f"workers must be a whole number, at least 1, but got {workers!r}")
    try:
        if address is None:
            start((workers or 1) * threads)
        else:
            join(address)
            check(look((CPU, 1), []))
        yield
    finally:
        stop()


def start(cpus: int) -> None:
    """Start Ray on this machine alone, for so many processors; it ends with this process, however that ends."""
    global _sweeper
    mark = f"slimfront-{uuid.uuid4().hex}"
    watch = [sys.executable, "-S", str(Path(__file__).with_name("sweeper.py")), mark]
    _sweeper = subprocess.Popen(watch, stdin=subprocess.PIPE, start_new_session=True)
    os.environ[MARK] = mark  # inherited by all that Ray starts
    try:
        _init(
            address="local",
            num_cpus=cpus,
            resources={SLOT: 1},
            include_dashboard=False,
            object_store_memory=LOCAL_STORE,
            _node_ip_address="127.0.0.1",
        )
    finally:
        del os.environ[MARK]


def join(address: str) -> None:
    """Join a cluster.

    Raises:
        InputError: nobody answers there, or with another version of Ray or Python.
    """
    import ray

    if address != "auto":
        _check_answers(address)
    try:
        _init(address=address)
    except ConnectionError as error:
        raise InputError(
            f"no Ray answers at {address!r}: start one with `ray start --head`, or give its address, host:port"
        ) from error
    except (RuntimeError, ValueError, ray.exceptions.RaySystemError) as error:
        raise InputError(f"cannot join the Ray cluster at {address!r}: {_last_line(error)}") from error


def _init(**settings: Any) -> None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with _quiet():
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
    if hasattr(ray._private.worker, "print_to_stdstream"):  # it writes of workers that died to standard output
        ray._private.worker.print_to_stdstream = lambda *_, **__: None


def _check_answers(address: str) -> None:
    """Ask with Ray's own health check, which ends in time where its client would go on trying."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise InputError(
            f"--ray {address!r} is no address: give host:port of the cluster's head (6379 by default), or auto"
        )
    silent = f"no Ray answers at {address!r}: is it running, and can this machine reach the port?"
    try:
        socket.create_connection((host, int(port)), ANSWER_SECONDS / 2).close()
    except OSError as error:
        raise InputError(silent) from error
    ask = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        done = subprocess.run(ask, capture_output=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        done = None
    if done is None or done.returncode != 0:
        raise InputError(silent)


def stop() -> None:
    """Leave the cluster; one that was started here ends with its workers."""
    import ray

    with _quiet():
        ray.shutdown()
    if _sweeper is not None and _sweeper.stdin is not None:
        _sweeper.stdin.close()
        _sweeper.wait()


def look(study_facts: tuple[str, int], shared: list[Path]) -> list[Node]:
    """Return the nodes that are alive, each asked what it is.

    Args:
        study_facts: execution provider and threads of the study.
        shared: folders of which is asked whether nodes share them.

    Raises:
        InputError: slimfront does not run on one of them.
    """
    import ray

    with _marks(shared) as marks:
        asked = {}
        for node in alive():
            ask = ray.remote(remote.about).options(num_cpus=0, scheduling_strategy=on(node["NodeID"]))
            asked[node["NodeID"]] = node, ask.remote(marks, *study_facts)
        found = []
        for id_, (node, answer) in asked.items():
            try:
                facts = ray.get(answer, timeout=10 * ANSWER_SECONDS)
            except ray.exceptions.RayError as error:
                raise InputError(
                    f"the node {node['NodeManagerAddress']} cannot work for this search: {_last_line(error)}; "
                    f"is slimfront {remote.versions()['slimfront']} installed there?"
                ) from error
            resources = node["Resources"]
            folders = [str(Path(path).parent) for path in facts["shares"]]
            host = f"{facts['host']}/{id_[:6]}" if len(asked) > 1 else facts["host"]
            node_facts = {**facts, "shares": folders}
            found.append(Node(id_, host, int(resources.get("CPU", 0)), int(resources.get(SLOT, 0)), node_facts))
    return found


def check(nodes: list[Node]) -> None:
    """Raise `InputError` with the differences where nodes have other versions of packages than this process."""
    listed = [f"{node.host}: {', '.join(found)}" for node in nodes if (found := differing(node))]
    if listed:
        own = ", ".join(f"{name} {version}" for name, version in remote.versions().items())
        raise InputError(
            f"nodes of the cluster have other versions than this process ({own}): {'; '.join(listed)}. "
            "Install the same ones everywhere: files and readings depend on them"
        )


def differing(node: Node) -> list[str]:
    """Return the packages of a node whose versions are not this process's."""
    there = node.facts["versions"]
    return [f"{name} {there.get(name)}" for name, version in remote.versions().items() if there.get(name) != version]


def alive() -> list[dict[str, Any]]:
    """Return Ray's descriptions of the nodes that are alive."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]


def answers(node_id: str) -> bool:
    """Whether a node still runs what it is given: Ray may list one for a while that is gone."""
    import ray

    try:
        ray.get(
            ray.remote(remote.versions).options(num_cpus=0, scheduling_strategy=on(node_id)).remote(),
            timeout=ANSWER_SECONDS,
        )
    except ray.exceptions.RayError:
        return False
    return True


def on(node_id: str) -> Any:
    """Return the strategy that places a task on a node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node_id, soft=False)


@contextmanager
def _marks(folders: list[Path]) -> Iterator[dict[str, str]]:
    """Write a file into each folder by which a node can tell whether it has the same one."""
    marks = {str(folder / f".slimfront-{uuid.uuid4().hex}"): uuid.uuid4().hex for folder in folders}
    try:
        for path, mark in marks.items():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(mark, encoding="utf-8")
        yield marks
    finally:
        for path in marks:
            Path(path).unlink(missing_ok=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's remarks off standard output and standard error while it starts and ends."""
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        yield


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
