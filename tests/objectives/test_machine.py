"""One timing at a time, across processes."""

import subprocess
import sys
import tempfile
import time

import pytest

from slimfront.objectives import machine
from slimfront.objectives.device.lock import MachineLock

HOLD = """
import sys
from slimfront.objectives.machine import machine_to_itself

with machine_to_itself():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def holder():
    """A process that holds the machine until its input ends."""
    process = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_waits_until_the_first_is_done(folder):
    first = holder()
    second = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=3)
    first.communicate()
    assert second.stdout.readline() == "held\n"
    second.communicate()


def test_the_lock_ends_with_its_process(folder):
    first = holder()
    first.kill()
    first.wait()
    begun = time.monotonic()
    with machine.machine_to_itself():
        pass
    assert time.monotonic() - begun < 60


def test_who_holds_the_machine_may_take_it_again(folder):
    with machine.machine_to_itself(), machine.machine_to_itself():
        pass


def test_a_file_of_another_user_leaves_this_user_with_a_lock_of_its_own(folder, monkeypatch):
    import filelock

    def refuse(self, *args, **kwargs):
        if not refused:
            refused.append(self.lock_file)
            raise PermissionError(self.lock_file)
        return acquire(self, *args, **kwargs)

    refused, acquire = [], filelock.FileLock.acquire
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with machine.machine_to_itself():
        assert [path for path in folder.glob("*.lock") if path.name != machine.LOCK_FILE]


def test_a_runner_takes_the_same_lock_without_the_library_that_others_take_it_with(folder):
    pytest.importorskip("fcntl")
    lock, first = MachineLock(), holder()
    waited = []

    def wait():
        waited.append(lock.held)
        if len(waited) == 3:
            first.communicate()

    lock.acquire(wait)
    assert lock.held and len(waited) >= 3 and not any(waited)
    second = subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1.5)
    lock.release()
    assert second.stdout.readline() == "held\n"
    second.communicate()


def test_work_that_can_wait_waits_while_something_is_timed_but_not_for_ever(folder):
    first = holder()
    begun = time.monotonic()
    machine.wait_for_quiet(0.3)
    assert time.monotonic() - begun >= 0.3
    first.communicate()
    machine.wait_for_quiet(60.0)
    assert time.monotonic() - begun < 30.0
    with machine.machine_to_itself():  # it keeps nobody waiting
        pass
