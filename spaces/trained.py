"""What training leaves of a candidate: the layers' weights and the grids of activations, as a file that is its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .errors import InputError
from .repaired import FloatLayer, RoundedLayer, fields_of

GRID = "grid"  # of a tensor: its scale and zero point
BETWEEN = ":"  # a field's name, then that of the layer or tensor


@dataclass(frozen=True)
class Trained:
    """Trained weights of one candidate.

    Attributes:
        layers: by layer name, in the shapes that the candidate's pruning leaves: rounded as its bits say, or in float.
        grids: by name of a captured tensor that is quantised, its scale and zero point.
    """

    layers: Mapping[str, RoundedLayer | FloatLayer]
    grids: Mapping[str, tuple[float, int]] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the weights as a safetensors file; equal weights give equal bytes."""
        from safetensors.numpy import save

        arrays = {
            f"{name}{BETWEEN}{layer}": np.ascontiguousarray(array)
            for layer, found in self.layers.items()
            for name, array in fields_of(found).items()
        }
        arrays |= {f"{GRID}{BETWEEN}{tensor}": np.array(grid, np.float64) for tensor, grid in self.grids.items()}
        return save(dict(sorted(arrays.items())))

    @classmethod
    def from_bytes(cls, data: bytes) -> Trained:
        """Read what `to_bytes` wrote.

        Raises:
            InputError: it is something else.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            arrays = load(data)
            found: dict[str, dict[str, np.ndarray]] = {}
            for key, array in arrays.items():
                name, owner = key.split(BETWEEN, 1)
                found.setdefault(owner if name != GRID else GRID + BETWEEN + owner, {})[name] = array
            grids = {
                owner.removeprefix(GRID + BETWEEN): (float(own[GRID][0]), int(own[GRID][1]))
                for owner, own in found.items()
                if GRID in own
            }
            layers = {
                owner: (RoundedLayer if "codes" in own else FloatLayer)(**own)
                for owner, own in found.items()
                if GRID not in own
            }
        except (SafetensorError, ValueError, TypeError) as error:
            raise InputError(f"these are no trained weights of slimfront's: {error}") from error
        return cls(layers, grids)


def content_id(data: bytes) -> str:
    """Return the name of trained weights, as a candidate writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
