"""What really runs: the kernels of the graph that ONNX Runtime made of a file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

INTEGER = ("QLinearConv", "QLinearMatMul", "MatMulIntegerToFloat", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul")
FLOAT = ("Conv", "FusedConv", "NhwcFusedConv", "ConvTranspose", "MatMul", "Gemm", "FusedMatMul", "FusedGemm")


def kernels(optimized_path: Path) -> Counter[str]:
    """Count the op types of an optimised graph (`session.open_session` with ``optimized_path`` writes it)."""
    import onnx

    graph = onnx.load(optimized_path, load_external_data=False).graph
    return Counter(node.op_type for node in graph.node)


def integer_count(found: Counter[str]) -> int:
    """Return how many convolutions and matrix products run in integers."""
    return sum(found[op] for op in INTEGER)
