"""LSTM and GRU in PyTorch, step by step, as ONNX writes their equations (operators LSTM-22 and GRU-22)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from . import recurrent

if TYPE_CHECKING:
    import onnx_ir as ir

Function = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]
Weights = Tensor | Sequence[Tensor]  # [D, O, I], or a matrix for each direction

FUNCTIONS: Mapping[str, Function] = {"Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu}


class _Direction:
    """One direction of a node: its weights, and what it makes of a step.

    A step is one of few whole ops, on tensors [1, N, ...]: what converts it for a small device meets it once for each step.

    Attributes:
        w, r: weights of inputs and of states, [gates H, I] and [gates H, H].
        bias: what is added to the gates [gates H] outside the steps, and within each; None where nothing is.
        peepholes: of an LSTM, [3, H]; None where it has none.
        functions: its activations.
    """

    def __init__(
        self, node: ir.Node, number: int, w: Weights, r: Weights, bias: Tensor | None, peepholes: Tensor | None
    ) -> None:
        self.w, self.r = w[number], r[number]
        self.hidden = self.r.shape[-1]
        self.bias: tuple[Tensor | None, Tensor | None] = (None, None)
        if bias is not None:
            outside, within = bias[number].chunk(2)
            self.bias = (outside, within) if node.op_type == "GRU" else (outside + within, None)
        self.peepholes = None if peepholes is None else peepholes[number].reshape(3, -1)
        count = len(recurrent.DEFAULT_ACTIVATIONS[node.op_type])
        named = recurrent.activations(node)[count * number : count * (number + 1)]
        clip = node.attributes.get_float("clip", 0.0) or 0.0
        self.functions = [_clipped(FUNCTIONS[name.capitalize()], clip) for name in named]
        self.couples = bool(node.attributes.get_int("input_forget", 0))
        self.resets_behind = bool(node.attributes.get_int("linear_before_reset", 0))

    def read(self, x: Tensor) -> Tensor:
        """Return what the inputs of all steps [steps, N, I] add to the gates [steps, N, gates H]."""
        read = functional.linear(x, self.w)
        return read if self.bias[0] is None else read + self.bias[0]

    def lstm(self, read: Tensor, state: State) -> State:
        """Return states and cells [1, N, H] after a step, of what the inputs add to the gates [1, N, 4 H]."""
        f, g, h = self.functions
        states, cells = state
        i, o, forget, c = self._gates(read + self._of_states(states))
        if self.peepholes is not None:
            i, forget = i + self.peepholes[0] * cells, forget + self.peepholes[2] * cells
        i = f(i)
        forget = 1 - i if self.couples else f(forget)
        cells = forget * cells + i * g(c)
        o = o if self.peepholes is None else o + self.peepholes[1] * cells
        return f(o) * h(cells), cells

    def gru(self, read: Tensor, state: State) -> State:
        """Return the states [1, N, H] after a step, of what the inputs add to the gates [1, N, 3 H]."""
        f, g = self.functions
        (states,) = state
        *read_gates, read_new = self._gates(read)
        *before, new = self._gates(self._of_states(states))
        update, reset = (f(one + other) for one, other in zip(read_gates, before, strict=True))
        # the whole matrix in either case: LiteRT's converter cannot cut one that is rounded
        new = reset * new if self.resets_behind else self._gates(self._of_states(reset * states))[2]
        return ((1 - update) * g(read_new + new) + update * states,)

    def _of_states(self, states: Tensor) -> Tensor:
        found = functional.linear(states, self.r)
        return found if self.bias[1] is None else found + self.bias[1]

    def _gates(self, value: Tensor) -> list[Tensor]:
        """Cut all gates apart: slices, as ExecuTorch runs them in XNNPACK and no other way of cutting."""
        return [value.narrow(-1, first, self.hidden) for first in range(0, value.shape[-1], self.hidden)]


def _clipped(function: Function, clip: float) -> Function:
    return (lambda value: function(value.clamp(-clip, clip))) if clip else function


def _over_steps(
    step: Callable[[Tensor, State], State], read: Tensor, state: State, lengths: Tensor | None, backward: bool
) -> tuple[Tensor, State]:
    """Return the states of all steps [steps, N, H], and the last state [1, N, H].

    Args:
        step: what a step makes of a state.
        read: what the inputs add to the gates, [steps, N, gates H].
        state: the first, [1, N, H].
        lengths: of the sequences [N]; beyond them states are 0, and the last state is the one before.
        backward: whether it goes from the last step to the first.
    """
    states: list[Tensor] = []
    for number in range(len(read))[:: -1 if backward else 1]:
        after = step(read.narrow(0, number, 1), state)
        if lengths is None:
            states.append(after[0])
            state = after
        else:
            inside = (lengths > number)[:, None]
            states.append(torch.where(inside, after[0], torch.zeros_like(after[0])))
            state = tuple(torch.where(inside, new, old) for new, old in zip(after, state, strict=True))
    return torch.cat(states[::-1] if backward else states), state


def _recurrent(node: ir.Node, *inputs: Tensor | Weights | None) -> Sequence[Tensor]:
    """Return all states Y [steps, D, N, H], the last ones [D, N, H] and, of an LSTM, the last cells."""
    given: list[Any] = [*inputs, *[None] * (recurrent.PEEPHOLES + 1 - len(inputs))]
    x, w, r, bias, lengths, *begun = given[: recurrent.CELL + 1]
    kinds = 2 if node.op_type == "LSTM" else 1
    direction = node.attributes.get_string("direction", "forward")
    outputs, lasts = [], []
    for number in range(len(w)):
        own = _Direction(node, number, w, r, bias, given[recurrent.PEEPHOLES] if kinds == 2 else None)
        nothing = x.new_zeros(1, x.shape[1], own.hidden)
        state = tuple(nothing if first is None else first.narrow(0, number, 1) for first in begun[:kinds])
        backward = number == 1 or direction == "reverse"
        step = own.lstm if kinds == 2 else own.gru
        states, last = _over_steps(step, own.read(x), state, lengths, backward)
        outputs.append(states)
        lasts.append(last)
    return [torch.stack(outputs, 1), *(torch.cat(parts) for parts in zip(*lasts, strict=True))]


OPS = dict.fromkeys(recurrent.GATES, _recurrent)
