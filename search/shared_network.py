"""One set of weights for a whole family of students: a smaller one takes the first channels of a larger one's layers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ..spaces.errors import InputError
from ..spaces.family import Family
from ..spaces.graph import Graph
from ..spaces.student import Student
from ..spaces.student_graph import LAST, STEM
from ..spaces.torch_view import TorchView

BRANCH = " 1x1"  # beside a 3x3 convolution while it is trained
THROUGH = " identity"  # likewise


class SharedNetwork(nn.Module):
    """The weights of a family, as parameters by the names that they have in students' graphs.

    Plain blocks are trained with a 1x1 convolution and the identity beside each convolution, and are one convolution in the
    student (Ding et al.: RepVGG, CVPR 2021).

    Args:
        family: whose students share them.
        input_scale: standard deviation of the input: what reads it is learned as for an input of 1.
        output_scale: the output's range, black to white: what writes it is learned as for a range of 1.
        weights: to begin with, by name, as `arrays` gives them; those that are not given are drawn.

    Raises:
        InputError: weights of another family.
    """

    def __init__(
        self,
        family: Family,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        weights: Mapping[str, NDArray] | None = None,
    ) -> None:
        super().__init__()
        self.family = family
        self._views: dict[Student, TorchView] = {}
        self.input_scale, self.output_scale = input_scale, output_scale
        shapes: dict[str, tuple[int, ...]] = {}
        drawn: dict[str, NDArray] = {}
        for kind in family.kinds:
            view = self.view(kind)
            for name, weight in view.weights.items():
                if weight.numel() >= int(np.prod(shapes.get(name, (0,)))):
                    shapes[name], drawn[name] = tuple(weight.shape), weight.detach().numpy()
        for name in [name for name in drawn if _is_plain(name)]:
            outputs, inputs = shapes[name][:2]
            drawn[name + BRANCH] = np.zeros((outputs, inputs, 1, 1), np.float32)
            drawn[name + THROUGH] = np.zeros(outputs, np.float32)
        self._names = {name: f"weight_{number}" for number, name in enumerate(drawn)}
        for name, array in drawn.items():
            given = array if weights is None else self._given(name, array.shape, weights) / self._factor(name)
            self.register_parameter(self._names[name], nn.Parameter(torch.from_numpy(np.array(given, np.float32))))

    def view(self, student: Student) -> TorchView:
        """Return a student's graph in PyTorch; its own weights are not used."""
        if student not in self._views:
            self._views[student] = TorchView(self.family.graph_of(student))
        return self._views[student]

    def forward(self, student: Student, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return what a student gives: the first output.

        Args:
            student: of the family.
            inputs: by name.
        """
        view = self.view(student)
        shapes = {name: tuple(weight.shape) for name, weight in view.weights.items()}

        def edited(name: str, value: Tensor) -> Tensor:
            return self.weight(name, shapes[name]) if name in shapes else value

        return view.values(inputs, edited)[self.family.output.name]

    def weight(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a weight as a student of that shape has it: the first channels along each axis."""
        weight = self._first(name, shape)
        if name + BRANCH in self._names:
            branch = self._first(name + BRANCH, (*shape[:2], 1, 1))
            through = torch.diag(self._first(name + THROUGH, shape[:1]))[:, :, None, None]
            around = [side // 2 for side in shape[:1:-1] for _ in range(2)]
            weight = weight + functional.pad(branch + through, around)
        return weight * self._factor(name)

    def graph_of(self, student: Student) -> Graph:
        """Return a student's graph with its weights."""
        with torch.no_grad():
            weights = {
                name: self.weight(name, tuple(own.shape)).cpu().numpy()
                for name, own in self.view(student).weights.items()
            }
        return self.family.graph_of(student, weights)

    def arrays(self) -> dict[str, NDArray]:
        """Return all weights by name, for inputs and outputs as they are."""
        found = {name: getattr(self, own).detach().cpu().numpy() for name, own in self._names.items()}
        return {name: array * np.float32(self._factor(name)) for name, array in found.items()}

    def _factor(self, name: str) -> float:
        """Return what a parameter is multiplied with to be a weight."""
        if name.startswith(LAST):
            return self.output_scale
        return 1.0 / self.input_scale if name.startswith(STEM) and not name.endswith("bias") else 1.0

    def _first(self, name: str, shape: tuple[int, ...]) -> Tensor:
        whole: Tensor = getattr(self, self._names[name])
        return whole[tuple(slice(side) for side in shape)]

    @staticmethod
    def _given(name: str, shape: tuple[int, ...], weights: Mapping[str, NDArray]) -> NDArray:
        found = weights.get(name)
        if found is None or found.shape != shape:
            has = "has none" if found is None else f"has {list(found.shape)}"
            raise InputError(
                f"the students' weights are another family's: {name!r} must be {list(shape)}, but it {has}"
            )
        return found


def _is_plain(name: str) -> bool:
    return name.endswith(("plain1 weight", "plain2 weight"))
