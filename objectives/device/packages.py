"""The packages that runtimes come in. Nothing heavy is imported: a runner that only waits loads no NumPy."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata


@dataclass(frozen=True)
class Package:
    """What a runtime comes in.

    Attributes:
        title: the runtime's, for people.
        name: as Python imports it.
        further: what running a model needs beside it and NumPy.
    """

    title: str
    name: str
    further: tuple[str, ...] = ()

    @property
    def install(self) -> str:
        """The command that installs it."""
        return " ".join(("pip install", self.name.replace("_", "-"), *self.further, "numpy"))

    @property
    def is_there(self) -> bool:
        """Whether it is installed here."""
        return all(importlib.util.find_spec(name) is not None for name in (self.name, *self.further))

    @property
    def with_version(self) -> str:
        """Its name and its version, as far as it tells that."""
        try:
            return f"{self.name} {metadata.version(self.name)}"
        except metadata.PackageNotFoundError:
            return self.name


PACKAGES: Mapping[str, Package] = {
    "onnxruntime": Package("ONNX Runtime", "onnxruntime"),
    "openvino": Package("OpenVINO", "openvino"),
    "litert": Package("LiteRT", "ai_edge_litert"),
    "executorch": Package("ExecuTorch", "executorch", ("torch",)),
}
