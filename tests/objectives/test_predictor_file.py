"""A predictor's knowledge goes with a run, and counts on its own machine only."""

from types import SimpleNamespace

import numpy as np
import pytest

from slimfront.objectives.kernel_times import KernelTimes
from slimfront.objectives.predictor import Outcome, Predictor
from slimfront.objectives.predictor_file import take_predictor, write_predictor
from slimfront.spaces.kernel_shapes import Tensor
from slimfront.spaces.kernels import Kernel


class Knowing(SimpleNamespace):
    """What a file is written of and taken by."""

    replace = Predictor.replace
    _forget = Predictor._forget


def predictor(fingerprint="here", known=False):
    times, outcomes = KernelTimes(), []
    if known:
        shape = Tensor(1, (1, 8, 4, 4))
        kernel = Kernel("relu", "y", "Relu", (shape,), (shape,), (False,), ())
        times.add([kernel], np.array([0.5]))
        outcomes.append(Outcome({kernel.key: 2}, 0.7, 0.01, 0.02, None, False))
    return Knowing(target=SimpleNamespace(fingerprint=fingerprint), times=times, outcomes=outcomes)


def test_what_was_written_is_known_again(tmp_path):
    full, empty = predictor(known=True), predictor()
    write_predictor(full, tmp_path / "predictor.npz")
    assert take_predictor(empty, tmp_path / "predictor.npz") is None
    assert empty.outcomes == full.outcomes
    assert empty.times.kernels == full.times.kernels
    assert [path.name for path in tmp_path.iterdir()] == ["predictor.npz"]


def test_a_file_of_another_machine_is_ignored_and_said(tmp_path):
    write_predictor(predictor("there", known=True), tmp_path / "predictor.npz")
    empty = predictor("here")
    assert "of another machine" in take_predictor(empty, tmp_path / "predictor.npz")
    assert not empty.times.kernels


def test_a_predictor_that_knows_more_keeps_it(tmp_path):
    write_predictor(predictor(), tmp_path / "predictor.npz")
    full = predictor(known=True)
    assert take_predictor(full, tmp_path / "predictor.npz") is None
    assert full.times.kernels


def test_what_is_newer_takes_the_place_of_what_was_known_but_kernels_stay_known(tmp_path):
    write_predictor(predictor(), tmp_path / "predictor.npz")
    full = predictor(known=True)
    (key,) = full.times.kernels
    assert take_predictor(full, tmp_path / "predictor.npz", anew=True) is None
    assert full.outcomes == []
    assert list(full.times.kernels) == [key]
    assert not full.times.knows(key), "its times are not known any more"


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04torn"])
def test_a_damaged_file_is_ignored_and_said(tmp_path, content):
    (tmp_path / "predictor.npz").write_bytes(content)
    assert "cannot be read" in take_predictor(predictor(), tmp_path / "predictor.npz")


def test_without_a_file_nothing_happens(tmp_path):
    assert take_predictor(predictor(), tmp_path / "predictor.npz") is None
