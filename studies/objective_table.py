"""The table ``[objectives]`` of a study file, and the objectives that it asks for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from ..objectives.diversity import Diversity
from ..objectives.memory import Memory
from ..objectives.own import Given, Own
from ..objectives.protocol import About, FurtherObjective
from ..objectives.texture import Texture
from ..objectives.worst_group import WorstGroup
from ..spaces.errors import InputError, nearest
from .limits import parse_limit

IN_MEMORY = "memory:"  # in place of a file: an object that only the process has which made the study
NAME = re.compile("[a-z][a-z0-9_]{0,39}")
DIVERSITY, TEXTURE, WORST_GROUP, MEMORY = Diversity.name, Texture.name, WorstGroup.name, Memory.name
BUILT_IN: Mapping[str, type[Diversity | Texture | WorstGroup | Memory]] = {
    DIVERSITY: Diversity,
    MEMORY: Memory,
    TEXTURE: Texture,
    WORST_GROUP: WorstGroup,
}
OWN = ("function", "maximise", "title", "unit")  # keys of one's own objectives
OF_DIVERSITY = ("neighbours", "features")
THERE = """
    build prediction proposal claim glance agreement quality timing knee size latency psnr plain
    trial candidate sha256 state reason stages reference test front_probability kind label on_front base feasible
    size_bytes speedup speedup_low speedup_high latency_ms latency_low_ms latency_high_ms predicted_speedup
    psnr_db fidelity_db ssim worst_psnr_db drop_db glance_psnr_db glance_fidelity_db agreement_db
    reference_ms reference_drift disturbed float_fallbacks bits integer pruned predicted_memory_bytes
"""  # names of stages, preferences, readings and columns that are there without any
TAKEN = frozenset(THERE.split())
STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)  # of all tables of a study file

Load = Callable[[str, str], Callable[..., Any]]


class ObjectiveTable(BaseModel):
    """``[objectives.NAME]``: a further objective.

    ``front``: whether its value is a further dimension of dominance. ``min``, ``max``: limits of the value; ``max_drop``: by how
    much it may be worse than the reference's; sizes may be texts such as "40MB". ``value``: which of its readings is the value.
    ``neighbours`` and ``features`` belong to diversity. One's own has a ``function``, "measures.py:sharpness", and may have the
    direction, title and unit of what that returns.
    """

    model_config = STRICT

    function: str | None = None
    maximise: bool | None = None
    title: str | None = None
    unit: str | None = None
    value: str | None = None
    neighbours: Annotated[int, Field(ge=1)] | None = None
    features: str | None = None
    front: bool = False
    min: float | None = None
    max: float | None = None
    max_drop: Annotated[float, Field(ge=0.0)] | None = None

    @field_validator("min", "max", "max_drop", mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        try:
            return parse_limit(value, "") if isinstance(value, str) else value
        except InputError as error:
            raise ValueError(str(error).lstrip()) from None  # what is read names the key

    @model_validator(mode="after")
    def _functions(self) -> ObjectiveTable:
        for key in ("function", "features"):
            value = getattr(self, key)
            if value is not None and ".py:" not in value and not value.startswith(IN_MEMORY):
                raise ValueError(f"{key} must be 'measures.py:name', the file and the function, but got {value!r}")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing keeps both")
        return self

    @property
    def functions(self) -> dict[str, str]:
        """The functions that are given, by key."""
        given = {"function": self.function, "features": self.features}
        return {key: source for key, source in given.items() if source is not None}

    @property
    def in_memory(self) -> bool:
        """Whether only the process that made the study can measure it: what it is was given as an object."""
        return any(source.startswith(IN_MEMORY) for source in self.functions.values())

    @property
    def compared(self) -> bool:
        """Whether it counts in dominance: as its value, or by how much it breaks its limits."""
        return self.front or bool(self.limits)

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are given, by kind."""
        given = {"min": self.min, "max": self.max, "max_drop": self.max_drop}
        return {kind: value for kind, value in given.items() if value is not None}


# true, or a table; the tags keep an error to the kind that was written
ObjectiveEntry = Annotated[
    Annotated[bool, Tag("bool")] | Annotated[ObjectiveTable, Tag("table")],
    Discriminator(lambda value: "bool" if isinstance(value, bool) else "table"),
]


def check_objectives(entries: Mapping[str, bool | ObjectiveTable]) -> dict[str, ObjectiveTable]:
    """Return the tables of the objectives that are asked for, by name. Raises `ValueError` for one that cannot be."""
    tables = {
        name: ObjectiveTable() if entry is True else entry
        for name, entry in entries.items()
        if isinstance(entry, ObjectiveTable) or entry
    }
    for name, table in tables.items():
        _check(name, table)
    return tables


def _check(name: str, table: ObjectiveTable) -> None:
    given = table.model_dump(exclude_none=True, exclude_defaults=True)
    if name not in BUILT_IN and table.function is None:
        raise ValueError(
            f"unknown objective {name!r}{nearest(name, BUILT_IN)}: there are {', '.join(BUILT_IN)}; one's own needs a function, "
            f'{name} = {{ function = "measures.py:{name}" }}'
        )
    if name not in BUILT_IN and (not NAME.fullmatch(name) or name in _taken()):
        raise ValueError(
            f"an objective's name is made of small letters, digits and underscores, and is not taken, but got {name!r}"
        )
    allowed = OF_DIVERSITY if name == DIVERSITY else OWN if name not in BUILT_IN else ()
    foreign = [key for key in (*OWN, *OF_DIVERSITY) if key in given and key not in allowed]
    if foreign:
        raise ValueError(
            f"{name} has no key {foreign[0]!r}" + (f"; of its own it has {', '.join(allowed)}" * bool(allowed))
        )
    readings = list(BUILT_IN[name].readings) if name in BUILT_IN else None
    if readings and table.value is not None and table.value not in readings:
        raise ValueError(
            f"{name}.value must be one of {', '.join(readings)}, but got {table.value!r}{nearest(table.value, readings)}"
        )


def _taken() -> set[str]:
    return {*TAKEN, *BUILT_IN, *(reading for kind in BUILT_IN.values() for reading in kind.readings)}


def make_objective(name: str, table: ObjectiveTable, load: Load) -> FurtherObjective:
    """Return the objective that a table asks for.

    Args:
        name: the table's.
        table: checked by `check_objectives`.
        load: returns the function (or the object) that stands for a text such as "measures.py:sharpness"; its second argument is
            the key to name in an error.

    Raises:
        InputError: there is no such file or function.
    """
    key = f"objectives.{name}"
    if name == DIVERSITY:
        features = None if table.features is None else load(table.features, f"{key}.features")
        return Diversity(features=features, **({} if table.neighbours is None else {"neighbours": table.neighbours}))
    if table.function is None:
        made: FurtherObjective = BUILT_IN[name]()
        return made
    found = load(table.function, f"{key}.function")
    about = About(table.title or name.replace("_", " "), table.unit or "", table.maximise is not False)
    made = Given(name, found, about) if hasattr(found, "measure") else Own(name, found, about)
    clash = [reading for reading in made.readings if reading in _taken()]
    if clash:
        raise InputError(f"{key} reads {clash[0]!r}, which something else reads already: give it another name")
    if table.value is not None and table.value not in made.readings:
        raise InputError(f"{key}.value must be one of {', '.join(made.readings)}, but got {table.value!r}")
    return made
