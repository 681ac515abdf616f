"""The frontier sampler for plain Optuna studies, made with a model of what choices cost."""

from __future__ import annotations

from collections.abc import Sequence
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
from .solve import Solved, choose, solve
from .vectors import draw, unseen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Vectors = NDArray[np.int64]

MARGIN = 0.1  # by which the reference point lies beyond the worst values, in parts of their range
LEAST_RANGE = 1e-9  # of an objective that never changes
DRAWS = 1000  # for a point that was not sampled, where the model's front has none left
_ABSENT = object()


class FrontierSampler(BaseSampler):
    """Samples what a cost model, corrected by the trials so far, expects to gain most hypervolume.

    Parameters of the model may be asked for in any way (`suggest_categorical`, `suggest_int`, …) that allows its choices, and
    need not all be asked for in every trial; others are drawn at random. A point is not sampled twice, as long as one is
    left. Trials that break constraints teach the model, but are not on the front.

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
        vector = self._choose(study, trial)
        pairs = zip(self.model.choices.items(), vector.tolist(), strict=True)
        self._chosen[trial.number] = {name: choices[place] for (name, choices), place in pairs}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return what was chosen for a parameter; one that the model does not know is drawn at random."""
        chosen = self._chosen.get(trial.number, {})
        if param_name in chosen and _allows(param_distribution, chosen[param_name]):
            return chosen[param_name]
        return self._others.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Forget what was chosen: the study knows it now."""
        self._others.after_trial(study, trial, state, values)
        self._chosen.pop(trial.number, None)

    def reseed_rng(self) -> None:
        """Draw parameters that the model does not know anew in another process."""
        self._others.reseed_rng()

    def _choose(self, study: Study, trial: FrozenTrial) -> Vectors:
        """Return the vector ``[L]`` that promises most."""
        random = np.random.default_rng([self._seed, trial.number])
        signs = self._signs(study)
        trials = [other for other in study.get_trials(deepcopy=False) if other.number != trial.number]
        finished = [other for other in trials if other.state == TrialState.COMPLETE]
        vectors = self._vectors([other.params for other in finished])
        values = np.array([other.values for other in finished], float).reshape(-1, len(signs)) * signs
        feasible = np.array([all(value <= 0 for value in other.constraints.values()) for other in finished], bool)
        pending, failed = self._unmeasured(trials)
        costs = self.model.fit(vectors, values, signs)
        whole = (vectors >= 0).all(axis=1) & feasible
        starts = (
            vectors[whole][nondominated(in_three(values[whole]))] if whole.any() else draw(self._lengths, random, 1)
        )
        solved = solve(costs, self._lengths, starts, random)
        seen = np.concatenate([vectors, pending, failed])
        seen = seen[(seen >= 0).any(axis=1)]
        taken = np.concatenate([in_three(values[feasible]), costs.predict(pending)])
        worst = self._worst(in_three(values), solved, signs)
        rows = choose(solved, unseen(solved.pool, seen), taken, worst, 1, len(trials))
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
        """Return the vectors of trials that run now, where they are known whole, and of those that failed."""
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        pending = self._vectors([self._chosen.get(trial.number, trial.params) for trial in running])
        failed = [trial.params for trial in trials if trial.state in (TrialState.FAIL, TrialState.PRUNED)]
        return pending[(pending >= 0).all(axis=1)], self._vectors(failed)

    def _vectors(self, params: Sequence[dict[str, Any]]) -> Vectors:
        """Return the places of choices ``[M, L]``; -1 where a parameter is missing, or is none of the model's choices."""
        found = np.full((len(params), len(self._lengths)), -1, np.int64)
        for row, values in zip(found, params, strict=True):
            for axis, (name, places) in enumerate(self._places.items()):
                row[axis] = places.get(values.get(name, _ABSENT), -1)
        return found

    def _worst(self, values: Floats, solved: Solved, signs: Sequence[float]) -> Floats:
        """Return the limits, or, where there are none, what lies beyond the fronts that were measured and are expected."""
        known = np.concatenate([values[nondominated(values)], solved.centre[nondominated(solved.centre)]])
        worst = known.max(axis=0) + MARGIN * np.maximum(np.ptp(known, axis=0), LEAST_RANGE)
        for objective, limit in enumerate(self.limits or ()):
            if limit is not None:
                worst[objective] = min(worst[objective], signs[objective] * limit)
        return np.asarray(worst)

    def _any_unseen(self, seen: Vectors, random: np.random.Generator) -> Vectors:
        """Return a point that was not sampled, as far as some draws find one."""
        drawn = draw(self._lengths, random, DRAWS)
        new = drawn[unseen(drawn, seen)]
        return new[0] if len(new) else drawn[0]


def _allows(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a distribution contains a value of a parameter."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return value in distribution.choices
    if not isinstance(distribution, optuna.distributions.IntDistribution | optuna.distributions.FloatDistribution):
        return False
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not distribution.low <= value <= distribution.high
    ):
        return False
    steps = (value - distribution.low) / distribution.step if distribution.step else 0.0
    return abs(steps - round(steps)) < 1e-9
