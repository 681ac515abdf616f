"""What was started for a process that ended is ended, what shows its environment late as well."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from slimfront.search import sweeper

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


@pytest.fixture
def sleeping():
    """Start processes that sleep for a minute, with a mark in their environment."""
    begun = []

    def start(mark: str) -> subprocess.Popen:
        program = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        begun.append(subprocess.Popen(program, env={**os.environ, "MARK": mark}))
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def sweeper_of(mark: str) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-S", str(Path(sweeper.__file__)), mark], stdin=subprocess.PIPE)


def test_after_a_kill_it_ends_what_was_just_being_started_too(sleeping, tmp_path):
    mark = f"sweeper-{tmp_path}"
    early, other, process = sleeping(mark), sleeping("another"), sweeper_of(mark)
    process.stdin.close()
    assert early.wait(20) < 0
    time.sleep(0.5)
    late = sleeping(mark)
    assert late.wait(20) < 0
    assert process.wait(20) == 0
    assert other.poll() is None


def test_after_an_end_in_good_order_it_looks_once(sleeping, tmp_path):
    mark = f"sweeper-{tmp_path}"
    early, process = sleeping(mark), sweeper_of(mark)
    process.stdin.write(b"ended")
    process.stdin.close()
    assert early.wait(20) < 0
    assert process.wait(20) == 0
