"""The form of the files that a runtime reads: the ONNX graph that a candidate is lowered to, or what is made of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Format:
    """The form of a runtime's files.

    Attributes:
        suffix: ends their names: ".onnx", ".tflite", ".pte".
        pack: makes a file's bytes of the graph that a lowering wrote (an `onnx_ir.Model`) and the shapes to measure at, by input
            name; None where the file is that graph. Raises `BuildError` where it cannot.
    """

    suffix: str = ".onnx"
    pack: Callable[[ir.Model, Mapping[str, tuple[int, ...]]], bytes] | None = None

    def packed(self, graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        """Return the file of a graph in ONNX, to be run at these shapes. Raises `BuildError` where there is none."""
        if self.pack is None:
            return graph
        import onnx
        import onnx_ir as ir

        return self.pack(ir.from_proto(onnx.load_model_from_string(graph)), shapes)


ONNX = Format()
