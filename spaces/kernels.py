"""What really runs: the kernels of the graph that ONNX Runtime made of a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

INTEGER = ("QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul")
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "FusedGemm")


def integer_reads(optimized_path: Path) -> Counter[str]:
    """Return how many convolutions and matrix products in integers read each tensor of an optimised graph.

    `session.open_session` with ``optimized_path`` writes such a graph.
    """
    import onnx

    graph = onnx.load(optimized_path, load_external_data=False).graph
    return Counter(name for node in graph.node if node.op_type in INTEGER for name in node.input if name)
