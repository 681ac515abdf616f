"""What measurements on a machine say of a layer's choices: they shape what a space offers, never a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class FormOffer:
    """A form that is worth its bytes.

    Attributes:
        size: its weights, in parts of the native form's; above 1.
        times: by activation bits (8, 32), its time in parts of the native form's, where it is faster; of "dynamic" in parts of
            the native form's in float.
    """

    size: float
    times: Mapping[int, float]


@dataclass(frozen=True)
class Offer:
    """What is worth offering of a layer.

    Attributes:
        integer: whether integer arithmetic can pay; where it cannot, few bits go with float arithmetic only.
        forms: by name, those that are faster than the native one.
    """

    integer: bool = True
    forms: Mapping[str, FormOffer] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Offer:
        """Read what `to_json` gave, from a file too, where activation bits are texts."""
        forms = {
            name: FormOffer(float(form["size"]), {int(bits): float(time) for bits, time in form["times"].items()})
            for name, form in data["forms"].items()
        }
        return cls(bool(data["integer"]), forms)
