"""The environment that a timing belongs to: what was timed elsewhere does not count as measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import __version__
from ..objectives.device.facts import cpu_name, machine_facts, usable_cores
from ..objectives.runtimes import DEFAULT_RUNTIME, RUNTIMES
from ..spaces.cache import content_hash

__all__ = ["Environment", "cpu_name", "current_environment", "device_environment", "usable_cores"]


@dataclass(frozen=True)
class Environment:
    """Where something was measured; ``digest`` is what its records carry."""

    onnxruntime: str
    provider: str
    threads: int
    cpu: str
    cores: int
    usable_cores: int
    system: str
    python: str
    slimfront: str
    runtime: str = ""  # with its version and precision, where it is another than ONNX Runtime

    @property
    def digest(self) -> str:
        """A short hash of all of it."""
        return content_hash(self.to_json())[:12]

    @property
    def machine(self) -> str:
        """A short hash of what kernels' times depend on, whatever calls them."""
        return content_hash({k: v for k, v in self.to_json().items() if k not in ("python", "slimfront")})[:12]

    def to_json(self) -> dict[str, Any]:
        """Return the environment as plain data."""
        return {key: value for key, value in vars(self).items() if (key, value) != ("runtime", "")}


def current_environment(provider: str, threads: int, runtime: str = DEFAULT_RUNTIME) -> Environment:
    """Return the environment of this process, for a study's provider, threads and runtime.

    Raises:
        InputError: the runtime is not installed.
    """
    import onnxruntime

    return Environment(
        onnxruntime=onnxruntime.__version__,
        provider=provider,
        threads=threads,
        slimfront=__version__,
        runtime=RUNTIMES[runtime].version(),
        **machine_facts() | {"cpu": cpu_name()},
    )


def device_environment(facts: Mapping[str, Any], provider: str, threads: int) -> Environment:
    """Return the environment of a device, by what its runner says of it (`objectives.connection.Connection.facts`)."""
    return Environment(provider=provider, threads=threads, **facts)
