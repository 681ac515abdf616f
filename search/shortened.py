"""Students that are the reference without some of its residual blocks: they keep its weights, and are trained on from there."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..spaces.shorten import WITHOUT, Block, shortened
from ..spaces.statistics import Progress
from ..spaces.threads import one_torch_thread
from ..studies.study import Study
from .distillation import Distillation
from .students import Judged, Scale, costs, judging_examples

LEAST_SAVED = 1e-9  # parts of the reference's multiply-adds


def judge_shortened(study: Study, blocks: Sequence[Block], progress: Progress | None = None) -> list[Judged]:
    """Return what is known of shortened references before they are trained, on a few calibration samples.

    Blocks are left out one after another: first those whose absence costs least for the multiply-adds that it saves.

    Args:
        study: of the reference.
        blocks: that may be left out (`residual_blocks`).
        progress: told what is being done, and the part of it that is done.

    Raises:
        BuildError: an op has no form in PyTorch here; it is named.
    """
    from .alone import Alone

    examples = judging_examples(study)
    scale = Scale.of(study, examples)

    def judged(without: Sequence[Block], done: int) -> Judged:
        graph = shortened(study.graph, without)
        with one_torch_thread():
            error = Distillation(Alone(graph), graph, examples, scale.loss).standing()
        if progress is not None:
            progress("judging shortened students", done / (2 * len(blocks) - 1))
        student = {WITHOUT: ", ".join(sorted(block.name for block in without))}
        known = Judged(student, partial(shortened, study.graph, without), (*costs(study, graph), 0.0), inherits=True)
        return scale.rated(known, error)

    each = {block: judged([block], number) for number, block in enumerate(blocks, 1)}
    whole = costs(study, study.graph)[1]
    order = sorted(blocks, key=lambda block: each[block].point[2] / max(whole - each[block].point[1], LEAST_SAVED))
    more = [judged(order[:count], len(blocks) + count - 1) for count in range(2, len(order) + 1)]
    return [*(each[block] for block in order[:1]), *more]
