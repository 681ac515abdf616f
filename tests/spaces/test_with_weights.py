"""Weights are written back to a graph by their names: it gives what the module gave."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch

from slimfront.spaces.capture import capture_onnx
from slimfront.spaces.errors import InputError
from slimfront.spaces.graph import with_weights
from slimfront.spaces.torch_view import TorchView


def test_a_graph_gives_what_its_view_learned(residual_model, pictures, tmp_path):
    graph = capture_onnx(residual_model)
    before = graph.to_bytes()
    view = TorchView(graph)
    with torch.no_grad():
        for weight in view.weights.values():
            weight += 0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    view.written_back().save(tmp_path / "it.onnx")
    x = pictures(1, 4)
    found = onnxruntime.InferenceSession(tmp_path / "it.onnx").run(None, {"x": x})[0]
    assert np.allclose(found, view({"x": torch.from_numpy(x)}).detach().numpy(), atol=1e-5)
    assert graph.to_bytes() == before, "the graph itself is as it was"


def test_weights_that_do_not_fit_are_told(residual_model):
    graph = capture_onnx(residual_model)
    with pytest.raises(InputError, match=r"weights \[2\] for 'nobody', but the graph has none"):
        with_weights(graph, {"nobody": np.zeros(2, np.float32)})
    with pytest.raises(InputError, match=r"weights \[2\] for 'ba', but the graph has \[24\]"):
        with_weights(graph, {"ba": np.zeros(2, np.float32)})
