"""The frontier sampler for plain Optuna studies, made with a model of what choices cost."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from ..spaces.errors import InputError
from ..studies.front import nondominated
from .cost_tables import CostModel, in_three
from .grid import ENUMERABLE
from .solve import Solved, choose, solve
from .vectors import draw, unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.int64]

MARGIN = 0.1  # by which the reference point lies beyond the worst values, in parts of their range
DRAWS = 1000  # for a point that was not sampled, where the model's front has none left
ABSENT = -1  # in place of a choice: the parameter was not asked for
OTHER = -2  # it was, and is none of the model's choices


class FrontierSampler(BaseSampler):
    """Samples what a cost model, corrected by the trials so far, expects to gain most hypervolume.

    Parameters of the model may be asked for in any way (`suggest_categorical`, `suggest_int`, …) that allows its choices, and
    need not all be asked for in every trial; others are drawn at random. A process does not sample a point twice, as long
    as one is left. Trials that break constraints teach the model, but are not on the front; those whose values are not
    finite count as failed.

    Args:
        model: what choices cost, e.g. `AdditiveCosts`.
        seed: makes samples repeatable, given the same trials; None for another search each time.
        limits: the largest value of each objective that is acceptable (the smallest where it is maximised); None for no limit.

    Raises:
        InputError: when a study has another number of objectives than the model tells, or than there are limits.
    """

    def __init__(
        self, model: CostModel, *, seed: int | None = None, limits: Sequence[float | None] | None = None
    ) -> None:
        self.model = model
        self.limits = limits
        self._seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._others = RandomSampler(seed)
        self._lengths = np.array([len(choices) for choices in model.choices.values()])
        self._places = {
            name: {choice: place for place, choice in enumerate(choices)} for name, choices in model.choices.items()
        }
        self._chosen: dict[int, dict[str, Any]] = {}  # by trial, what it is to be; what runs now
        self._failed: list[dict[str, Any]] = []  # what was chosen for trials that failed in this process
        self._lock = Lock()  # of what several threads choose one after another

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return nothing: parameters come one by one, so that each can be asked for in its own way."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return nothing, as there is no relative space."""
        return {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Choose the trial's point."""
        self._others.before_trial(study, trial)
        with self._lock:
            vector = self._choose(study, trial)
            pairs = zip(self.model.choices.items(), vector.tolist(), strict=True)
            self._chosen[trial.number] = {name: choices[place] for (name, choices), place in pairs}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return what was chosen for a parameter; one that the model does not know is drawn at random."""
        chosen = self._chosen.get(trial.number, {})
        if param_name in chosen:
            if _allows(param_distribution, chosen[param_name]):
                return chosen[param_name]
            warnings.warn(
                f"the study does not allow {chosen[param_name]!r} for {param_name!r}, which the cost model offers: it is "
                "drawn at random",
                stacklevel=2,
            )
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forget what was chosen: the study knows it now."""
        self._others.after_trial(study, trial, state, values)
        chosen = self._chosen.pop(trial.number, None)
        if chosen is not None and state in (TrialState.FAIL, TrialState.PRUNED):
            self._failed.append({**chosen, **trial.params})

    def reseed_rng(self) -> None:
        """Draw parameters that the model does not know anew in another process."""
        self._others.reseed_rng()

    def _choose(self, study: Study, trial: FrozenTrial) -> Vectors:
        """Return the vector ``[L]`` that promises most."""
        random = np.random.default_rng([self._seed, trial.number])
        signs = self._signs(study)
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        finished = [other for other in trials if other.state == TrialState.COMPLETE and np.isfinite(other.values).all()]
        vectors = self._vectors([other.params for other in finished])
        values = np.array([other.values for other in finished], float).reshape(-1, len(signs)) * signs
        feasible = np.array([all(value <= 0 for value in other.constraints.values()) for other in finished], bool)
        pending, failed = self._unmeasured(trials)
        told = (vectors > OTHER).all(axis=1)
        costs = self.model.fit(vectors[told], values[told], signs)
        whole = (vectors >= 0).all(axis=1) & feasible
        starts = (
            vectors[whole][nondominated(in_three(values[whole]))] if whole.any() else draw(self._lengths, random, 1)
        )
        solved = solve(costs, self._lengths, starts, random)
        seen = np.concatenate([vectors[told & (vectors >= 0).any(axis=1)], pending, failed])
        taken = np.concatenate([in_three(values[feasible]), costs.predict(pending)])
        scaled, taken, worst = self._scaled(solved, in_three(values), taken, signs)
        rows = choose(scaled, unseen(solved.pool, seen), taken, worst, 1, len(trials))
        return solved.pool[rows[0]] if rows else self._any_unseen(seen, random)

    def _signs(self, study: Study) -> list[float]:
        """Return by objective 1 where it is minimised, -1 where it is maximised."""
        count = len(study.directions)
        if count != self.model.objectives:
            raise InputError(f"the study has {count} objectives, but the cost model tells {self.model.objectives}")
        if self.limits is not None and len(self.limits) != count:
            raise InputError(f"the study has {count} objectives, but there are {len(self.limits)} limits")
        return [1.0 if direction == StudyDirection.MINIMIZE else -1.0 for direction in study.directions]

    def _unmeasured(self, trials: Sequence[FrozenTrial]) -> tuple[Vectors, Vectors]:
        """Return the vectors of trials that run now, and of those that failed, where they are known whole."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        pending = self._vectors([{**self._chosen.get(trial.number, {}), **trial.params} for trial in running])
        lost = [trial.params for trial in trials if trial.state in (TrialState.FAIL, TrialState.PRUNED)]
        lost += [trial.params for trial in trials if trial.values and not np.isfinite(trial.values).all()]
        failed = self._vectors([*lost, *self._failed])
        return pending[(pending >= 0).all(axis=1)], failed[(failed >= 0).all(axis=1)]

    def _vectors(self, params: Sequence[dict[str, Any]]) -> Vectors:
        """Return the places of choices ``[M, L]``; `ABSENT` where a parameter is missing, `OTHER` for none of the choices."""
        found = np.full((len(params), len(self._lengths)), ABSENT, np.int64)
        for row, values in zip(found, params, strict=True):
            for axis, (name, places) in enumerate(self._places.items()):
                if name in values:
                    row[axis] = places.get(values[name], OTHER)
        return found

    def _scaled(
        self, solved: Solved, values: Floats, taken: Floats, signs: Sequence[float]
    ) -> tuple[Solved, Floats, Floats]:
        """Return the pool, what was taken, and the reference point, with objectives in parts of the fronts' range.

        The reference point lies beyond the fronts that were measured and are expected, or at the limits.
        """
        known = np.concatenate([values[nondominated(values)], solved.centre[nondominated(solved.centre)]])
        low, span = known.min(axis=0), np.ptp(known, axis=0)
        span = np.where(span > 0.0, span, 1.0)
        worst = known.max(axis=0) + MARGIN * span
        for objective, limit in enumerate(self.limits or ()):
            if limit is not None:
                worst[objective] = min(worst[objective], signs[objective] * limit)
        scaled = replace(solved, centre=(solved.centre - low) / span, spread=solved.spread / span)
        return scaled, (taken - low) / span, (worst - low) / span

    def _any_unseen(self, seen: Vectors, random: np.random.Generator) -> Vectors:
        """Return a point that was not sampled; in a space too large to walk through, as far as some draws find one."""
        if np.prod(self._lengths.astype(float)) <= ENUMERABLE:
            points = random.permutation(np.indices(tuple(self._lengths.tolist())).reshape(len(self._lengths), -1).T)
        else:
            points = draw(self._lengths, random, DRAWS)
        new = points[unseen(points, seen)]
        return new[0] if len(new) else points[0]


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution contains a value of a parameter."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, optuna.distributions.IntDistribution | optuna.distributions.FloatDistribution):
        return False
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    number = float(value)
    steps = (number - distribution.low) / distribution.step if distribution.step else 0.0
    return distribution.low <= number <= distribution.high and abs(steps - round(steps)) < 1e-9
