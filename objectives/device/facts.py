"""What a machine is, as far as times depend on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

BOARD = Path("/proc/device-tree/model")  # of boards such as a Raspberry Pi
PARTS = ("CPU implementer", "CPU part", "Hardware")  # of /proc/cpuinfo, where it names no processor


def usable_cores() -> int:
    """Return how many processors this process may run on (its affinity)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    for name, value in _cpu_lines():
        if name == "model name":
            return value
    return platform.processor() or platform.machine()


def board_name() -> str:
    """Return the name of the processor; where the system tells none, the board's name and the parts of its processor."""
    name = cpu_name()
    if name not in ("", platform.machine()):
        return name
    try:
        board = BOARD.read_text(encoding="utf-8").strip("\0\n ")
    except OSError:
        board = ""
    parts = dict.fromkeys(value for key, value in _cpu_lines() if key in PARTS)
    return ", ".join(filter(None, (name or platform.machine(), board, " ".join(parts))))


def machine_facts() -> dict[str, Any]:
    """Return what a record says of the machine."""
    return {
        "cpu": board_name(),
        "cores": os.cpu_count() or 1,
        "usable_cores": usable_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _cpu_lines() -> list[tuple[str, str]]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return [(name.strip(), value.strip()) for name, value in pairs]
