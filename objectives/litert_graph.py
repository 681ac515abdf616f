"""What a .tflite file says of its own graph."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..spaces.build import UNNAMED

PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL")
DATA = {"TRANSPOSE_CONV": 2}  # which input is no weight, where that is not the first


def integer_products(path: Path) -> Counter[str]:
    """Return how many convolutions and matrix products read and write int8, all under `UNNAMED`.

    LiteRT keeps none of the names that tensors have in the graph that the file was made of. It has no float kernel for integers:
    what the file has in integers runs so.
    """
    from ai_edge_litert import schema_py_generated as schema

    codes = {getattr(schema.BuiltinOperator, name): name for name in PRODUCTS}
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    found = 0
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for operator in map(graph.Operators, range(graph.OperatorsLength())):
            code = model.OperatorCodes(operator.OpcodeIndex())
            number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # one byte, before there were more ops
            name = codes.get(number)
            if name is not None:
                ends = operator.Inputs(DATA.get(name, 0)), operator.Outputs(0)
                found += all(graph.Tensors(end).Type() == schema.TensorType.INT8 for end in ends)
    return Counter({UNNAMED: found} if found else {})
