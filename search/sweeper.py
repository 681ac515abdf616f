"""python sweeper.py MARK < pipe

Waits until the process at the other end of the pipe has ended, however it ended, and then ends every process whose
environment holds MARK: Ray's, which was started for that process alone. A process that was killed while it started others
leaves some that show no environment yet: for these it goes on looking. One that ends in good order says so, by a word through
the pipe. A script of its own, so that it starts in no time.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

SECONDS = 20.0
CALM_SECONDS = 3.0  # that nothing may be found, after a process that was killed


def main() -> None:
    """Wait, then sweep until nothing is left."""
    calm = 0.0 if sys.stdin.buffer.read() else CALM_SECONDS
    mark = sys.argv[1].encode()
    latest = time.monotonic()
    end = latest + SECONDS
    while (found := marked(mark)) or time.monotonic() < latest + calm:
        latest = time.monotonic() if found else latest
        if latest > end:
            break
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def marked(mark: bytes) -> list[int]:
    """Return the processes whose environment holds a mark, as far as this system tells of it (Linux)."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    main()
