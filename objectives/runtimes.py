"""The runtimes that a study may name as its target."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..spaces.rules import EXECUTORCH, LITERT, ONNX_RUNTIME, OPENVINO
from ..spaces.session import CPU
from . import mobile, openvino
from .device.service import KINDS
from .target import OnnxRuntime, Target

if TYPE_CHECKING:
    from .remote_engine import RemoteEngine

DEFAULT_RUNTIME = ONNX_RUNTIME.runtime  # of a study that names none


@dataclass(frozen=True)
class Runtime:
    """What a study file's ``target.runtime`` names.

    Attributes:
        package: that it comes in.
        target: makes it of a machine's fingerprint, threads and an execution provider.
        version: says what is installed, and in which precision it runs, where a record has to tell; raises `InputError`, with
            what to install, where it is missing.
    """

    package: str
    target: Callable[[str, int, str], Target]
    version: Callable[[], str]


TARGETS: Mapping[str, Callable[[str, int, str], Target]] = {
    DEFAULT_RUNTIME: OnnxRuntime,
    OPENVINO.runtime: lambda machine, threads, _: openvino.OpenVino(machine, threads),
    LITERT.runtime: lambda machine, threads, _: mobile.LiteRt(machine, threads),
    EXECUTORCH.runtime: lambda machine, threads, _: mobile.ExecuTorch(machine, threads),
}
RUNTIMES: Mapping[str, Runtime] = {
    name: Runtime(KINDS[name].package.name, target, KINDS[name].version) for name, target in TARGETS.items()
}


def make_target(
    runtime: str, machine: str = "", threads: int = 1, provider: str = CPU, device: RemoteEngine | None = None
) -> Target:
    """Return what models run on.

    Args:
        runtime: its name.
        machine: what times belong to.
        threads: of an inference.
        provider: execution provider, of ONNX Runtime.
        device: the same runtime with these settings on another machine; None is this one.
    """
    target = RUNTIMES[runtime].target(machine, threads, provider)
    if device is None:
        return target
    assert isinstance(target, OnnxRuntime | openvino.OpenVino | mobile.Mobile)  # a study names no other with a device
    return replace(target, device=device, runtime=f"{target.runtime} on {device.connection.address}")
