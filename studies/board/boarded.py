"""What a board shows: its runs, each followed, with pictures, reviews, and what was measured for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...spaces.errors import BuildError, InputError
from ..layer_costs import keep_sensitivity, kept_sensitivity
from ..review import Review
from ..run_folder import RUN_FILE
from .albums import Albums
from .costs import layer_errors
from .followed import Followed
from .judge import Sessions

if TYPE_CHECKING:
    from ...objectives.protocol import Reading
    from ...spaces.candidate import Candidate
    from ...spaces.sensitivity import Sensitivity
    from ..trial import Trial


class Boarded:
    """One run of a board.

    Args:
        folder: of the run.

    Attributes:
        trouble: why it cannot be shown; None where it can.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.trouble: str | None = None
        self.sessions = Sessions()
        self._explained: dict[str, dict[str, Any]] = {}
        self._explaining = threading.Lock()
        self._followed: Followed | None = None
        self.look()

    def look(self) -> None:
        """Take what is new; one that could not be shown may be there by now."""
        if self._followed is not None:
            self._followed.look()
            return
        try:
            self._followed, self.trouble = Followed(self.folder), None
        except InputError as error:
            self.trouble = str(error)

    @property
    def followed(self) -> Followed:
        """The run. Raises `InputError` where it cannot be shown."""
        if self._followed is None:
            raise InputError(self.trouble or f"{self.folder} cannot be shown")
        return self._followed

    @property
    def name(self) -> str:
        """The study's name, or the folder's where there is no more to be known."""
        return self._followed.run.study_name if self._followed else self.folder.name

    @cached_property
    def albums(self) -> Albums:
        """Its pictures."""
        return Albums(self.followed)

    @property
    def review(self) -> Review:
        """What was said of it, as it is now."""
        return Review(self.folder)

    @property
    def preferences(self) -> Mapping[str, Reading]:
        """What people prefer, by candidate's key."""
        return self.followed.run.preferences()

    def explained(self, trial: Trial) -> dict[str, Any]:
        """Return where a trial's time goes (`explain.explain`), measured when it is first asked for.

        Raises:
            SlimfrontError: it cannot be measured.
        """
        with self._explaining:
            if trial.sha256 not in self._explained:
                self._explained[trial.sha256] = self.followed.read_again().explain(trial)
            return self._explained[trial.sha256]

    def sensitivity(self, base: str, measure: bool = False) -> Sensitivity | None:
        """Return what the options of a base's layers and groups cost; None where that is not known.

        Args:
            base: "reference", or a student's.
            measure: whether it is measured, which may take minutes, where no search has; that is kept in the run.
        """
        from ...spaces.sensitivity import sensitivity

        found, study = kept_sensitivity(self.folder, base), self.followed.study
        if found is not None or study is None or not measure:
            return found
        with self._explaining, suppress(BuildError, InputError):
            study.prepare_spaces()
            found = sensitivity(study.builder.of(base), study.space_of(base))
            keep_sensitivity(self.folder, base, found)
        return found

    def layer_errors(self, candidate: Candidate, measure: bool = False) -> dict[str, float]:
        """Return `costs.layer_errors` of a candidate; nothing where they are not known. See `sensitivity`."""
        found = self.sensitivity(candidate.base, measure)
        return {} if found is None else layer_errors(candidate, self.followed.network(candidate.base), found)


@dataclass(frozen=True)
class Boards:
    """All runs of a board, by their place.

    Attributes:
        runs: in the order in which they were given.
    """

    runs: Sequence[Boarded]

    def __getitem__(self, index: int) -> Boarded:
        """Return a run by its place. Raises `InputError` where there is none."""
        if not 0 <= index < len(self.runs):
            raise InputError(f"there is no run {index} on this board; it has {len(self.runs)}")
        self.runs[index].look()
        return self.runs[index]

    def look(self) -> None:
        """Take what is new of all runs."""
        for run in self.runs:
            run.look()


def found_runs(folders: Sequence[Path]) -> list[Path]:
    """Return run folders: those given, and those inside a given folder that is no run itself.

    Raises:
        InputError: a folder that is not there, or neither a run nor one that holds some.
    """
    found: list[Path] = []
    for folder in folders:
        if (folder / RUN_FILE).exists():
            found.append(folder)
            continue
        inside = sorted(path.parent for path in folder.glob(f"*/{RUN_FILE}"))
        if not inside:
            what = "is neither a run nor a folder of runs" if folder.exists() else "does not exist"
            raise InputError(f"{folder} {what}; `slimfront search STUDY --run {folder}` makes a run")
        found += inside
    return list(dict.fromkeys(path.resolve() for path in found))
