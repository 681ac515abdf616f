"""Which tensors share memory, against what follows from the order of the kernels alone."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from slimfront.objectives.liveness import buffers, live_bytes, tensor_bytes
from slimfront.spaces.kernel_shapes import FLOAT, Tensor
from slimfront.spaces.kernels import Kernel

SHAPES = [(1, 8), (1, 16), (2, 8), (1, 64)]
OPS = ["Add", "Relu", "Reshape", "Concat"]


def kernel(op: str, inputs: list[tuple[str, tuple[int, ...]]], name: str, shape: tuple[int, ...]) -> Kernel:
    return Kernel(
        node=name,
        output=name,
        op=op,
        inputs=tuple(Tensor(FLOAT, each) for _, each in inputs),
        outputs=(Tensor(FLOAT, shape),),
        constants=(False,) * len(inputs),
        attributes=(),
        input_names=tuple(each for each, _ in inputs),
        output_names=(name,),
    )


@st.composite
def graphs(draw: st.DrawFn, ops: list[str]) -> tuple[list[Kernel], list[str]]:
    """Kernels in a row, each reading one or two tensors that are there, and the tensors that the model gives out."""
    there, kernels = [("x", (1, 16))], []
    for number in range(draw(st.integers(1, 14))):
        op = draw(st.sampled_from(ops))
        read = [draw(st.sampled_from(there)) for _ in range(draw(st.integers(1, 2)) if op in ("Add", "Concat") else 1)]
        size = [s for s in SHAPES if s[0] * s[1] == read[0][1][0] * read[0][1][1]]
        shape = read[0][1] if op == "Relu" else draw(st.sampled_from(size if op == "Reshape" else SHAPES))
        kernels.append(kernel(op, read, f"t{number}", shape))
        there.append((f"t{number}", shape))
    names = [name for name, _ in there[1:]]
    read_names = {name for each in kernels for name in each.input_names}
    outputs = {name for name in names if name not in read_names} | {draw(st.sampled_from(names))}
    return kernels, sorted(outputs)


def lifetimes(kernels: list[Kernel], outputs: list[str]) -> dict[str, tuple[int, int]]:
    """By tensor, the kernel that writes it and the last one that reads it, or the end of the model."""
    found = {}
    for step, each in enumerate(kernels):
        reads = [at for at, other in enumerate(kernels) if each.output in other.input_names]
        found[each.output] = step, len(kernels) - 1 if each.output in outputs else max(reads, default=step)
    return found


@given(graphs(["Concat"]))
def test_without_anything_to_share_what_is_alive_is_each_tensor_from_its_kernel_to_its_last_reader(graph):
    kernels, outputs = graph
    for number, each in enumerate(kernels):  # a shape of its own for each: none fits into what another left
        kernels[number] = kernel(each.op, [(n, (1, 1)) for n in each.input_names], each.output, (1, 100 + number))
    sizes = {each.output: tensor_bytes(each.outputs[0]) for each in kernels}
    lives = lifetimes(kernels, outputs)
    expected = [
        sum(sizes[name] for name, (first, last) in lives.items() if first <= step <= last)
        for step in range(len(kernels))
    ]
    assert live_bytes(buffers(kernels, outputs), len(kernels)) == expected


@given(graphs(OPS))
def test_no_tensor_is_written_over_while_it_is_still_read(graph):
    kernels, outputs = graph
    lives, by_name = lifetimes(kernels, outputs), {each.output: each for each in kernels}

    def source(name: str) -> str:
        """The tensor that a view shows; what the model gives out is a copy."""
        while name in by_name and by_name[name].op == "Reshape" and name not in outputs:
            name = by_name[name].input_names[0]
        return name

    ends: dict[str, int] = {}  # of what a tensor and all views of it hold
    for name, (_, last) in lives.items():
        ends[source(name)] = max(ends.get(source(name), 0), last)
    for buffer in buffers(kernels, outputs):
        own = list(dict.fromkeys(source(name) for name in buffer.tensors))
        for earlier, later in itertools.pairwise(own):
            first = lives[later][0]
            over = by_name[later].op == "Relu" and source(by_name[later].input_names[0]) == earlier
            assert ends[earlier] < first or (over and ends[earlier] == first)
        assert buffer.first == lives[own[0]][0]
        assert buffer.last >= ends[own[-1]]


@given(graphs(OPS))
def test_all_that_is_computed_lies_somewhere_and_sharing_never_takes_more(graph):
    kernels, outputs = graph
    found = buffers(kernels, outputs)
    views = {each.output for each in kernels if each.op == "Reshape"}
    held = [name for buffer in found for name in buffer.tensors]
    assert len(held) == len(set(held))
    assert {each.output for each in kernels} - views <= set(held)
    apart = 0
    for step in range(len(kernels)):
        lives = lifetimes(kernels, outputs)
        at = sum(tensor_bytes(e.outputs[0]) for e in kernels if lives[e.output][0] <= step <= lives[e.output][1])
        apart = max(apart, at)
    most_of_view = 64 * 4 * len(views)  # a view keeps what it shows alive
    assert max(live_bytes(found, len(kernels))) <= apart + most_of_view


def test_an_output_of_the_model_shares_with_nobody_and_stays():
    first = kernel("Relu", [("x", (1, 16))], "a", (1, 16))
    second = kernel("Relu", [("a", (1, 16))], "b", (1, 16))
    third = kernel("Relu", [("b", (1, 16))], "c", (1, 16))
    found = buffers([first, second, third], ["b", "c"])
    assert [buffer.tensors for buffer in found] == [["a"], ["b"], ["c"]]
    assert [(buffer.first, buffer.last, buffer.is_output) for buffer in found] == [
        (0, 1, False),
        (1, 2, True),
        (2, 2, True),
    ]
