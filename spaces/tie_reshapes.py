"""What Reshape and its kin tie and freeze: where axes are merged or split, one factor of them is followed."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir

    from .ties import Ties

Block = tuple[tuple[int, ...], tuple[int, ...]]  # axes of the old shape and of the new one


def _regrouped(ties: Ties, node: ir.Node) -> None:
    if node.op_type == "Reshape":
        ties.told(node, 1)
    x, y = ties.ends(node)
    for block in blocks(ties.shape(x), ties.shape(y)):
        _follow(ties, x, y, block)


def blocks(before: Sequence[int], after: Sequence[int]) -> list[Block]:
    """Return the smallest runs of axes with equal numbers of elements; axes of size 1 are in none of them."""
    result = []
    old = [axis for axis, size in enumerate(before) if size != 1]
    new = [axis for axis, size in enumerate(after) if size != 1]
    while old and new:
        a, b = [old.pop(0)], [new.pop(0)]
        left, right = before[a[0]], after[b[0]]
        while left != right:
            if left < right:
                a.append(old.pop(0))
                left *= before[a[-1]]
            else:
                b.append(new.pop(0))
                right *= after[b[-1]]
        result.append((tuple(a), tuple(b)))
    return result


def factors(before: Sequence[int], after: Sequence[int]) -> list[int] | None:
    """Return the common refinement of two factorisations of a number: (6, 4) and (3, 8) -> [3, 2, 4]; None without one."""
    cuts = sorted({*itertools.accumulate(before, lambda a, b: a * b), *itertools.accumulate(after, lambda a, b: a * b)})
    if any(cut % last for last, cut in itertools.pairwise(cuts)):
        return None
    return [cut // last for last, cut in itertools.pairwise([1, *cuts])]


def _follow(ties: Ties, x: str, y: str, block: Block) -> None:
    """Tie the axes of a block by the factor that is followed, the first one unless it is chosen otherwise."""
    if len(block[0]) == len(block[1]) == 1:
        ties.same_axis(x, block[0][0], y, block[1][0])
        return
    before, after = ([ties.shape(name)[axis] for axis in axes] for name, axes in zip((x, y), block, strict=True))
    pattern = (tuple(before), tuple(after))
    parts = factors(before, after)
    ties.patterns[pattern] = len(parts or ())
    chosen = ties.followed.get(pattern, 0)
    followed = []
    for name, axes, sizes in zip((x, y), block, (before, after), strict=True):
        for axis, owned in zip(axes, _owned(parts, sizes), strict=True):
            units = ties.units(name, axis)
            if parts is None or chosen not in owned:
                ties.freeze(name, (axis,), "regroups them")
            elif len(units):
                split = np.moveaxis(units.reshape([parts[part] for part in owned]), owned.index(chosen), 0)
                followed.append(split.reshape(len(split), -1))
    for rows in followed:
        ties.together(rows)
    if len(followed) == 2:
        ties.tie(followed[0][:, 0], followed[1][:, 0])
    elif followed:
        ties.freeze_units(followed[0], "regroups them")


def _owned(parts: Sequence[int] | None, sizes: Sequence[int]) -> list[list[int]]:
    """Return which of the parts, in their order, each axis is made of."""
    owners: list[list[int]] = []
    numbers = iter(range(len(parts or ())))
    for size in sizes:
        owned: list[int] = []
        while parts is not None and math.prod(parts[part] for part in owned) < size:
            owned.append(next(numbers))
        owners.append(owned)
    return owners


RULES: Mapping[str, Callable[[Any, Any], None]] = dict.fromkeys(
    ("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _regrouped
)
