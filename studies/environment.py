"""The environment that a timing belongs to: what was timed elsewhere does not count as measured here."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import __version__
from ..objectives.runtimes import DEFAULT_RUNTIME, RUNTIMES
from ..spaces.cache import content_hash


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
        cpu=cpu_name(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        slimfront=__version__,
        runtime=RUNTIMES[runtime].version(),
    )


def usable_cores() -> int:
    """Return how many processors this process may run on (its affinity)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
