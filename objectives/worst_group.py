"""The worst condition: of the groups that samples belong to (styles, classes), the one that comes off worst."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ..spaces.errors import InputError
from .protocol import About, Reading, Subject
from .quality import judged_against, psnr_db
from .samples import Samples

MOST_GROUPS = 50  # each with a reading of its own


class WorstGroup:
    """Reads `worst_group_db`, the least of the mean PSNRs of the groups, and the mean PSNR of each group.

    Against the target where the samples have one, else against the reference's output. The groups are the samples' (`group`).
    """

    name = "worst_group"
    readings: ClassVar[Mapping[str, About]] = {
        "worst_group_db": About(
            "PSNR of the worst group", "dB", explanation="the least of the mean PSNRs of the data's groups"
        )
    }

    def check(self, samples: Samples, where: str) -> None:
        """Raise `InputError` where the samples have no groups."""
        if samples.group is None:
            raise InputError(
                f"objectives.worst_group needs to know what each sample belongs to, but {where} has no array 'group': add "
                f"one of {samples.count} whole numbers or texts, such as styles or classes, or leave the objective out"
            )

    def measure(self, subject: Subject) -> dict[str, Reading]:
        """Return the readings; how the worst one was got names its group.

        Raises:
            InputError: the samples have no groups.
        """
        samples, outputs = subject.model.samples, subject.model.outputs
        self.check(samples, "the data")
        target, against = judged_against(subject)
        psnr = psnr_db(outputs, target, samples.low, samples.high)
        groups = np.asarray(samples.group)
        means = {str(group): float(psnr[groups == group].mean()) for group in np.unique(groups)}
        counts = {str(group): int((groups == group).sum()) for group in np.unique(groups)}
        worst = min(means, key=lambda group: means[group])
        how = f"group {worst}, the worst of {len(means)}: mean of {counts[worst]} images against {against}"
        own = {
            f"group_{group}_db": Reading(means[group], "dB", how=f"mean of {counts[group]} images against {against}")
            for group in list(means)[:MOST_GROUPS]
        }
        return {"worst_group_db": Reading(means[worst], "dB", how=how), **own}
