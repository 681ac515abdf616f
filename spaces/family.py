"""The students that a search may choose from: an elastic family that matches the reference's input and output."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from .errors import BuildError, InputError
from .graph import Graph, Port
from .student import Student
from .student_graph import scale_of, student_graph

WIDTHS = (24, 32, 48)
FINE_WIDTHS = (16, 24)
DEPTHS = (2, 3, 4)
LEAST_SIDE = 4  # of the coarse tensors of pictures that are made of noise
MIDDLE = 8  # from this scale on there are two sizes between a decoder's input and what its last layer spreads out


@dataclass(frozen=True)
class Family:
    """What each parameter of a student may be.

    Attributes:
        inputs, output: of the reference.
        coarse, fine, width, fine_width, depth, fine_depth, block, upsampling: values of `Student`'s, from small to large.
    """

    inputs: Port
    output: Port
    coarse: tuple[int, ...]
    fine: tuple[int, ...]
    width: tuple[int, ...] = WIDTHS
    fine_width: tuple[int, ...] = FINE_WIDTHS
    depth: tuple[int, ...] = DEPTHS
    fine_depth: tuple[int, ...] = (0,)
    block: tuple[str, ...] = ("residual",)
    upsampling: tuple[str, ...] = ("shuffle",)

    @cached_property
    def kinds(self) -> list[Student]:
        """The largest student of each combination of sizes, block and upsampling that fits.

        Raises:
            BuildError: none fits.
        """
        largest = Student(1, 1, max(self.width), max(self.fine_width), max(self.depth), max(self.fine_depth))
        found, reason = [], None
        for coarse, fine, block, upsampling in itertools.product(self.coarse, self.fine, self.block, self.upsampling):
            if fine > coarse:
                continue
            kind = replace(largest, coarse=coarse, fine=fine, block=block, upsampling=upsampling)
            kind = replace(kind, fine_width=kind.width) if coarse == fine else kind
            try:
                self.graph_of(kind)
            except BuildError as error:
                reason = error
                continue
            found.append(kind)
        if not found:
            raise reason or BuildError("no student has a fine size that is at most its coarse one")
        return found

    def smallest(self, kind: Student) -> Student:
        """Return the smallest student of a kind."""
        return self._sized(kind, *(min(values) for values in self._free))

    def draw(self, kind: Student, random: np.random.Generator) -> Student:
        """Return a student of a kind."""
        return self._sized(kind, *(int(random.choice(values)) for values in self._free))

    def students(self) -> Iterator[Student]:
        """Yield all students."""
        for kind in self.kinds:
            yield from dict.fromkeys(self._sized(kind, *values) for values in itertools.product(*self._free))

    def graph_of(self, student: Student, weights: Any = None) -> Graph:
        """Return a student's graph; see `student_graph`."""
        return student_graph(student, self.inputs, self.output, weights)

    @property
    def _free(self) -> tuple[tuple[int, ...], ...]:
        return self.width, self.fine_width, self.depth, self.fine_depth

    def _sized(self, kind: Student, width: int, fine_width: int, depth: int, fine_depth: int) -> Student:
        fine_width = width if kind.coarse == kind.fine else fine_width  # they are the same tensors
        return replace(kind, width=width, fine_width=fine_width, depth=depth, fine_depth=fine_depth)


def family_of(reference: Graph, **values: Any) -> Family:
    """Return the family for a reference.

    Args:
        reference: one input or several, of which a student reads the first.
        values: of `Family`'s attributes that are not to be the default, e.g. ``width=(16, 32)``.

    Raises:
        BuildError: the reference's input and output are none that a student can have; both shapes are named.
        InputError: a value that a student cannot have.
    """
    inputs, output = ports_of(reference)
    coarse, fine = _sizes(inputs, output)
    given = {name: tuple(dict.fromkeys(sorted(value))) for name, value in values.items()}
    empty = next((name for name, value in given.items() if not value), None)
    if empty is not None:
        raise InputError(f"students: {empty} must list at least one value")
    family = Family(inputs, output, **{"coarse": (coarse,), "fine": (fine,), **given})
    _ = family.kinds
    return family


def ports_of(reference: Graph) -> tuple[Port, Port]:
    """Return the input and the output that a student has. Raises `BuildError` where the reference has several."""
    for kind, ports in (("read one input", reference.inputs), ("give one output", reference.outputs)):
        if len(ports) > 1:
            names = ", ".join(port.name for port in ports)
            raise BuildError(f"students {kind}, but the model has {len(ports)}: {names}")
    return reference.inputs[0], reference.outputs[0]


def _sizes(inputs: Port, output: Port) -> tuple[int, int]:
    """Return the default coarse and fine sizes, in parts of the output's."""
    scale = scale_of(inputs, output)
    if scale is None:
        coarse = 1
        while all(side % (2 * coarse) == 0 and side // (2 * coarse) >= LEAST_SIDE for side in output.shape[2:]):
            coarse *= 2
        return coarse, min(coarse, 2)
    if scale == 1:
        coarse = next(size for size in (4, 2, 1) if all(side % size == 0 for side in inputs.shape[2:]))
        return coarse, min(coarse, 2)
    return (scale, scale // 4) if scale >= MIDDLE else (scale, scale)
