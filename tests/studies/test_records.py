"""Records: torn lines, whole lines, one writer at a time, full disks."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slimfront.spaces.errors import InputError
from slimfront.studies.records import Record, RecordFile, read_records

RECORD = Record(study="s", key="k", stage="build", environment="e", state="done", trial=0)


def write(path, count, first=0):
    with RecordFile(path) as records:
        for number in range(first, first + count):
            records.append(replace(RECORD, trial=number, reason="línea\nnew"))


def numbers(path):
    return [record.trial for record in read_records(path)]


def test_what_is_appended_is_read_back(tmp_path):
    path = tmp_path / "records.jsonl"
    record = replace(RECORD, readings={"size_bytes": {"value": 1.5, "unit": "bytes"}}, candidate={"layers": {}})
    with RecordFile(path) as records:
        records.append(record)
    assert list(read_records(path)) == [record]


def test_no_file_has_no_records(tmp_path):
    assert numbers(tmp_path / "records.jsonl") == []


@given(cut=st.integers(0, 400))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_line_torn_anywhere_loses_nothing_else(tmp_path, cut):
    path = tmp_path / "records.jsonl"
    path.unlink(missing_ok=True)
    write(path, 3)
    whole = path.read_bytes()
    end_of_second = whole.index(b"\n", whole.index(b"\n") + 1) + 1
    torn = whole[: min(end_of_second + cut, len(whole))]
    path.write_bytes(torn)
    before = numbers(path)
    assert before[:2] == [0, 1]
    write(path, 2, first=10)
    assert numbers(path) == [*before, 10, 11]


def test_lines_that_are_no_records_are_skipped(tmp_path):
    path = tmp_path / "records.jsonl"
    write(path, 1)
    with path.open("ab") as file:
        file.write(b'{"other": 1}\n[]\n\xff\xfe\n\n3\n')
    write(path, 1, first=1)
    assert numbers(path) == [0, 1]


def test_a_second_writer_is_refused(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordFile(path), pytest.raises(InputError, match="another search is writing"):
        RecordFile(path)
    RecordFile(path).close()


def test_values_that_are_not_finite_are_never_written(tmp_path):
    path = tmp_path / "records.jsonl"
    with RecordFile(path) as records, pytest.raises(ValueError, match="not JSON compliant"):
        records.append(replace(RECORD, seconds=float("nan")))
    assert numbers(path) == []


def test_a_folder_that_cannot_be_written_to_is_a_clear_mistake(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to the run folder"):
        RecordFile(tmp_path / "file" / "records.jsonl")


def test_a_full_disk_keeps_what_was_whole(tmp_path):
    """A limit on the file's size stands for the full disk: writing stops in the middle of a line."""
    path = tmp_path / "records.jsonl"
    write(path, 2)
    size = path.stat().st_size
    code = f"""
        import resource
        from slimfront.spaces.errors import InputError
        from slimfront.studies.records import Record, RecordFile
        resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50}, {size + 50}))
        with RecordFile(__import__("pathlib").Path({str(path)!r})) as records:
            try:
                records.append(Record("s", "k", "build", "e", "done", 2, reason="x" * 500))
            except InputError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=os.environ, check=True
    )
    assert "cannot write to the run folder" in done.stdout
    assert len(done.stdout.splitlines()) == 1
    assert path.stat().st_size == size + 50
    write(path, 1, first=7)
    assert numbers(path) == [0, 1, 7]
    assert json.loads(path.read_bytes().splitlines()[-1])["trial"] == 7
