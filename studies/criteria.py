"""What a run knows of the further objectives: their readings, which way is better, and what is asked of their values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ..objectives.protocol import About, FurtherObjective, Reading
from ..spaces.errors import InputError, nearest
from .limits import Bound, parse_limit

if TYPE_CHECKING:
    from .objective_table import ObjectiveTable


@dataclass(frozen=True)
class Criterion:
    """A further objective of a study, as plain data that a run keeps.

    Attributes:
        name: the objective's, which is the stage of its readings as well.
        value: the name of the reading that is its value.
        readings: what it always reads, by name.
        front: whether its value is a further dimension of dominance.
        limits: of its value, by kind: "min", "max", "max_drop".
    """

    name: str
    value: str
    readings: Mapping[str, About]
    front: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, objective: FurtherObjective, table: ObjectiveTable) -> Criterion:
        """Return what a study's table asks of an objective."""
        readings = dict(objective.readings)
        value = table.value if table.value is not None else next(iter(readings))
        return cls(objective.name, value, readings, table.front, table.limits)

    @property
    def about(self) -> About:
        """What people are told of the value."""
        return self.readings[self.value]

    @property
    def title(self) -> str:
        """The objective's name as a person writes it, for the heads of columns and axes."""
        return self.name.replace("_", " ")

    @property
    def bounds(self) -> tuple[Bound, ...]:
        """The limits of its value."""
        about = self.about
        return tuple(
            Bound(self.value, kind, limit, about.unit, about.maximise, about.title)
            for kind, limit in self.limits.items()
        )

    @property
    def compared(self) -> bool:
        """Whether it counts in dominance: as its value, or by how much it breaks its limits."""
        return self.front or bool(self.limits)

    def coordinate(self, value: float, best: float) -> float:
        """Return what dominance compares, less being better.

        Of an objective that is limited and not on the front that is by how much the limits are broken, so that who keeps
        them is never dominated by one who does not.

        Args:
            value: of a candidate.
            best: of the reference, from which a drop counts.
        """
        if self.front:
            return self.about.minimised(value)
        return sum(max(0.0, float(bound.excess(value, best))) for bound in self.bounds)

    def to_json(self) -> dict[str, Any]:
        """Return the criterion as plain data."""
        readings = {name: asdict(about) for name, about in self.readings.items()}
        return {
            "name": self.name,
            "value": self.value,
            "readings": readings,
            "front": self.front,
            "limits": dict(self.limits),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Criterion:
        """Read what `to_json` wrote."""
        readings = {name: About(**about) for name, about in data["readings"].items()}
        return cls(data["name"], data["value"], readings, data["front"], data["limits"])


def kept_criteria(facts: Mapping[str, Any]) -> tuple[Criterion, ...]:
    """Return the criteria that the facts of a bundle keep."""
    return tuple(Criterion.from_json(entry["criterion"]) for entry in facts.get("objectives", {}).values())


def readings_of(criteria: Iterable[Criterion]) -> dict[str, About]:
    """Return all that further objectives always read, by name."""
    return {name: about for criterion in criteria for name, about in criterion.readings.items()}


def further(criteria: Iterable[Criterion], stages: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Reading]]:
    """Return all readings of further objectives that a trial has, with what each is called.

    What stands before a colon in how one was got is told as well: it names the worst group.

    Args:
        criteria: of the run.
        stages: of the trial, as `Trial` has them.
    """
    found = []
    for criterion in criteria:
        for name, data in stages.get(criterion.name, {}).get("readings", {}).items():
            about, reading = criterion.readings.get(name), Reading.from_json(data)
            words = name.removesuffix("_db").replace("_", " ") if about is None else about.title
            which, colon, _ = reading.how.partition(": ")
            found.append((f"{words} ({which})" if colon else words, reading))
    return found


def explained(criteria: Iterable[Criterion]) -> str:
    """Return what the values of further objectives are, and what is asked of them, as sentences with a space before each."""
    text = ""
    for one in criteria:
        asked = ["on the front"] * one.front + [
            str(bound).removeprefix(one.about.title).strip() for bound in one.bounds
        ]
        what = f": {one.about.explanation}" if one.about.explanation else ""
        text += f" {one.title.capitalize()} is {one.about.title}{what}; {', '.join(asked) or 'shown only'}."
    return text


def abouts(criteria: Iterable[Criterion]) -> dict[str, dict[str, Any]]:
    """Return what is told of the values of further objectives, by reading, as plain data."""
    return {criterion.value: {"name": criterion.name, **asdict(criterion.about)} for criterion in criteria}


def compared(criteria: Iterable[Criterion]) -> tuple[Criterion, ...]:
    """Return those that count in dominance."""
    return tuple(criterion for criterion in criteria if criterion.compared)


def coordinates(
    criteria: Iterable[Criterion], readings: Mapping[str, Reading], best: Mapping[str, float]
) -> tuple[float, ...]:
    """Return what dominance compares of a candidate's further objectives; NaN where a reading is missing.

    Args:
        criteria: that are compared.
        readings: of the candidate, by name.
        best: of the reference, by name.
    """
    return tuple(
        criterion.coordinate(readings[criterion.value].value, best[criterion.value])
        if criterion.value in readings
        else math.nan
        for criterion in criteria
    )


def bounds_of(
    criteria: Sequence[Criterion], least: Mapping[str, float] | None, most: Mapping[str, float] | None
) -> tuple[Bound, ...]:
    """Return limits as flags or a Python call give them.

    Args:
        criteria: of the run.
        least: by the name of an objective or of a reading.
        most: likewise.

    Raises:
        InputError: there is no such objective, or a value is no number.
    """
    found = []
    for kind, limits in (("min", least), ("max", most)):
        for name, limit in (limits or {}).items():
            reading, about = named(criteria, name, f"{kind} {name}")
            if isinstance(limit, str):
                limit = parse_limit(limit, f"{kind} {name}")
            if isinstance(limit, bool) or not isinstance(limit, int | float) or not math.isfinite(limit):
                raise InputError(f"{kind} {name} must be a number, but got {limit!r}")
            found.append(Bound(reading, kind, float(limit), about.unit, about.maximise, about.title))
    return tuple(found)


def named(criteria: Sequence[Criterion], name: str, what: str) -> tuple[str, About]:
    """Return the reading that a name stands for: an objective's value, or a reading itself.

    Raises:
        InputError: the run has neither; ``what`` is said of it.
    """
    for criterion in criteria:
        if name == criterion.name:
            return criterion.value, criterion.about
    readings = readings_of(criteria)
    if name in readings:
        return name, readings[name]
    known = [*(criterion.name for criterion in criteria), *readings]
    if not known:
        raise InputError(f"{what}: the run's study has no [objectives]")
    known = list(dict.fromkeys(known))
    raise InputError(f"{what}: the run has no such objective{nearest(name, known)}; it has {', '.join(known)}")


def limits_of_texts(texts: Iterable[str], flag: str) -> dict[str, float]:
    """Return limits by name, of texts such as "coverage=0.8". Raises `InputError` for another text."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise InputError(f"{flag} must be NAME=VALUE, such as diversity=0.8, but got {text!r}")
        found[name.strip()] = parse_limit(value.strip(), f"{flag} {name.strip()}")
    return found
