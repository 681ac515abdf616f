"""LSTM and GRU in PyTorch, step by step, as ONNX writes their equations (operators LSTM-22 and GRU-22)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from . import recurrent

if TYPE_CHECKING:
    import onnx_ir as ir

Function = Callable[[Tensor], Tensor]
State = tuple[Tensor, ...]

FUNCTIONS: Mapping[str, Function] = {"Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu}


class _Direction:
    """One direction of a node: its weights, and what it makes of a step.

    Attributes:
        w, r: weights of inputs and of states, [gates H, I] and [gates H, H].
        bias: both biases, [2, gates H].
        peepholes: of an LSTM, [3, H].
        functions: its activations.
    """

    def __init__(
        self, node: ir.Node, number: int, w: Tensor, r: Tensor, bias: Tensor | None, peepholes: Tensor | None
    ) -> None:
        hidden = r.shape[-1]
        self.w, self.r = w[number], r[number]
        self.bias = self.w.new_zeros(2, len(self.w)) if bias is None else bias[number].reshape(2, -1)
        self.peepholes = self.w.new_zeros(3, hidden) if peepholes is None else peepholes[number].reshape(3, -1)
        count = len(recurrent.DEFAULT_ACTIVATIONS[node.op_type])
        named = recurrent.activations(node)[count * number : count * (number + 1)]
        clip = node.attributes.get_float("clip", 0.0) or 0.0
        self.functions = [_clipped(FUNCTIONS[name.capitalize()], clip) for name in named]
        self.couples = bool(node.attributes.get_int("input_forget", 0))
        self.resets_behind = bool(node.attributes.get_int("linear_before_reset", 0))

    def lstm(self, read: Tensor, state: State) -> State:
        """Return states and cells [N, H] after a step, of what the inputs add to the gates [N, 4 H]."""
        f, g, h = self.functions
        states, cells = state
        i, o, forget, c = (read + states @ self.r.T + self.bias[1]).chunk(4, 1)
        of_i, of_o, of_f = self.peepholes
        i = f(i + of_i * cells)
        forget = 1 - i if self.couples else f(forget + of_f * cells)
        cells = forget * cells + i * g(c)
        return f(o + of_o * cells) * h(cells), cells

    def gru(self, read: Tensor, state: State) -> State:
        """Return the states [N, H] after a step, of what the inputs add to the gates [N, 3 H]."""
        f, g = self.functions
        (states,) = state
        two, hidden = 2 * states.shape[1], states.shape[1]
        before = states @ self.r.T + self.bias[1]  # the whole matrix: LiteRT's converter cannot cut one that is rounded
        update, reset = f(read[:, :two] + before[:, :two]).split(hidden, 1)
        if self.resets_behind:
            candidate = g(read[:, two:] + reset * before[:, two:])
        else:
            candidate = g(read[:, two:] + ((reset * states) @ self.r.T + self.bias[1])[:, two:])
        return ((1 - update) * candidate + update * states,)


def _clipped(function: Function, clip: float) -> Function:
    return (lambda value: function(value.clamp(-clip, clip))) if clip else function


def _over_steps(
    step: Callable[[Tensor, State], State], read: Tensor, state: State, lengths: Tensor | None, backward: bool
) -> tuple[Tensor, State]:
    """Return the states of all steps [steps, N, H], and the last state.

    Args:
        step: what a step makes of a state.
        read: what the inputs add to the gates, [steps, N, gates H].
        state: the first.
        lengths: of the sequences [N]; beyond them states are 0, and the last state is the one before.
        backward: whether it goes from the last step to the first.
    """
    states: list[Tensor] = []
    for number in range(len(read))[:: -1 if backward else 1]:
        after = step(read[number], state)
        if lengths is None:
            states.append(after[0])
            state = after
        else:
            inside = (lengths > number)[:, None]
            states.append(torch.where(inside, after[0], torch.zeros_like(after[0])))
            state = tuple(torch.where(inside, new, old) for new, old in zip(after, state, strict=True))
    return torch.stack(states[::-1] if backward else states), state


def _recurrent(node: ir.Node, *inputs: Tensor | None) -> Sequence[Tensor]:
    """Return all states Y [steps, D, N, H], the last ones [D, N, H] and, of an LSTM, the last cells."""
    given: list[Any] = [*inputs, *[None] * (recurrent.PEEPHOLES + 1 - len(inputs))]
    x, w, r, bias, lengths, *begun = given[: recurrent.CELL + 1]
    kinds = 2 if node.op_type == "LSTM" else 1
    direction = node.attributes.get_string("direction", "forward")
    outputs, lasts = [], []
    for number in range(len(w)):
        own = _Direction(node, number, w, r, bias, given[recurrent.PEEPHOLES] if kinds == 2 else None)
        nothing = x.new_zeros(x.shape[1], r.shape[-1])
        state = tuple(nothing if first is None else first[number] for first in begun[:kinds])
        backward = number == 1 or direction == "reverse"
        read = x @ own.w.T + own.bias[0]
        states, last = _over_steps(own.lstm if kinds == 2 else own.gru, read, state, lengths, backward)
        outputs.append(states)
        lasts.append(last)
    return [torch.stack(outputs, 1), *(torch.stack(parts) for parts in zip(*lasts, strict=True))]


OPS = dict.fromkeys(recurrent.GATES, _recurrent)
