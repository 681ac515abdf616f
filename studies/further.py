"""The further objectives of a study: made of its tables and the functions that those name, checked, described and saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from ..objectives.protocol import FurtherObjective
from ..objectives.samples import Samples
from ..spaces.cache import content_hash
from ..spaces.errors import InputError
from .criteria import Criterion
from .objective_table import ObjectiveTable, make_objective
from .parts import Parts, copied


class Further:
    """The further objectives of a study.

    Args:
        tables: what the study asks for, by name.
        parts: where the functions come from.
    """

    def __init__(self, tables: Mapping[str, ObjectiveTable], parts: Parts) -> None:
        self.tables = dict(tables)
        self._parts = parts

    @cached_property
    def objectives(self) -> tuple[FurtherObjective, ...]:
        """What is measured. Raises `InputError` where a function is not there."""
        return tuple(map(self._made, self.tables))

    @cached_property
    def criteria(self) -> tuple[Criterion, ...]:
        """What is asked of them. Raises `InputError` as `objectives`."""
        found = tuple(map(Criterion.of, self.objectives, self.tables.values()))
        readings = Counter(reading for criterion in found for reading in criterion.readings)
        for criterion in found:
            twice = [reading for reading in criterion.readings if readings[reading] > 1]
            if twice:
                raise InputError(
                    f"objectives.{criterion.name} reads {twice[0]!r}, as another objective does: name it anew"
                )
        return found

    @property
    def in_memory(self) -> list[str]:
        """The names of those that only this process can measure: what they are was given as an object."""
        return [name for name, table in self.tables.items() if table.in_memory]

    @property
    def definition(self) -> dict[str, Any]:
        """What determines a run's readings, or what is asked of them, by name; functions are known by their file's content.

        Raises:
            InputError: a file cannot be read.
        """
        return {name: self._defined(name, table) for name, table in self.tables.items()}

    def check(self, sets: Mapping[str, Samples]) -> None:
        """Raise `InputError` where an objective asks for what samples do not have; those that are not here ask for nothing.

        Args:
            sets: samples by what they are called.
        """
        for name, table in self.tables.items():
            if all(map(self._parts.holds, table.functions.values())):
                check: Callable[[Samples, str], None] | None = getattr(self._made(name), "check", None)
                if check is not None:
                    for key, samples in sets.items():
                        check(samples, key)

    def files(self, name: str) -> dict[str, str]:
        """Return the functions in files that an objective's table names, by key, with their absolute paths."""
        functions = self.tables[name].functions
        files = {key: (self._parts.file_of(source), source.rpartition(":")[2]) for key, source in functions.items()}
        return {key: f"{file.absolute()}:{function}" for key, (file, function) in files.items() if file is not None}

    def saved(self, folder: Path) -> dict[str, ObjectiveTable]:
        """Copy the files of the functions to a folder; return the tables with their names there, by name.

        Raises:
            InputError: a file cannot be read.
        """
        return {name: table.model_copy(update=self._copied(name, folder)) for name, table in self.tables.items()}

    def _made(self, name: str) -> FurtherObjective:
        return make_objective(name, self.tables[name], self._parts.function)

    def _defined(self, name: str, table: ObjectiveTable) -> dict[str, Any]:
        told = table.model_dump(exclude_defaults=True, exclude={"title"})
        for key, source in self.files(name).items():
            file, _, function = source.rpartition(":")
            try:
                content = Path(file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"objectives.{name}.{key}: {file} cannot be read: {error}") from error
            told[key] = f"{function}, {content_hash(content)[:12]}"
        return told

    def _copied(self, name: str, folder: Path) -> dict[str, str]:
        update = {}
        for key, source in self.files(name).items():
            file, _, function = source.rpartition(":")
            update[key] = f"objective_{name}_{key}.py:{function}"
            copied(Path(file), folder / update[key].rpartition(":")[0], f"objectives.{name}.{key}")
        return update
