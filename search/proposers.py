"""What proposes candidates: one small protocol, random search, and Optuna's samplers behind it.

A proposer holds no state but its seed: it is told the whole history each time, so that a search which was killed
proposes what it would have proposed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..spaces.candidate import NATIVE, Candidate, LayerChoice
from ..spaces.space import Axis, Option, Space
from ..spaces.threads import one_torch_thread
from .grid import Grid, distinct
from .vectors import draw

if TYPE_CHECKING:
    import optuna

Point = tuple[float, float, float]
NO_LIMIT: Point = (float("inf"),) * 3


@dataclass(frozen=True)
class Observation:
    """A candidate with what was found.

    Attributes:
        candidate: the point of the space.
        point: (size / reference size, 1 / speedup, drop), minimised; None where it failed.
        violation: by how much it breaks the study's constraints; 0 where it is feasible.
        predicted: whether the speedup is a prediction: the candidate was not timed, or is not yet.
        signed_drop: the drop, below 0 where it is better than the reference; None where it is the point's.
        pending: whether it is still being evaluated, so that nothing is known of it.
        excesses: by how much it breaks each limit that is on no axis of the point, below 0 where it keeps it; NaN: not known.
    """

    candidate: Candidate
    point: Point | None
    violation: float = 0.0
    predicted: bool = False
    pending: bool = False
    signed_drop: float | None = None
    excesses: tuple[float, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether its point counts for the hypervolume: it has one, and breaks no limit that no axis of it tells of."""
        return self.point is not None and not any(excess > 0.0 for excess in self.excesses)


def keys_of(history: Iterable[Observation]) -> set[str]:
    """Return the keys of the candidates of a history."""
    return set(map(attrgetter("candidate.key"), history))


@dataclass(frozen=True)
class Task:
    """What a proposer works on.

    Attributes:
        space: where candidates come from.
        parameters: weights and biases by layer.
        work: multiply-adds by layer.
        seed: makes proposals repeatable.
        shares: by channel group, the part of the inputs of each layer and of the outputs of each layer that it is.
        errors: by label of an axis, the predicted error of each option, in parts of the error that a drop of 0 stands for.
        drop_db: decibels that a drop of 1 stands for.
        limits: the study's constraints as the largest point that keeps them.
    """

    space: Space
    parameters: Mapping[str, int]
    work: Mapping[str, int]
    shares: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = field(default_factory=dict)
    errors: Mapping[str, Mapping[Option, float]] = field(default_factory=dict)
    seed: int = 0
    drop_db: float = 3.0
    limits: Point = NO_LIMIT


class Proposer(Protocol):
    """Proposes what to measure next.

    Equal history, task and seed give equal proposals. A proposal lies in the space and was not proposed before.
    """

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` candidates that are not in ``history``; fewer only where the space has no more.

        The history holds what is finished, and then what is pending.
        """
        ...


def make_proposer(sampler: str, task: Task, *students: Task) -> Proposer:
    """Return the proposer of a sampler's name: frontier, tpe, nsga2, gp or random.

    Args:
        sampler: its name.
        task: of the reference.
        students: likewise, of the other bases.
    """
    if sampler == "frontier":
        from .frontier import Frontier

        return Frontier(task, *students)
    if students:
        return InTurn([make_proposer(sampler, each) for each in (task, *students)], [task, *students])
    if sampler == "random":
        return Random(task)
    return OptunaProposer(sampler, task)


class InTurn:
    """Proposers of several bases, each asked in its turn: they know nothing of one another.

    Args:
        proposers: one for each base.
        tasks: theirs.
    """

    def __init__(self, proposers: Sequence[Proposer], tasks: Sequence[Task]) -> None:
        self.proposers = dict(zip((task.space.base for task in tasks), proposers, strict=True))

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates."""
        known, bases = list(history), list(self.proposers)
        found: list[Candidate] = []
        while len(found) < n and bases:
            base = bases[len(known) % len(bases)]
            own = [observation for observation in known if observation.candidate.base == base]
            new = self.proposers[base].propose(own, 1)
            if not new:
                bases.remove(base)
            found += new
            known += [Observation(candidate, None, pending=True) for candidate in new]
        return found


class Random:
    """Uniformly drawn candidates: each follows from the seed and from how many there were, finished or not, before it."""

    def __init__(self, task: Task) -> None:
        self.grid = Grid(task.space)
        self.seed = task.seed

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates."""
        seen = keys_of(history)
        found: list[Candidate] = []
        for number in range(len(history), len(history) + n):
            random = np.random.default_rng([self.seed, number])
            drawn = partial(draw, self.grid.lengths, random, 1)
            found += distinct(lambda drawn=drawn: self.grid.decode(drawn()[0]), self.grid, seen, 1, random)  # type: ignore[misc]
        return found


class OptunaProposer:
    """Optuna's samplers by ask and tell: a study in memory is rebuilt from the history for each proposal.

    Args:
        sampler: "tpe", "nsga2" or "gp".
        task: what to work on.
    """

    POPULATION = 20  # of NSGA-II: searches have tens of trials, so Optuna's 50 would be a random search

    def __init__(self, sampler: str, task: Task) -> None:
        self.sampler = sampler
        self.task = task
        self.grid = Grid(task.space)
        self.distributions = distributions(self.grid.axes)

    def propose(self, history: Sequence[Observation], n: int) -> list[Candidate]:
        """Return ``n`` unseen candidates."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(directions=["minimize"] * 3, sampler=self._sampler(len(history)))
        study.add_trials(self._trials(history))

        def ask() -> Candidate:
            params = study.ask(self.distributions).params
            asked = [(axis, parse_option(axis, params[axis.label])) for axis in self.grid.axes]
            return self.task.space.make([*self.grid.held, *asked])

        random = np.random.default_rng([self.task.seed, len(history)])
        seen = keys_of(history)
        if self.sampler != "gp":
            return distinct(ask, self.grid, seen, n, random)
        with one_torch_thread():
            return distinct(ask, self.grid, seen, n, random, redraws=2)

    def _sampler(self, asked: int) -> optuna.samplers.BaseSampler:
        import warnings

        import optuna

        seed = self._seed(asked)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            if self.sampler == "tpe":
                return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
            if self.sampler == "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=self.POPULATION)
            return optuna.samplers.GPSampler(seed=seed, deterministic_objective=False)

    def _seed(self, asked: int) -> int:
        return int(np.random.default_rng([self.task.seed, asked]).integers(2**31))

    def _trials(self, history: Sequence[Observation]) -> list[optuna.trial.FrozenTrial]:
        trials: list[optuna.trial.FrozenTrial] = []
        complete = 0
        for observation in history:
            if not self.task.space.contains(observation.candidate):
                continue  # the reference, where the space leaves nothing uncompressed
            trials.append(frozen_trial(observation, self.grid.axes, complete // self.POPULATION))
            complete += observation.point is not None
        return trials


def distributions(axes: Iterable[Axis]) -> dict[str, Any]:
    """Return one categorical distribution for each axis, its options written "4/8" or "0.25"."""
    from optuna.distributions import CategoricalDistribution

    return {axis.label: CategoricalDistribution([option_text(option) for option in axis.options]) for axis in axes}


def option_text(option: Option) -> str:
    """Return bits of weights and activations and, where they are not native, sparsity and form as "4/8/0.75/phases".

    A pruning ratio is "0.25".
    """
    if not isinstance(option, LayerChoice):
        return repr(option)
    sparsity = f"/{option.sparsity!r}" if option.sparsity else ""
    form = f"/{option.form}" if option.form != NATIVE else ""
    return f"{option.weight_bits}/{option.activation_bits}{sparsity}{form}"


def parse_option(axis: Axis, text: str) -> Option:
    """Return the axis's option that `option_text` wrote."""
    return next(option for option in axis.options if option_text(option) == text)


def frozen_trial(
    observation: Observation,
    axes: Sequence[Axis],
    generation: int = 0,
    user_attrs: Mapping[str, Any] | None = None,
) -> optuna.trial.FrozenTrial:
    """Return an observation as an Optuna trial; NSGA-II reads its generation from the system attributes."""
    import optuna

    done = observation.point is not None
    state = optuna.trial.TrialState.COMPLETE if done else optuna.trial.TrialState.FAIL
    return optuna.trial.create_trial(
        state=optuna.trial.TrialState.RUNNING if observation.pending else state,
        values=observation.point,
        params={axis.label: option_text(axis.of(observation.candidate)) for axis in axes},
        distributions=distributions(axes),
        user_attrs=dict(user_attrs or {}),
        system_attrs={"NSGAIISampler:generation": generation},
        constraints={"limits": observation.violation} if done else None,
    )
