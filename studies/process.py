"""A name of a process that tells whether it is still there."""

from __future__ import annotations

import os
from pathlib import Path


def this_process() -> str:
    """Return a name of this process that processes on the same machine can check: machine, number, start."""
    return f"{_machine()}:{os.getpid()}:{_started(os.getpid())}"


def is_gone(process: str) -> bool:
    """Whether a process of this machine has ended; False for those of other machines."""
    machine, _, rest = process.partition(":")
    number, _, started = rest.partition(":")
    return machine == _machine() != "" and number.isdigit() and _started(int(number)) != started


def _machine() -> str:
    """Return what tells this boot of this machine, and this container, from others; empty where it is not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink().name.strip('pid:[]')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
