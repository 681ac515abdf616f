"""The form of the files that a runtime reads: the ONNX graph that a candidate is lowered to, or what is made of that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
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

    def packed(self, graph: Path | bytes, shapes: Mapping[str, tuple[int, ...]]) -> bytes:
        """Return the bytes of the file that a graph becomes. Raises `BuildError` where there is none.

        Args:
            graph: an ONNX file, or its bytes.
            shapes: to be run at, by input name.
        """
        if self.pack is None:
            return graph if isinstance(graph, bytes) else graph.read_bytes()
        import onnx
        import onnx_ir as ir

        model = ir.from_proto(onnx.load_model_from_string(graph)) if isinstance(graph, bytes) else ir.load(graph)
        return self.pack(model, shapes)


ONNX = Format()
