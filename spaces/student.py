"""A student: another architecture for the same input and output, as plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from .errors import InputError, nearest

BLOCKS = ("residual", "plain", "separable")
UPSAMPLINGS = ("shuffle", "resize")
COUNTS = {"coarse": 1, "fine": 1, "width": 1, "fine_width": 1, "depth": 0, "fine_depth": 0}  # and the least of each


@dataclass(frozen=True, order=True)
class Student:
    """The parameters of an architecture (`student_graph` says what they mean for the graph).

    Attributes:
        coarse: how many times smaller than the output, along each axis, the tensors are that most blocks work on.
        fine: likewise, where the last layer works.
        width: channels at the coarse size.
        fine_width: channels at the fine size; between the two they change by equal factors.
        depth: blocks at the coarse size.
        fine_depth: blocks at the fine size, before the last layer.
        block: "residual", x + conv(relu(conv(x))); "plain", relu(conv(relu(conv(x)))); "separable", depthwise convolutions in
            a residual block.
        upsampling: from a size to the next finer one: "shuffle", a 1x1 convolution and depth to space; "resize", a 1x1
            convolution and nearest neighbours.

    Raises:
        InputError: a value that cannot be.
    """

    coarse: int
    fine: int
    width: int
    fine_width: int
    depth: int
    fine_depth: int = 0
    block: str = BLOCKS[0]
    upsampling: str = UPSAMPLINGS[0]

    def __post_init__(self) -> None:
        for name, least in COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"a student's {name} must be a whole number, at least {least}, but got {value!r}")
        for name, allowed in (("block", BLOCKS), ("upsampling", UPSAMPLINGS)):
            value = getattr(self, name)
            if value not in allowed:
                near = nearest(value, allowed) if isinstance(value, str) else ""
                raise InputError(f"a student's {name} must be one of {', '.join(allowed)}, but got {value!r}{near}")
        for name in ("coarse", "fine"):
            value = getattr(self, name)
            if value & (value - 1):
                raise InputError(f"a student's {name} must be a power of 2, but got {value}")
        if self.fine > self.coarse:
            raise InputError(f"a student's fine must be at most its coarse {self.coarse}, but got {self.fine}")

    @property
    def sizes(self) -> list[int]:
        """How many times smaller than the output its tensors are, from coarse to fine."""
        return [self.coarse >> step for step in range((self.coarse // self.fine).bit_length())]

    def channels(self, size: int) -> int:
        """Return the channels at one of its `sizes`."""
        steps = len(self.sizes) - 1
        part = self.sizes.index(size) / steps if steps else 0.0
        return round(self.width ** (1.0 - part) * self.fine_width**part)

    def to_json(self) -> dict[str, Any]:
        """Return the parameters as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Any) -> Student:
        """Read parameters. Raises `InputError` for an unknown or missing key, and for a wrong value."""
        known = [field.name for field in fields(cls)]
        if not isinstance(data, Mapping):
            raise InputError(f"a student must be an object, but got {data!r}")
        for key in data:
            if key not in known:
                raise InputError(f"a student has no key {key!r}{nearest(str(key), known)}; allowed: {', '.join(known)}")
        for key in known[:5]:
            if key not in data:
                raise InputError(f"a student needs the key {key!r}")
        return cls(**data)
