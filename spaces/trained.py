"""What training leaves of a candidate: the layers' weights and the grids of activations, as a file that is its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from .candidate import Candidate
from .errors import BuildError, InputError
from .graph import Graph
from .repaired import FloatLayer, RoundedLayer, fields_of
from .rounding import Grid
from .weights import per_channel

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

    def check(self, graph: Graph, candidate: Candidate) -> None:
        """Check that these are weights of a candidate.

        Args:
            graph: with the channels that stay.
            candidate: which bits its layers have.

        Raises:
            BuildError: they are another's; the layer is named.
        """
        for name, layer in graph.layers.items():
            found, choice = self.layers.get(name), candidate.choice(name)
            if isinstance(found, RoundedLayer) and choice.rounded and found.codes.shape == layer.shape:
                grid = Grid(choice.weight_bits)
                steps = (found.codes.astype(np.int16) + per_channel(layer, found.zero)) / grid.step
                on_grid = (steps >= grid.lowest) & (steps <= grid.highest)
                fits = bool((on_grid | (found.codes == 0)).all())  # zeros that are left out of the file are on no grid
            else:
                fits = isinstance(found, FloatLayer) and not choice.rounded and found.weight.shape == layer.shape
            if not fits:
                raise BuildError(f"the trained weights are another candidate's: those of layer {name!r} do not fit")

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
