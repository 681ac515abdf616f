"""Inputs of a packed file, whose shapes are fixed and whose names are not the study's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...spaces.errors import BuildError


@dataclass(frozen=True)
class Port:
    """An input of a file.

    Attributes:
        shape: the only one that it takes.
        dtype: that it is read in.
    """

    shape: tuple[int, ...]
    dtype: np.dtype


def in_order(ports: Sequence[Port], feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Return the arrays of a feed in the order of a file's inputs, which is the alphabetical one of the study's names.

    Args:
        ports: the file's inputs.
        feed: arrays by the study's input names; they are cast to what the file reads.

    Raises:
        BuildError: there are more or fewer, or one has another shape.
    """
    names = sorted(feed)
    if len(names) != len(ports):
        raise BuildError(f"the file has {len(ports)} inputs, but was fed {len(names)}: {', '.join(names) or 'none'}")
    for name, port in zip(names, ports, strict=True):
        shape = np.shape(feed[name])
        if shape != port.shape:
            raise BuildError(
                f"the file was made for input {name!r} of shape {list(port.shape)}, but was fed {list(shape)}: "
                "pack the model again for that shape"
            )
    return [np.require(feed[name], port.dtype, "C") for name, port in zip(names, ports, strict=True)]
