"""Objectives of one's own: a function of what is measured, or an object that follows the protocol."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..spaces.errors import BuildError, InputError
from .protocol import About, FurtherObjective, Reading, Subject
from .samples import Samples


class Own:
    """Reads what a function returns.

    Args:
        name: the objective's; its value is read under it as well.
        function: is given the `Subject`; returns a number, or numbers by name with one under the objective's own; the others
            are read under its name and theirs.
        about: the value.
    """

    def __init__(self, name: str, function: Callable[[Subject], Any], about: About) -> None:
        self.name = name
        self.function = function
        self.readings: Mapping[str, About] = {name: about}

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the readings.

        Raises:
            InputError: the function returns something else.
            BuildError: a number is not finite.
        """
        found = self.function(subject)
        values = dict(found) if isinstance(found, Mapping) else {self.name: found}
        if self.name not in values:
            found = ", ".join(map(repr, values))
            raise InputError(
                f"objectives.{self.name}.function must return a number under {self.name!r}, but has {found}"
            )
        units = {name: about.unit for name, about in self.readings.items()}
        how = "measured by the study's own function"
        readings = {
            str(name): Reading(_number(self.name, value), units.get(name, ""), how=how)
            for name, value in values.items()
        }
        return _prefixed(readings, self)


class Given:
    """An object that follows the protocol, under the name that the study gives it.

    Args:
        name: the objective's.
        objective: has ``measure``, as `Objective`; and may have ``readings`` and ``check``, as `FurtherObjective`.
        about: the value, where the object does not tell.
    """

    def __init__(self, name: str, objective: Any, about: About) -> None:
        self.name = name
        self.objective = objective
        self.readings: Mapping[str, About] = dict(getattr(objective, "readings", None) or {name: about})

    def check(self, samples: Samples, where: str) -> None:
        """Let the object say what the samples lack."""
        check = getattr(self.objective, "check", None)
        if check is not None:
            check(samples, where)

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the object's readings.

        Raises:
            InputError: one that it always reads is missing.
            BuildError: as the object's own, or a value that is not finite.
        """
        found = dict(self.objective.measure(subject))
        for name in self.readings:
            if not isinstance(found.get(name), Reading):
                raise InputError(
                    f"objectives.{self.name} must give a Reading {name!r}, but gives {', '.join(found) or 'none'}"
                )
        for reading in found.values():
            _number(self.name, reading.value)
        return _prefixed(found, self)


def _prefixed(readings: Mapping[str, Reading], objective: FurtherObjective) -> dict[str, Reading]:
    """Return readings so that those which nobody announced cannot take the place of another objective's."""
    return {
        name
        if name in objective.readings or name.startswith(f"{objective.name}_")
        else f"{objective.name}_{name}": reading
        for name, reading in readings.items()
    }


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"objectives.{name} must give a number, but got {type(value).__name__}") from None
    if not math.isfinite(number):
        raise BuildError(f"the objective {name} gives a value that is not finite")
    return number
