"""The report: a run as one self-contained HTML page with its front, pictures and bits per layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..objectives.protocol import OpenModel
from ..objectives.quality import psnr_db
from ..spaces.errors import BuildError, InputError
from ..spaces.statistics import Progress
from . import pictures
from .frame import run_frame
from .output import check_output, write_output
from .sections import report_page
from .strip import Network

if TYPE_CHECKING:
    from .run import Run
    from .study import Study
    from .trial import Trial


def report(run: Run, path: Path, progress: Progress | None = None) -> list[str]:
    """Write a run's report: one HTML page that opens offline.

    Args:
        run: has at least the reference measured.
        path: of the page; a file that is there is replaced.
        progress: called with a text and the fraction done, 0..1.

    Returns:
        What the page lacks and why; empty where nothing.

    Raises:
        InputError: nothing is measured yet, or the page cannot be written.
    """
    check_output(path)
    notes: list[str] = []
    study: Study | None = None
    gallery = None
    try:
        study = run.load()
        gallery = run_gallery(run, study, progress)
        if gallery is None:
            notes.append("the model's outputs are no pictures: the report shows none")
    except InputError as error:
        notes.append(f"the report has no pictures: {error}")
    text = report_page(run, run_frame(run), gallery, _networks(run, study) if study else None, notes)
    write_output(path, text.encode())
    return notes


def _networks(run: Run, study: Study) -> dict[str, Network]:
    """Return the networks that a run's candidates are made from, by base."""
    found = {}
    for base in {trial.candidate.base for trial in run.front_trials()}:
        try:
            found[base] = Network.of_graph(study.builder.of(base).graph)
        except BuildError:  # another process's student, in a folder of its own
            found[base] = Network.of_run(run, base)
    return found


def run_gallery(run: Run, study: Study, progress: Progress | None = None) -> pictures.Gallery | None:
    """Run the front's models on the evaluation data; return their pictures, or None where the outputs are none."""
    samples = study.evaluation
    trials = [trial for trial in run.front_trials() if trial.number != run.reference.number]

    def outputs(trial: Trial) -> Any:
        path = run.model_path(trial)
        return OpenModel(path, samples, study.graph.batch, study.target).outputs

    reference = outputs(run.reference)
    truth = reference if samples.target is None else samples.target
    shown = pictures.as_pictures(reference, samples.low, samples.high)
    if shown is None:
        return None
    made, psnr = {}, {}
    for done, trial in enumerate(trials):
        if progress:
            progress(f"pictures of trial {trial.number}", done / len(trials))
        result = outputs(trial)
        picture = pictures.as_pictures(result, samples.low, samples.high)
        assert picture is not None  # a candidate's outputs are shaped as the reference's
        made[trial.number] = picture
        psnr[trial.number] = psnr_db(result, truth, samples.low, samples.high)
    return pictures.make_gallery(shown, made, psnr)
