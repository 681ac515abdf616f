"""LSTM and GRU by the ONNX specification in NumPy, and small models with such layers in ONNX's text form."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

GATES = {"LSTM": 4, "GRU": 3}


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def by_specification(
    op, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None, direction="forward", linear_before_reset=0
) -> tuple[np.ndarray, np.ndarray]:
    """Return Y [steps, D, N, H] and Y_h [D, N, H], in double precision, one sample and one step after the other."""
    steps, batch, _ = x.shape
    directions, _, hidden = r.shape
    rows = GATES[op] * hidden
    y, last = np.zeros((steps, directions, batch, hidden)), np.zeros((directions, batch, hidden))
    for d in range(directions):
        wd, rd = np.float64(w[d]), np.float64(r[d])
        wb, rb = (np.zeros(rows), np.zeros(rows)) if b is None else (np.float64(b[d, :rows]), np.float64(b[d, rows:]))
        pi, po, pf = np.zeros((3, hidden)) if p is None else p[d].reshape(3, hidden)
        for n in range(batch):
            h = np.zeros(hidden) if h0 is None else np.float64(h0[d, n])
            c = np.zeros(hidden) if c0 is None else np.float64(c0[d, n])
            count = steps if lengths is None else int(lengths[n])
            order = range(count)
            for t in order if (d == 0 and direction != "reverse") else reversed(order):
                if op == "LSTM":
                    i, o, f, g = np.split(wd @ x[t, n] + rd @ h + wb + rb, 4)
                    c = sigmoid(f + pf * c) * c + sigmoid(i + pi * c) * np.tanh(g)
                    h = sigmoid(o + po * c) * np.tanh(c)
                else:
                    (wz, wr, wh), (rz, rr, rh) = (np.split(part, 3) for part in (wd @ x[t, n] + wb, rd @ h + rb))
                    z, reset = sigmoid(wz + rz), sigmoid(wr + rr)
                    new = reset * rh if linear_before_reset else rd[2 * hidden :] @ (reset * h) + rb[2 * hidden :]
                    h = (1 - z) * np.tanh(wh + new) + z * h
                y[t, d, n] = h
            last[d, n] = h
    return y, last


class Case(NamedTuple):
    """A model of one recurrent layer.

    Attributes:
        op: LSTM or GRU.
        attributes: of the node.
        inputs: which of B, the lengths, the first states and cells and the peepholes it is given.
        batch: of its input.
    """

    op: str
    attributes: Mapping[str, object] = MappingProxyType({})
    inputs: str = "B"
    batch: int = 1


CASES = {
    "lstm": Case("LSTM"),
    "gru": Case("GRU"),
    "gru that resets behind the product": Case("GRU", {"linear_before_reset": 1}),
    "lstm without biases": Case("LSTM", inputs=""),
    "gru without biases": Case("GRU", inputs="", batch=3),
    "reverse lstm": Case("LSTM", {"direction": "reverse"}, batch=2),
    "reverse gru": Case("GRU", {"direction": "reverse", "linear_before_reset": 1}, "BH"),
    "bidirectional lstm": Case("LSTM", {"direction": "bidirectional"}, "BHC", 4),
    "bidirectional gru": Case("GRU", {"direction": "bidirectional"}, "BH", 4),
    "bidirectional gru that resets behind": Case(
        "GRU", {"direction": "bidirectional", "linear_before_reset": 1}, "B", 2
    ),
    "lstm with peepholes": Case("LSTM", inputs="BP", batch=2),
    "lstm of sequences of several lengths": Case("LSTM", {"direction": "bidirectional"}, "BLHC", 3),
    "gru of sequences of several lengths": Case("GRU", {"direction": "reverse"}, "BLH", 3),
}
STEPS, INPUTS, HIDDEN = 6, 5, 8


def arrays(case: Case, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the node's inputs but the first, by the letters of `Case.inputs` and "W", "R"."""
    random = np.random.default_rng(seed)
    directions = 2 if case.attributes.get("direction") == "bidirectional" else 1
    rows = GATES[case.op] * HIDDEN
    shapes = {
        "W": (directions, rows, INPUTS), "R": (directions, rows, HIDDEN), "B": (directions, 2 * rows),
        "H": (directions, case.batch, HIDDEN), "C": (directions, case.batch, HIDDEN), "P": (directions, 3 * HIDDEN),
    }  # fmt: skip
    found = {
        name: (random.standard_normal(shape) / (2.0 if name in "WR" else 4.0)).astype(np.float32)
        for name, shape in shapes.items()
        if name in "WR" + case.inputs
    }
    if "L" in case.inputs:
        found["L"] = random.integers(1, STEPS + 1, case.batch).astype(np.int32)
    return found


def text(case: Case) -> str:
    """Return the model: the layer named "core", and a Gemm named "head" on its states."""
    attributes = ", ".join(f'{key}="{v}"' if isinstance(v, str) else f"{key}={v}" for key, v in case.attributes.items())
    names = ["x", "W", "R", *(letter if letter in case.inputs else '""' for letter in "BLHCP")]
    names = names[: 6 if case.op == "GRU" else 8]
    while names[-1] == '""':
        names.pop()
    node = f"[core] s = {case.op}<hidden_size={HIDDEN}{', ' if attributes else ''}{attributes}>({', '.join(names)})"
    return (
        f"(float[{STEPS},{case.batch},{INPUTS}] x) => (float[m,o] y) {{ {node}\n"
        f"t = Transpose<perm=[0,2,1,3]>(s)\n u = Reshape(t, flat)\n [head] y = Gemm(u, v, c) }}"
    )


def constants(case: Case) -> dict[str, np.ndarray]:
    """Return all constants of the model."""
    random = np.random.default_rng(1)
    width = HIDDEN * (2 if case.attributes.get("direction") == "bidirectional" else 1)
    head = {
        "v": random.standard_normal((width, 7)).astype(np.float32) / 3,
        "c": np.linspace(-1, 1, 7, dtype=np.float32),
    }
    return arrays(case) | head | {"flat": np.array([-1, width], np.int64)}


def expected(case: Case, x: np.ndarray, changed: dict[str, np.ndarray]) -> np.ndarray:
    """Return the model's output by the specification, with some of its constants changed."""
    values = constants(case) | changed
    inputs = {"B": "b", "L": "lengths", "H": "h0", "C": "c0", "P": "p"}
    given = {inputs[name]: values[name] for name in inputs if name in values}
    y, _ = by_specification(case.op, x, values["W"], values["R"], **given, **case.attributes)
    return y.transpose(0, 2, 1, 3).reshape(-1, len(values["v"])) @ values["v"] + values["c"]
