"""The nodes of a Ray cluster: asked what they are, all at once, without anybody having to wait for them."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..objectives.runtimes import DEFAULT_RUNTIME
from ..spaces.errors import InputError
from ..spaces.session import CPU
from ..studies.run_folder import writing_to
from . import cluster, remote

ASKED_SECONDS = 100.0  # a node may take to answer: it starts a process, which loads libraries


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

    def shares(self, folder: Path) -> bool:
        """Whether the node has the same folder at the same place."""
        return str(folder) in self.facts["shares"]


@dataclass(frozen=True)
class Silent:
    """A node that cannot work for a search.

    Attributes:
        id: Ray's.
        host: its address.
        why: what its process ended with, or that it took too long.
    """

    id: str
    host: str
    why: str


class Questions:
    """What nodes were asked and have not answered yet.

    Args:
        provider: execution provider of the study.
        threads: of the study.
        runtime: of the study.
        shared: folders of which is asked whether nodes share them.
    """

    def __init__(
        self, provider: str, threads: int, runtime: str = DEFAULT_RUNTIME, shared: Sequence[Path] = ()
    ) -> None:
        self._study = provider, threads, runtime
        self._shared = shared
        self._asked: dict[Any, tuple[dict[str, Any], str, float]] = {}  # by answer: the node, its name, since when
        self._marks: dict[str, str] = {}

    @property
    def pending(self) -> set[str]:
        """The ids of the nodes that have not answered yet."""
        return {node["NodeID"] for node, _, _ in self._asked.values()}

    def ask(self, nodes: Sequence[Mapping[str, Any]], new: Iterable[str]) -> None:
        """Ask nodes what they are.

        Args:
            nodes: Ray's descriptions of all nodes that are alive.
            new: the ids of those that are asked.

        Raises:
            InputError: the disk cannot be written to.
        """
        hosts = Counter(node["NodeManagerHostname"] for node in nodes)
        wanted = set(new)
        asked = [dict(node) for node in nodes if node["NodeID"] in wanted]
        if asked and not self._marks:
            self._mark()
        for node in asked:
            id_, host = node["NodeID"], node["NodeManagerHostname"]
            name = f"{host}/{id_[:6]}" if hosts[host] > 1 else host
            answer = cluster.task_on(id_, remote.about).remote(self._marks, *self._study)
            self._asked[answer] = node, name, time.monotonic()

    def answers(self, seconds: float = 0.0) -> list[Node | Silent]:
        """Return what nodes have answered since the last call; wait so long for one."""
        import ray

        ready, _ = ray.wait(list(self._asked), num_returns=1, timeout=seconds) if self._asked else ([], [])
        if ready:
            ready, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0)
        found = [self._answer(answer) for answer in ready]
        now = time.monotonic()
        for answer, (node, _, since) in list(self._asked.items()):
            if now - since > ASKED_SECONDS:
                del self._asked[answer]
                ray.cancel(answer, force=True)
                why = f"it did not answer in {ASKED_SECONDS:.0f} s"
                found.append(Silent(node["NodeID"], node["NodeManagerAddress"], why))
        if not self._asked:
            self.close()
        return found

    def _answer(self, answer: Any) -> Node | Silent:
        import ray

        node, name, _ = self._asked.pop(answer)
        try:
            facts = ray.get(answer)
        except ray.exceptions.RayError as error:
            return Silent(node["NodeID"], node["NodeManagerAddress"], cluster.what_failed(error))
        resources = node["Resources"]
        facts = {**facts, "shares": [str(Path(path).parent) for path in facts["shares"]]}
        return Node(node["NodeID"], name, int(resources.get("CPU", 0)), int(resources.get(cluster.SLOT, 0)), facts)

    def _mark(self) -> None:
        """Write a file into each folder by which a node can tell whether it has the same one."""
        for folder in self._shared:
            with writing_to(folder):
                folder.mkdir(parents=True, exist_ok=True)
                path = folder / f".slimfront-{uuid.uuid4().hex}"
                path.write_text(path.name, encoding="utf-8")
            self._marks[str(path)] = path.name

    def close(self) -> None:
        """Leave no marks behind."""
        for path in self._marks:
            Path(path).unlink(missing_ok=True)
        self._marks = {}


def check_all(nodes: Sequence[Mapping[str, Any]], runtime: str = DEFAULT_RUNTIME) -> None:
    """Check that all nodes can work for a search. Those that are gone, and which Ray lists for a while, count for nothing.

    Args:
        nodes: Ray's descriptions of them.
        runtime: of the study.

    Raises:
        InputError: slimfront, or the runtime, does not run on one of them, or they have other versions of packages than this
            process.
    """
    own = remote.versions(runtime)
    questions = Questions(CPU, 1, runtime)
    by_id = {node["NodeID"]: node for node in nodes}
    questions.ask(nodes, by_id)
    found: list[Node] = []
    while questions.pending:
        for answer in questions.answers(1.0):
            if isinstance(answer, Silent):
                if len(nodes) > 1 and not cluster.listens(by_id[answer.id]):
                    continue
                raise InputError(
                    f"the node {answer.host} cannot work for this search: {answer.why}; "
                    f"is slimfront {own['slimfront']} installed there?"
                )
            found.append(answer)
    listed = [f"{node.host}: {', '.join(others)}" for node in found if (others := differing(node, own))]
    if listed:
        here = ", ".join(f"{name} {version}" for name, version in own.items())
        raise InputError(
            f"nodes of the cluster have other versions than this process ({here}): {'; '.join(listed)}. "
            "Install the same ones everywhere: files and readings depend on them"
        )


def differing(node: Node, own: Mapping[str, str]) -> list[str]:
    """Return the packages of a node whose versions are not this process's."""
    there = node.facts["versions"]
    return [f"{name} {there.get(name)}" for name, version in own.items() if there.get(name) != version]
