"""Real files for LiteRT and ExecuTorch, made of PyTorch modules by their own converters."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import torch
from torch import nn

MODULES = {"litert": ("ai_edge_litert", "litert_torch"), "executorch": ("executorch",)}  # without which tests skip
RUNTIMES = tuple(MODULES)


class Mixed(nn.Module):
    """Of a shift, an image and whole numbers: two outputs, the second of which is whole."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, shift: torch.Tensor, image: torch.Tensor, whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.relu(self.convolution(image)) + shift, whole * 2


def packed(runtime: str, module: nn.Module, given: Sequence[torch.Tensor]) -> bytes:
    """Return a module's file at the shapes of what it is given."""
    with contextlib.redirect_stdout(io.StringIO()):
        if runtime == "litert":
            import litert_torch

            return bytes(litert_torch.convert(module.eval(), tuple(given)).model_content())
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        exported = torch.export.export(module.eval(), tuple(given))
        return bytes(to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
