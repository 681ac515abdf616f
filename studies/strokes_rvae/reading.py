"""Which members of a run's front lose nothing that can be seen: digits that network and members draw are read and compared.

    python -m slimfront.studies.strokes_rvae.reading runs/strokes_rvae [--picture small.png]

A classifier that learned the true training digits reads what the network and what a member draw of the same latents. A member
loses nothing visible where
- it is read right as often as the network within the sampling error: McNemar's exact test of the digits that only one of the two
  is read right in (Psychometrika 12, 1947) has a p value of at least 0.05;
- its drawings are the network's: mean SSIM of at least 0.98 and mean PSNR of at least 40 dB, an error of one part in a hundred.
It is judged on evaluation data; the same on test data, which no search has seen, stands beside it. `--picture` draws the smallest
such member.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from skimage.io import imsave
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.neighbors import KNeighborsClassifier

from slimfront.spaces.session import infer, open_session
from slimfront.studies.digits_vae.digits import digits
from slimfront.studies.run import Run, open_run
from slimfront.studies.study import Study, load_study
from slimfront.studies.texts import size_text
from slimfront.studies.trial import Trial

LEAST_P = 0.05
LEAST_SSIM = 0.98
LEAST_FIDELITY_DB = 40.0
PARTS = ("evaluation", "test")
SHOWN = 16  # digits of a picture


class Reading(NamedTuple):
    """What a member's drawings are beside the network's, of the same latents."""

    right: float  # part of the digits that are read right, 0..1
    alike: float  # part of the digits that are read as the network's are, 0..1
    p_value: float  # of McNemar's exact test, two-sided: 0..1
    ssim: float  # mean over digits
    fidelity_db: float  # mean PSNR over digits

    @property
    def no_visible_loss(self) -> bool:
        """Whether a member passes, by the rule above."""
        same = self.ssim >= LEAST_SSIM and self.fidelity_db >= LEAST_FIDELITY_DB
        return same and self.p_value >= LEAST_P


def main() -> None:
    """Draw, read, print a table, and the smallest member that loses nothing visible."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("run", type=Path)
    flags.add_argument("--picture", type=Path, help="where a picture of digits, network and that member goes")
    arguments = flags.parse_args()
    run, study = open_run(arguments.run), load_study("strokes_rvae")
    members = [trial for trial in run.front_trials() if trial is not run.reference]
    members.sort(key=lambda trial: trial.value("size_bytes"))
    print("| trial | size | smaller | read right | read alike | p | SSIM | fidelity, dB | no visible loss |")
    print("|---|---|---|---|---|---|---|---|---|")
    found = [(trial, show(run, study, trial)) for trial in members]
    smallest = next((trial for trial, reading in found if reading.no_visible_loss), None)
    if smallest and arguments.picture:
        imsave(arguments.picture, picture(study, run.model_path(smallest)))


def show(run: Run, study: Study, trial: Trial) -> Reading:
    """Print a member's row, evaluation data / test data, and return what it is on evaluation data."""
    size, whole = (each.value("size_bytes") for each in (trial, run.reference))
    found = [compare(study, run.model_path(trial), part) for part in PARTS]
    columns = [
        " / ".join(f"{getattr(reading, name):{form}}" for reading in found)
        for name, form in {
            "right": ".1%",
            "alike": ".1%",
            "p_value": ".2f",
            "ssim": ".4f",
            "fidelity_db": ".1f",
        }.items()
    ]
    columns.append(" / ".join("yes" if reading.no_visible_loss else "no" for reading in found))
    print(f"| {trial.number} | {size_text(int(size))} | {whole / size:.1f} | {' | '.join(columns)} |", flush=True)
    return found[0]


def compare(study: Study, model: Path | bytes, part: str) -> Reading:
    """Compare what a model draws with what the study's network draws of the same latents.

    Args:
        study: strokes_rvae.
        model: a candidate's ONNX file or its bytes.
        part: "evaluation" or "test".
    """
    network, member = drawn(study, study.graph.to_bytes(), part), drawn(study, model, part)
    labels = digits(part)[1]
    read, read_member = (reader().predict(x.reshape(len(x), -1)) for x in (network, member))
    pairs = list(zip(network[:, 0], member[:, 0], strict=True))
    ssim = [structural_similarity(a, b, data_range=1.0, gaussian_weights=True, sigma=1.5) for a, b in pairs]
    with np.errstate(divide="ignore"):
        fidelity_db = [min(peak_signal_noise_ratio(a, b, data_range=1.0), 100.0) for a, b in pairs]
    return Reading(
        right=float((read_member == labels).mean()),
        alike=float((read_member == read).mean()),
        p_value=mcnemar(read == labels, read_member == labels),
        ssim=float(np.mean(ssim)),
        fidelity_db=float(np.mean(fidelity_db)),
    )


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return how probable so uneven a split of the samples, in which one alone is right, is where both are as good; 0..1."""
    only_one, only_other = int((one & ~other).sum()), int((other & ~one).sum())
    return 1.0 if only_one == only_other else float(binomtest(only_one, only_one + only_other).pvalue)


@cache
def reader() -> KNeighborsClassifier:
    """Return the classifier: three nearest neighbours among the true training digits."""
    images, labels = digits("training")
    return KNeighborsClassifier(3).fit(images.reshape(len(images), -1), labels)


def drawn(study: Study, model: Path | bytes, part: str) -> NDArray[np.float32]:
    """Return what a model draws of the latents of a part of the data, [N, 1, 32, 32] in 0..1."""
    return np.clip(infer(open_session(model, threads=1), getattr(study, part).inputs, study.graph.batch), 0.0, 1.0)


def picture(study: Study, model: Path | bytes) -> NDArray[np.uint8]:
    """Return digits of the evaluation data, what the network draws and what a model draws; [192, 1024]."""
    models = (study.graph.to_bytes(), model)
    rows = [digits("evaluation")[0], *(drawn(study, each, "evaluation") for each in models)]
    sheet = np.concatenate([np.concatenate(list(row[:SHOWN, 0]), axis=1) for row in rows])
    return np.round(255.0 * sheet).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


if __name__ == "__main__":
    main()
