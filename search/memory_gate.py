"""Candidates whose memory, by the kernels that they would run, is surely above the study's limit are not tried."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..spaces.candidate import Candidate
from ..spaces.errors import BuildError
from ..spaces.skeleton import structure
from ..studies.study import Study
from .proposers import Observation

MOST = 30  # refused in a row; what is proposed then is tried

SURE = 1.25  # times a limit, from which a prediction is believed


class MemoryGate:
    """Predicts the memory of proposals, without building them, where the study limits it.

    Args:
        study: with its builder prepared.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self.limit = study.settings.limits.max_memory
        self.refused: list[Observation] = []  # as a proposer is told of them: they cannot be had
        self._known: dict[str, bool] = {}  # by the candidate that all with the same kernels have in common

    def passed(self, proposed: Sequence[Candidate]) -> list[Candidate]:
        """Return the proposals that may keep the limit; the others are added to `refused`."""
        if self.limit is None:
            return list(proposed)
        kept = [candidate for candidate in proposed if self._may_keep(candidate)]
        self.refused += [Observation(candidate, None) for candidate in proposed if candidate not in kept]
        return kept

    def _may_keep(self, candidate: Candidate) -> bool:
        fitting = self.study.builder.fitting(candidate)
        key = structure(fitting).key
        if key not in self._known:
            self._known[key] = self._foretold(fitting) <= SURE * (self.limit or 0.0)
        return self._known[key]

    def _foretold(self, candidate: Candidate) -> float:
        """Return the bytes that a model with a candidate's kernels takes; 0 where they cannot be told."""
        graph = self.study.builder.of(candidate.base).graph
        with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
            path = Path(folder) / "model.onnx"
            try:
                self.study.predictor.save_model(candidate, path)
                told = self.study.target.predicted_memory(path, {port.name: port.shape for port in graph.inputs})
            except BuildError:  # its build will tell why
                return 0.0
        return 0.0 if told is None else float(told.peak_bytes)
