"""A candidate as a PyTorch module that can be trained: its channels, its zeros and its grids stay, their values are learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .candidate import DYNAMIC
from .fake_quantise import on_own_grid, rounded_tensor, rounded_weight, stored_in_16_bits
from .recurrent import B, given
from .repaired import FloatLayer, RoundedLayer
from .rounding import Grid
from .torch_view import TorchView
from .trained import Trained
from .weights import per_channel

if TYPE_CHECKING:
    from .candidate import LayerChoice
    from .graph import Graph, Layer
    from .lowering import Lowering

LEAST_SCALE = 1e-12
HALF = 16  # bits of a float weight that is stored so
STEPS = 4.0  # of the grid, that count in a weight's unit as much as its root mean square,
MOST = 1.0  # up to so many times that: grids of two bits are not trained yet faster


class Trainee(nn.Module):
    """A candidate in PyTorch, rounded as its file is.

    Weights behind grids and biases are parameters, and so are the steps of the grids, of weights and of activations. What
    only ONNX Runtime does (the rounding of sums, of biases to whole numbers) is not imitated.

    Args:
        lowering: of the candidate, not yet run: it says what is rounded and where.

    Raises:
        BuildError: an op has no form in PyTorch here; it is named.
    """

    def __init__(self, lowering: Lowering) -> None:
        super().__init__()
        lowering.run()
        graph, candidate = lowering.graph, lowering.candidate
        self.view = TorchView(graph)
        for weight in self.view.weights.values():
            weight.requires_grad_(False)  # normalisations and biases stay: what layers add to them is learned
        self.layers = nn.ModuleDict()
        self._by_weight: dict[str, _Layer] = {}
        self._by_output: dict[str, _Layer] = {}
        self._by_bias: dict[str, _Layer] = {}
        written = {node.name: node.outputs[0].name or "" for node in graph.model.graph}
        biases = {node.name: value.name or "" for node in graph.model.graph if (value := given(node, B)) is not None}
        for number, layer in enumerate(graph.layers.values()):
            choice = candidate.choice(layer.name)
            found = lowering.rounded(layer.name) if choice.rounded else lowering.refitted.get(layer.name)
            learned = _Layer(graph, layer, choice, found)
            self.layers[str(number)] = learned
            self._by_weight[layer.weight] = learned
            if layer.recurrent:
                self._by_bias |= {biases[node]: learned for node in layer.nodes}
            else:
                self._by_output |= {written[node]: learned for node in layer.nodes}
        self._integer = lowering.integer
        nodes = {node.name: node for node in graph.model.graph}
        dynamic = [name for name, choice in candidate.layers.items() if choice.form == DYNAMIC]
        of = [node for name in dynamic for node in graph.layers[name].nodes]
        self._dynamic = {node: value.name for node in of if (value := nodes[node].inputs[0]) is not None}
        self._whole = lowering.whole
        self.grids = nn.ModuleDict()
        self._by_tensor: dict[str, _Tensor] = {}
        shared: dict[str, _Tensor] = {}
        for tensor, (scale, zero) in lowering.grids.items():
            name = lowering.grid_name(tensor)
            if name not in shared:
                self.grids[str(len(shared))] = shared[name] = _Tensor(scale, zero)
            self._by_tensor[tensor] = shared[name]

    @property
    def graph(self) -> Graph:
        """The candidate's graph in float, with the channels that stay."""
        return self.view.graph

    def forward(self, *arrays: Tensor, **inputs: Tensor) -> Tensor:
        """Return the first output.

        Args:
            arrays: a tensor for each of the model's inputs, in their order,
            inputs: or by their names.
        """
        names = [port.name for port in self.graph.inputs]
        return self.values({**dict(zip(names, arrays, strict=False)), **inputs})[self.graph.outputs[0].name]

    def values(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all tensors of the graph, by name, rounded where the candidate's file rounds them."""
        return self.view.values(inputs, self._edited, self._read)

    def _edited(self, name: str, value: Tensor) -> Tensor:
        if name in self._by_weight:
            return self._by_weight[name].rounded()
        if name in self._by_bias:
            return self._by_bias[name].added(value)
        if name in self._by_output:
            value = self._by_output[name].shifted(value)
        return self._by_tensor[name].rounded(value) if name in self._whole else value

    def _read(self, node: str, name: str, value: Tensor) -> Tensor:
        """Return what a node reads: of a tensor that is known in float as well, only nodes in integers read the integers.

        A layer in the form "dynamic" reads its inputs on the grid that they span.
        """
        if self._dynamic.get(node) == name:
            return on_own_grid(value)
        tensor = self._by_tensor.get(name) if node in self._integer and name not in self._whole else None
        return value if tensor is None else tensor.rounded(value)

    def trained(self) -> Trained:
        """Return what the parameters are now, as a build takes it."""
        layers = {layer.layer.name: layer.found() for layer in self._by_weight.values()}
        return Trained(layers, {name: tensor.grid() for name, tensor in self._by_tensor.items()})


class _Layer(nn.Module):
    """A layer's weight and what is added to its outputs, as parameters in units of the weight's root mean square and its grid.

    So one learning rate suits layers whose weights are large or small, of any network, and coarse grids as well, on which a
    weight that has hardly moved is rounded as before.

    Args:
        graph: with the layer's weight in float, and its bias.
        layer: of the graph.
        choice: of its bits and zeros.
        found: what repair, or training, has made of it; None where it is as it came.
    """

    mask: Tensor | None
    channels: Tensor
    zero: Tensor

    def __init__(
        self, graph: Graph, layer: Layer, choice: LayerChoice, found: RoundedLayer | FloatLayer | None
    ) -> None:
        super().__init__()
        self.layer = layer
        self.bits = choice.weight_bits
        self.grid = Grid(choice.weight_bits) if choice.rounded else None
        rounded = found if isinstance(found, RoundedLayer) else None
        weight = graph.weight(layer) if rounded is None else rounded.codes * per_channel(layer, rounded.scale)
        size = _root_mean_square(weight) or 1.0
        self.unit = size if rounded is None else size + min(STEPS * _root_mean_square(rounded.scale), MOST * size)
        self.weight = nn.Parameter(torch.from_numpy(np.array(weight / self.unit, np.float32)))
        nothing = np.zeros(layer.channels, np.float32)
        begun = nothing if rounded is None else rounded.shift
        shift = torch.from_numpy(np.array(begun / self.unit, np.float32))
        self.shift = nn.Parameter(shift, requires_grad=layer.op != "MatMul")
        self.shifted_before = found.shift if isinstance(found, FloatLayer) else nothing  # the graph's bias holds it
        self.register_buffer("channels", torch.from_numpy(per_channel(layer, np.arange(layer.channels)).copy()))
        self.register_buffer("mask", (self.weight.detach() != 0) if choice.sparsity else None)
        if rounded is not None:
            self.log_scale = nn.Parameter(torch.from_numpy(np.log(np.maximum(rounded.scale, LEAST_SCALE))))
            self.register_buffer("zero", torch.from_numpy(np.array(rounded.zero)))

    def rounded(self) -> Tensor:
        """Return the weight as it is stored."""
        weight = self.weight * self.unit
        if self.grid is not None:
            scale, zero = self._per_channel(self.log_scale.exp()), self._per_channel(self.zero)
            weight = rounded_weight(weight, scale, zero, self.grid)
        elif self.bits == HALF:
            weight = stored_in_16_bits(weight)
        return weight if self.mask is None else weight * self.mask

    def shifted(self, value: Tensor) -> Tensor:
        """Return the layer's outputs with what is added to the bias."""
        if self.layer.op == "MatMul":
            return value
        return value + self.unit * self.shift.reshape([-1 if axis == 1 else 1 for axis in range(value.ndim)])

    def added(self, bias: Tensor) -> Tensor:
        """Return the bias of an LSTM's or GRU's node with what is added to the sums (`recurrent.padded`)."""
        rows = self.unit * self.shift.reshape(self.layer.shape[:2])
        return bias + torch.cat([rows, torch.zeros_like(rows)], 1)

    def found(self) -> RoundedLayer | FloatLayer:
        """Return the layer as a build takes it."""
        with torch.no_grad():
            shift = (self.unit * self.shift).cpu().numpy()
            if self.grid is None:
                return FloatLayer(self.rounded().cpu().numpy().copy(), shift + self.shifted_before)
            scale = self.log_scale.exp()
            codes = torch.round(self.rounded() / self._per_channel(scale)).to(torch.int8)
            return RoundedLayer(codes.cpu().numpy(), scale.cpu().numpy(), self.zero.cpu().numpy(), shift)

    def _per_channel(self, values: Tensor) -> Tensor:
        """Return a value for each output channel ``[O]`` so that it can be multiplied with the weight."""
        return values[self.channels]


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))


class _Tensor(nn.Module):
    """The grid of a tensor."""

    def __init__(self, scale: float, zero: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(scale)), dtype=torch.float32))
        self.zero = zero

    def rounded(self, value: Tensor) -> Tensor:
        """Return the tensor on its grid."""
        return rounded_tensor(value, self.log_scale.exp(), self.zero)

    def grid(self) -> tuple[float, int]:
        """Scale and zero point."""
        return float(np.float32(self.log_scale.detach().exp().item())), self.zero
