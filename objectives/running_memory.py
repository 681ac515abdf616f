"""The memory that ONNX Runtime takes for tensors while a model is opened and run: a rehearsal of its arena."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..spaces.kernels import Kernel
from .arena import Arena, Pattern
from .liveness import Buffer, buffers
from .workspaces import packed_bytes, workspace_bytes

RUNS = 3  # the second run lays its buffers out anew; what follows repeats it


@dataclass(frozen=True)
class Rehearsal:
    """What the arena has taken.

    Attributes:
        opened_bytes: when the file is opened: packed weights.
        run_bytes: after each run.
        buffers: of the model.
    """

    opened_bytes: int
    run_bytes: tuple[int, ...]
    buffers: tuple[Buffer, ...]


def rehearse(kernels: Sequence[Kernel], outputs: Sequence[str]) -> Rehearsal:
    """Return what the arena takes for a model of these kernels, in the order in which they run.

    Args:
        kernels: of the graph that ONNX Runtime made of a file, shapes known.
        outputs: names of the tensors that the model gives out; they are let go before it is run again.
    """
    found = buffers(kernels, outputs)
    arena = Arena()
    for kernel in kernels:
        for size in packed_bytes(kernel):
            arena.take(size)
    opened = arena.bytes
    pattern = _first_run(arena, kernels, found)
    after = [arena.bytes]
    for _ in range(1, RUNS):
        _later_run(arena, pattern, kernels, found)
        after.append(arena.bytes)
    return Rehearsal(opened, tuple(after), tuple(found))


def _first_run(arena: Arena, kernels: Sequence[Kernel], found: Sequence[Buffer]) -> Pattern:
    """Take each buffer on its own, and note where it will lie later."""
    pattern, taken = Pattern(), {}
    for step, kernel in enumerate(kernels):
        for number, buffer in enumerate(found):
            if buffer.first == step:
                taken[number] = arena.take(buffer.size)
                if not buffer.is_output:
                    pattern.take(number, buffer.size)
        _work(arena, kernel)
        for number, buffer in enumerate(found):
            if buffer.last == step and not buffer.is_output:
                arena.give_back(taken.pop(number))
                pattern.give_back(number)
    for rest in taken.values():
        arena.give_back(rest)
    return pattern


def _later_run(arena: Arena, pattern: Pattern, kernels: Sequence[Kernel], found: Sequence[Buffer]) -> None:
    """Take one block for all buffers but the outputs."""
    block, outputs = arena.take(pattern.bytes), []
    for step, kernel in enumerate(kernels):
        outputs += [arena.take(buffer.size) for buffer in found if buffer.is_output and buffer.first == step]
        _work(arena, kernel)
    arena.give_back(block)
    for output in outputs:
        arena.give_back(output)


def _work(arena: Arena, kernel: Kernel) -> None:
    for chunk in reversed([arena.take(size) for size in workspace_bytes(kernel)]):
        arena.give_back(chunk)
