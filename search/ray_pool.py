"""Work done by Ray's workers: builds and quality side by side, timings with a node to themselves.

Each node has slots for candidates and, for one timing, all of itself: before a timing the node is given no more work until
it is idle. A worker is a plain Ray task, which tells of each stage as it finishes; nothing is kept in Ray's memory that
could not be done again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..spaces.build import file_parts
from ..spaces.errors import InputError
from ..studies.holdings import trained_path
from ..studies.records import DONE
from ..studies.run_folder import model_file
from ..studies.standing import Doing
from ..studies.trial import Trial, stages_with
from . import cluster, remote
from .evaluate import TIMING, Evaluator
from .nodes import Node
from .pace import AT_ONCE
from .pool import OwnProcess
from .roster import Roster
from .work import Kind, Results, Told, Work

TICK = 0.5  # seconds from one look at nodes and clocks to the next
WAIT_SECONDS = 1.0  # for something to be told of
PATIENCE = 300.0  # seconds that a search waits for a node where none is left
OPENING_SECONDS = 600.0  # a worker has to open the study in
LEAST_SECONDS = {"build": 1800.0, "quality": 600.0, "timing": 600.0}  # a stage may always take
FACTOR = 30.0  # times what it took with the reference, where that is more
KNOWLEDGE_SECONDS = 20.0  # from one time that what the predictor has learned is sent to the next
UNLIKE = 1.25  # times as fast: people are told of such nodes


@dataclass(eq=False)
class _Task:
    """A piece of work on its way."""

    work: Work
    node: Node
    stream: Any
    since: float = field(default_factory=time.monotonic)  # of the stage under way
    began: bool = False
    stages: int = 0
    told: str | None = None  # why we ended it ourselves


class RayPool:
    """A pool on the Ray cluster that this process has joined.

    Args:
        evaluator: of the study, its builder prepared; it times where no node can.
        reference: the run's measured reference: what it took tells what is too long.
        most: workers at once, at most; by default as many as the nodes have processors for.
        stage_seconds: what a stage may take; by default by what the reference took.
        deadline: of the monotonic clock, after which nobody waits for a node.

    Raises:
        InputError: no node can work for the search.
    """

    gathered = AT_ONCE

    def __init__(
        self,
        evaluator: Evaluator,
        reference: Trial,
        most: int | None = None,
        stage_seconds: float | None = None,
        deadline: float | None = None,
    ) -> None:
        self.study = evaluator.study
        self.models = evaluator.models.resolve()
        self.most = most
        self.limits = {
            stage: stage_seconds or max(least, FACTOR * reference.stages[stage]["seconds"])
            for stage, least in self._least_seconds.items()
        }
        self.environment = self.study.environment
        self.roster = Roster(self.study, self.models)
        self._reference_ms = reference.reference_ms
        self._own = OwnProcess(evaluator)
        self._tasks: dict[Any, _Task] = {}  # by stream
        self._timings: list[Work] = []  # that wait for a node of their own
        self._reserved: dict[str, Work] = {}  # by node, the timing that it is being emptied for
        self._held: list[Work] = []  # that no node is there for
        self._waits_since: float | None = None  # for a node
        self._deadline = math.inf if deadline is None else deadline
        self._timed: set[str] = set()  # ids of nodes that have timed
        self._knowledge: tuple[int, Any] = (0, None)
        self._learned = False  # something that was not sent yet
        self._taught = float("-inf")  # when it was sent last
        try:
            self._gather()
        except BaseException:
            self.close()
            raise

    def _gather(self) -> None:
        self.roster.gather()
        if not self.nodes:
            raise InputError("; ".join(["the Ray cluster has no node that could work for this search", *self.notes]))
        self.teach()

    @property
    def nodes(self) -> Mapping[str, Node]:
        """The nodes that work, by id."""
        return self.roster.nodes

    @property
    def notes(self) -> list[str]:
        """What is to be told of the nodes; taken by who tells it."""
        return self.roster.notes

    @property
    def environments(self) -> dict[str, Mapping[str, Any]]:
        """The nodes' environments by digest; taken by who keeps them."""
        return self.roster.environments

    @property
    def threads(self) -> int:
        """Processors that a worker takes."""
        return self.study.settings.target.threads

    def slots(self, node: Node) -> int:
        """Return how many candidates a node works on at once."""
        return max(node.cpus // self.threads, 1)

    @property
    def workers(self) -> int:
        """How many candidates are worked on at once."""
        found = sum(self.slots(node) for node in self.nodes.values())
        return found if self.most is None else min(self.most, found)

    @property
    def room(self) -> int:
        """How many pieces of work could be begun at once; one that waits for a node, where none is left."""
        if not self.nodes:
            return int(not self.busy)
        free = sum(max(self._free(node), 0) for node in self.nodes.values())
        return free if self.most is None else max(min(free, self.most - len(self._tasks)), 0)

    @property
    def timers(self) -> int:
        """How many timings can be under way at once."""
        return max(len(self._able()), 1)

    @property
    def busy(self) -> int:
        """How many pieces of work are not over."""
        return len(self._tasks) + len(self._timings) + len(self._reserved) + len(self._held) + self._own.busy

    def _free(self, node: Node) -> int:
        tasks = self._on(node)
        timing = node.id in self._reserved or any(task.work.kind is not Kind.JUDGE for task in tasks)
        return 0 if timing else self.slots(node) - len(tasks)

    def _on(self, node: Node) -> list[_Task]:
        return [task for task in self._tasks.values() if task.node.id == node.id]

    @property
    def doing(self) -> list[Doing]:
        """What workers are at."""
        now = time.monotonic()
        return [
            Doing(
                task.node.host,
                self._stage(task) if task.began else "opening",
                task.work.numbers,
                now - task.since,
            )
            for task in self._tasks.values()
        ]

    def submit(self, work: Work) -> None:
        """Take work; a timing waits until a node is free of all else."""
        if work.kind is not Kind.JUDGE:
            self._timings.append(work)
            self._reserve()
        elif self.nodes:
            self._begin(work, max(self.nodes.values(), key=self._free), self.threads, {})
        else:
            self._held.append(work)

    def _reserve(self) -> None:
        """Choose nodes for the timings that wait, those that are idle soonest, and begin those that have one."""
        able = [node for node in self._able() if node.id not in self._reserved]
        able = [node for node in able if all(task.work.kind is Kind.JUDGE for task in self._on(node))]
        for node in sorted(able, key=lambda node: len(self._on(node)))[: len(self._timings)]:
            self._reserved[node.id] = self._timings.pop(0)
        for id_, work in list(self._reserved.items()):
            if not self._on(self.nodes[id_]):
                node = self.nodes[id_]
                self._begin(work, node, node.cpus, {cluster.SLOT: 1} if node.slots else {})
                del self._reserved[id_]

    def _able(self) -> list[Node]:
        """Return the nodes that may time: in this process's environment, and with a slot where any node has one."""
        alike = [node for node in self.nodes.values() if node.facts["digest"] == self.environment.digest]
        declared = [node for node in alike if node.slots]
        return declared or alike

    def _begin(self, work: Work, node: Node, cpus: int, resources: dict[str, float]) -> None:
        shared = node.shares(self.models)
        order = remote.Order(
            study=self.roster.digest,
            search=self.roster.search,
            work=work,
            models=str(self.models) if shared else None,
            files={} if shared else self._files(work),
            returns=not shared and work.kind is Kind.JUDGE,
            machine=self.environment.machine,
            knowledge=self._knowledge[0],
            memory=int(remote.MEMORY * node.facts["memory"] / (self.slots(node) if work.kind is Kind.JUDGE else 1)),
        )
        self.roster.check()
        task = cluster.task(remote.work).options(
            num_cpus=cpus,
            resources=resources,
            max_retries=0,
            num_returns="streaming",
            scheduling_strategy=cluster.on(node.id),
            name=f"{work.kind} {', '.join(map(str, work.numbers))}",
        )
        stream = task.remote(order, self._knowledge[1])
        self._tasks[stream] = _Task(work, node, stream)

    def _files(self, work: Work) -> dict[str, bytes]:
        """Return what a node needs that does not share the run's folder: trained weights, and model files to be timed."""
        candidates = [trial.candidate for trial in work.trials]
        found = [trained_path(self.models.parent, each.weights) for each in candidates if each.weights]
        if work.kind is not Kind.JUDGE:
            paths = [model_file(self.models, each, self.study.rules.format) for each in candidates]
            found += [file for path in paths for file in file_parts(path)]
        return {file.name: file.read_bytes() for file in found if file.exists()}

    def wait(self) -> list[Told]:
        """Return what was found since the last call; wait for it a little where there is nothing yet."""
        import ray

        end = time.monotonic() + WAIT_SECONDS
        while True:
            self._look()
            self._send_knowledge()
            self._reserve()
            told = self._timed_here()
            if self._held:
                self._wait_for_a_node()
            if self._tasks:
                ready, _ = ray.wait(list(self._tasks), num_returns=1, timeout=0 if told else TICK, fetch_local=False)
                while ready:
                    told += [found for stream in ready if (found := self._next(stream)) is not None]
                    if not self._tasks:
                        break
                    streams = list(self._tasks)
                    ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
            self._end_what_hangs()
            if told or self.notes or not self.busy or time.monotonic() > end:
                return told

    def _wait_for_a_node(self) -> None:
        """Begin what is held where there is a node again.

        Raises:
            InputError: there has been none for `PATIENCE`, or until the search's time is over.
        """
        now = time.monotonic()
        if self.nodes:
            self._waits_since = None
            while self._held:
                self.submit(self._held.pop())
        elif self._waits_since is None:
            self._waits_since = now
            patience = min(PATIENCE, max(self._deadline - now, 0.0))
            self.notes.append(f"no node is left that could work; waiting up to {patience / 60:.2g} min for one to join")
        elif now > self._deadline or (now - self._waits_since > PATIENCE and not self.roster.coming):
            raise InputError(
                f"no node that could work has joined the cluster in {(now - self._waits_since) / 60:.2g} min; once there is "
                f"one, {cluster.GOES_ON}"
            )
        else:
            time.sleep(TICK)

    def _next(self, stream: Any) -> Told | None:
        """Return what a task tells next; None where it only began."""
        import ray

        task = self._tasks[stream]
        try:
            step = ray.get(next(stream))
        except StopIteration:
            del self._tasks[stream]
            return self._told(task, over=True)
        except ray.exceptions.RayError as error:
            del self._tasks[stream]
            return self._lost(task, error)
        task.since, task.began, task.stages = time.monotonic(), True, task.stages + bool(step.results)
        for name, content in step.files.items():
            remote.write_whole(self.models / name, content)
        self._compare(task.node, step.results)
        return self._told(task, results=step.results) if step.results else None

    def _told(self, task: _Task, **more: Any) -> Told:
        return Told(task.work, node=task.node.host, environment=task.node.facts["digest"], **more)

    def _compare(self, node: Node, results: Results) -> None:
        """Say so once where a node that times is not as fast as the machine that timed the run's reference."""
        found = [
            result.readings["reference_ms"].value
            for _, result in results
            if (result.stage, result.state) == (TIMING, DONE)
        ]
        if not found or not self._reference_ms or node.id in self._timed:
            return
        self._timed.add(node.id)
        ratio = found[0] / self._reference_ms
        if max(ratio, 1.0 / ratio) > UNLIKE:
            self.notes.append(
                f"the node {node.host} needs {ratio:.2g} times as long for the reference as the machine that timed the run's "
                "reference; speedups are against the reference in turn on the same node, latencies are given for that machine"
            )

    def _lost(self, task: _Task, error: Exception) -> Told:
        """Say why a task ended before its work did.

        Raises:
            InputError: the disk is full, or another mistake of the user's.
        """
        import ray

        cause = getattr(error, "cause", None)
        if isinstance(cause, InputError):
            raise cause
        gone = (
            ray.exceptions.NodeDiedError,
            ray.exceptions.LocalRayletDiedError,
            ray.exceptions.TaskUnschedulableError,
        )
        lost = isinstance(error, gone) or (task.told is None and cause is None and not self.roster.answers(task.node))
        blameless = lost or (not task.began and (task.told is not None or cause is not None))
        if lost:
            self.roster.doubt(task.node)
            self._release()
        elif blameless:
            self._leave_out(task.node, task.told or f"{type(cause).__name__}: {cause}")
        if task.told is not None:
            reason = task.told
        elif lost:
            reason = f"the node {task.node.host} was lost"
        elif isinstance(error, ray.exceptions.OutOfMemoryError):
            reason = "its worker took too much memory and was ended"
        elif isinstance(error, ray.exceptions.WorkerCrashedError):
            reason = "its worker crashed or was killed"
        elif cause is not None:
            reason = f"{type(cause).__name__}: {cause}"
        else:
            reason = f"its worker was lost: {type(error).__name__}"
        return self._told(task, over=True, lost=reason, blameless=blameless)

    def _leave_out(self, node: Node, why: str) -> None:
        """Give no more work to a node on which work does not even begin.

        Raises:
            InputError: it was the last one, and none can join.
        """
        self.roster.leave_out(node, why)
        self._release()
        if not self.nodes and not cluster.may_grow():
            raise InputError(f"no node is left that could work: {why}; {cluster.GOES_ON}")

    def _release(self) -> None:
        """Let timings wait on whose nodes are gone."""
        for id_ in set(self._reserved) - set(self.nodes):
            self._timings.insert(0, self._reserved.pop(id_))

    def _timed_here(self) -> list[Told]:
        """Time in this process where no node can."""
        if not self._able():
            self._timings += self._reserved.values()
            self._reserved.clear()
            if self._timings and not self._own.busy:
                self._own.submit(self._timings.pop(0))
        return self._own.wait()

    def _end_what_hangs(self) -> None:
        """End workers that are over their time."""
        import ray

        now = time.monotonic()
        for task in self._tasks.values():
            stage = self._stage(task)
            if task.told is None and now - task.since > self._limit(task, stage):
                task.told = f"{stage} took longer than {self._limit(task, stage):.0f} s"
                ray.cancel(task.stream, force=True)

    def _stage(self, task: _Task) -> str:
        """Return the stage that a task is at."""
        if task.work.kind is not Kind.JUDGE:
            return "timing"
        stages = stages_with(self.study.criteria)[:-1]
        left = [stage for stage in ("prediction", *stages) if stage not in task.work.trials[0].stages]
        return left[min(task.stages, len(left) - 1)] if left else stages[-1]

    @property
    def _least_seconds(self) -> dict[str, float]:
        """What each stage may always take; a further objective's as quality's."""
        further = (criterion.name for criterion in self.study.criteria)
        return LEAST_SECONDS | dict.fromkeys(further, LEAST_SECONDS["quality"])

    def _limit(self, task: _Task, stage: str) -> float:
        if not task.began:
            return OPENING_SECONDS
        return self.limits.get(stage, self.limits["build"]) * len(task.work.trials)

    def _look(self) -> None:
        """See which nodes there are."""
        self.roster.look()
        self._release()

    def teach(self) -> None:
        """Let workers know what the predictor has learned: it is sent once a while, since each node fetches it anew."""
        self._learned = True
        self._send_knowledge()

    def _send_knowledge(self) -> None:
        import ray

        now = time.monotonic()
        if not self._learned or now - self._taught < KNOWLEDGE_SECONDS:
            return
        self._learned, self._taught = False, now
        self.roster.check()
        self._knowledge = self._knowledge[0] + 1, ray.put(remote.knowledge_of(self.study.predictor))

    def close(self) -> None:
        """End all work; what was not told of yet is lost, and done again when the search goes on."""
        import ray

        for task in self._tasks.values():
            ray.cancel(task.stream, force=True)
        self._tasks.clear()
        self.roster.close()
