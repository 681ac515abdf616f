"""Inner features: what a candidate's layers give is compared with what the same layers of the whole network give.

Romero et al.: FitNets (ICLR 2015). No layer has to be fitted between the two: which channels stay is known, and a candidate is
made of a graph that computes what the reference does with the same names.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..spaces.torch_view import TorchView
from .distillation import Distillation, Drawn, Feed
from .losses import Loss
from .training import device

if TYPE_CHECKING:
    from torch import Tensor

    from ..spaces.graph import Graph
    from ..spaces.narrow import Removed
    from ..spaces.trainee import Trainee

LEAST_SPREAD = 1e-6  # of a tensor that is compared: its variance in parts of its mean square


class Features:
    """The inner tensors that layers write.

    Args:
        graph: that a candidate is made from, in float, with all its channels (`Builder.graph_of`).
        removed: the entries of each axis that the candidate lacks (`Builder.removed`).

    Raises:
        BuildError: an op has no form in PyTorch here; it is named.
    """

    def __init__(self, graph: Graph, removed: Removed) -> None:
        self.whole = TorchView(graph).to(device())
        outputs = {port.name for port in graph.outputs}
        written = {node.name: node.outputs[0].name or "" for node in graph.model.graph}
        names = [written[node] for layer in graph.layers.values() for node in layer.nodes]
        self.names = [name for name in dict.fromkeys(names) if name not in outputs]
        self._removed = {slot: entries for slot, entries in removed.items() if slot[0] in self.names}

    def __getstate__(self) -> dict[str, Any]:
        """Return what is sent to another process, which may have another device."""
        return {**vars(self), "whole": copy.deepcopy(self.whole).cpu()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.whole = self.whole.to(device())

    def error(self, feed: Feed, found: Mapping[str, Tensor]) -> Tensor:
        """Return the squared error of the candidate's tensors, in parts of their variance, in the mean over tensors.

        Tensors that are constant have none.

        Args:
            feed: inputs by name.
            found: the candidate's tensors by name.
        """
        with torch.no_grad():
            whole = self.whole.values(feed)
        errors = []
        for name in self.names:
            if name in found:
                wanted = self._kept(name, whole[name])
                spread = wanted.var(correction=0)
                if float(spread) > LEAST_SPREAD * float(wanted.square().mean()):
                    errors.append((found[name] - wanted).square().mean() / spread)
        return torch.stack(errors).mean() if errors else next(iter(found.values())).new_zeros(())

    def _kept(self, name: str, tensor: Tensor) -> Tensor:
        for (own, axis), entries in self._removed.items():
            if own == name:
                stays = np.setdiff1d(np.arange(tensor.shape[axis]), entries)
                tensor = tensor.index_select(axis, torch.from_numpy(stays).to(tensor.device))
        return tensor


class FeatureDistillation(Distillation["Trainee"]):
    """The lesson of a candidate that learns inner features, too.

    Args:
        student, graph, examples, loss: as for `Distillation`.
        features: what its layers are compared with.
        weight: of their error beside the loss.
    """

    def __init__(
        self, student: Trainee, graph: Graph, examples: Drawn, loss: Loss, features: Features, weight: float
    ) -> None:
        super().__init__(student, graph, examples, loss)
        self.features = features
        self.weight = weight

    def loss(self, random: np.random.Generator) -> Tensor:
        """Return the loss on a batch that is drawn, with that of the features."""
        feed, wanted, target = self.examples.draw(random)
        values = self.module.values(feed)
        error = self.measure(values[self.graph.outputs[0].name], wanted, target)
        return error + self.weight * self.features.error(feed, values)
