"""The nodes that work for a search: newcomers are asked and sent the study while the others work on; some are left out."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..spaces.cache import cache_folder, stores_used
from ..spaces.errors import InputError
from ..studies.study import Study
from . import cluster, parcel, remote
from .nodes import Node, Questions, Silent, differing

NODES_SECONDS = 5.0  # from one look for new nodes to the next
SENT_SECONDS = 600.0  # a node may take to receive a study
GATHERING_SECONDS = 10.0  # a search waits for further nodes at its start
CLEANING_SECONDS = 10.0  # nodes may take, all of them together, to delete the files of a search at its end


class Roster:
    """The nodes of the cluster that this process has joined, as far as they work for a search.

    Args:
        study: its builder prepared.
        models: folder of the model files.

    Attributes:
        nodes: those that work, by id.
        notes: what is to be told of nodes; taken by who tells it.
        environments: the nodes', by digest; taken by who keeps them.
        digest: what the study's parcel is known by.
        search: a name for this search on nodes that have model files of their own.
    """

    def __init__(self, study: Study, models: Path) -> None:
        self.study = study
        self.models = models
        self.nodes: dict[str, Node] = {}
        self.notes: list[str] = []
        self.environments: dict[str, Mapping[str, Any]] = {}
        self.digest = parcel.digest_of(study)
        self.search = uuid.uuid4().hex
        target = study.settings.target
        self.threads = target.threads
        self._connection = cluster.Connection()
        self._versions = remote.versions(target.runtime)
        self._questions = Questions(target.provider, target.threads, target.runtime, [models, cache_folder()])
        self._sent: dict[Any, tuple[Node, float]] = {}  # by answer, nodes that are being sent the study; since when
        self._refused: set[str] = set()
        self._parcel: Any = None
        self._looked = -NODES_SECONDS

    @property
    def coming(self) -> bool:
        """Whether nodes are being asked, or sent the study."""
        return bool(self._questions.pending or self._sent)

    def gather(self) -> None:
        """Wait for the nodes that are there, for the slower ones of them not too long.

        Raises:
            InputError: the cluster is gone.
        """
        first: float | None = None
        self.look()
        while self.coming and (first is None or time.monotonic() - first < GATHERING_SECONDS):
            self.look(seconds=0.1)
            if self.nodes and first is None:
                first = time.monotonic()

    def look(self, seconds: float = 0.0) -> None:
        """See which nodes there are now; ask new ones, and take what others have answered.

        Args:
            seconds: to wait for an answer that is due.

        Raises:
            InputError: the cluster is gone, or the disk cannot be written to.
        """
        self._connection.check()
        if time.monotonic() - self._looked >= NODES_SECONDS:
            self._looked = time.monotonic()
            if self._connection.head_answers():
                self._see(cluster.alive())
        for answer in self._questions.answers(seconds):
            if isinstance(answer, Silent):
                self.leave_out(answer, answer.why)
            else:
                self._meet(answer)
        self._finish_sending(seconds)

    def check(self) -> None:
        """Raise `InputError` where Ray on this machine is gone: its client would end this process."""
        self._connection.check()

    def answers(self, node: Node) -> bool:
        """Whether a node is still there; not, as far as anybody can tell, where the cluster's head is away."""
        return self._connection.head_answers() and cluster.answers(node.id)

    def doubt(self, node: Node) -> None:
        """Give no work to a node until it has told once more what it is: Ray lists one for a while that is gone."""
        self.nodes.pop(node.id, None)

    def leave_out(self, node: Node | Silent, why: str) -> None:
        """Give no more work to a node."""
        if node.id not in self._refused:
            self._refused.add(node.id)
            self.notes.append(f"the node {node.host} is left out: {why}")
        self.nodes.pop(node.id, None)

    def _see(self, there: list[dict[str, Any]]) -> None:
        ids = {node["NodeID"] for node in there}
        for id_ in set(self.nodes) - ids:
            del self.nodes[id_]
        sent = {node.id for node, _ in self._sent.values()}
        self._questions.ask(there, ids - set(self.nodes) - self._refused - sent - self._questions.pending)

    def _meet(self, node: Node) -> None:
        """Take a node that has told what it is, or leave it out."""
        self.notes += self._notes(node)
        if node.cpus < self.threads or differing(node, self._versions):
            self._refused.add(node.id)
        elif node.shares(cache_folder()):
            if not parcel.is_here(self.digest):
                parcel.unpack(self.digest, parcel.pack(self.study, []))
            self._welcome(node)
        else:
            self._send(node)

    def _welcome(self, node: Node) -> None:
        self.nodes[node.id] = node
        self.environments[node.facts["digest"]] = node.facts["environment"]

    def _send(self, node: Node) -> None:
        import ray

        if self._parcel is None:
            self._parcel = ray.put(parcel.pack(self.study, self._statistics()))
        answer = cluster.task_on(node.id, remote.unpack).remote(self.digest, self._parcel)
        self._sent[answer] = node, time.monotonic()

    def _statistics(self) -> set[Path]:
        with stores_used() as used:
            self.study.prepare_spaces()
        return used

    def _finish_sending(self, seconds: float) -> None:
        """Take the nodes that have the study by now; those that do not get it are left out."""
        import ray

        if not self._sent:
            return
        ready, _ = ray.wait(list(self._sent), num_returns=len(self._sent), timeout=seconds)
        for answer in ready:
            node, _ = self._sent.pop(answer)
            try:
                ray.get(answer)
            except ray.exceptions.RayError as error:
                self.leave_out(node, f"it cannot be sent the study: {cluster.what_failed(error)}")
            else:
                self._welcome(node)
        now = time.monotonic()
        for answer, (node, since) in list(self._sent.items()):
            if now - since > SENT_SECONDS:
                del self._sent[answer]
                ray.cancel(answer, force=True)
                self.leave_out(node, f"the study could not be sent to it in {SENT_SECONDS:.0f} s")

    def _notes(self, node: Node) -> Iterator[str]:
        """Say what a node cannot do."""
        own = self.study.environment
        if found := differing(node, self._versions):
            yield f"the node {node.host} is left out: it has {', '.join(found)}"
        elif node.cpus < self.threads:
            yield f"the node {node.host} is left out: it has fewer processors than target.threads asks for"
        elif node.facts["digest"] != own.digest:
            there, here = node.facts["environment"], own.to_json()
            listed = [f"{key} {there[key]} there, {here[key]} here" for key in here if there[key] != here[key]]
            yield f"the node {node.host} builds and judges, but does not time ({'; '.join(listed)})"

    def close(self) -> None:
        """Delete what this search has left on nodes, as far as that can be done in a few seconds."""
        import ray

        self._questions.close()
        apart = [node for node in self.nodes.values() if not node.shares(self.models)]
        try:
            self._connection.check()
            if not apart or not self._connection.head_answers():
                return
            asked = [cluster.task_on(node.id, remote.clean).remote(self.digest, self.search) for node in apart]
            ray.wait(asked, num_returns=len(asked), timeout=CLEANING_SECONDS)
        except (InputError, ray.exceptions.RayError):
            return
