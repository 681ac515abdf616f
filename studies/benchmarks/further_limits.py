"""python studies/benchmarks/further_limits.py [styles digits_gan superres] [--samplers frontier tpe] [--seeds 3] [--runs FOLDER]

How well do samplers search where a further objective is limited? Each study is a ready-made one with one such limit. Prints, in
the mean over the seeds: how many of the proposals keep the limit; of all trials that keep it, how many no other one of them
dominates, and their hypervolume after half of the trials and after all. Runs that are there already go on or are shown.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

import pandas as pd
from searches import folder_of_runs

from slimfront import search
from slimfront.studies.front import hypervolume, nondominated
from slimfront.studies.run import Run
from slimfront.studies.study import load_study, ready_made

LIMITS = {  # of each study, so that a good part of the unlimited front breaks it
    "styles": "worst_group = { max_drop = 0.3 }",
    "digits_gan": "worst_group = { min = 30.0 }",
    "superres": "texture = { max_drop = 0.2 }",
}
SAMPLERS = ("frontier", "tpe", "nsga2", "random")


def main() -> None:
    """Search with every sampler and seed, and print the table."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("studies", nargs="*", default=list(LIMITS))
    flags.add_argument("--samplers", nargs="+", choices=SAMPLERS, default=list(SAMPLERS))
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--trials", type=int, default=40)
    flags.add_argument("--runs", type=Path, default=None, help="keep the runs here; what is there continues")
    arguments = flags.parse_args()
    half = arguments.trials // 2
    print(f"| study | sampler | proposals that keep it | members | after {half} | after {arguments.trials} |")
    print("|---|---|---|---|---|---|")
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.studies:
            study = limited(name, folder / f"{name}-study")
            for sampler in arguments.samplers:
                runs = [
                    search(
                        load_study(study), arguments.trials, folder / f"{name}-{sampler}-{seed}", None, sampler, seed
                    )
                    for seed in range(arguments.seeds)
                ]
                found = pd.DataFrame([row(run, half) for run in runs]).mean()
                shown = f"{found.keep:.0%} | {found.members:.1f} | {found.halfway:.4f} | {found.whole:.4f}"
                print(f"| {name} | {sampler} | {shown} |", flush=True)


def limited(name: str, folder: Path) -> Path:
    """Return a copy of a ready-made study whose only further objective is the limited one."""
    if folder.exists():
        return folder
    shutil.copytree(ready_made()[name], folder)
    text = re.sub(r"\n\[objectives\]\n.*?\n\n", "\n", (folder / "study.toml").read_text(), flags=re.DOTALL)
    (folder / "study.toml").write_text(f"{text}\n[objectives]\n{LIMITS[name]}\n")
    return folder


def row(run: Run, half: int) -> dict[str, float]:
    """Return what a run found within its limits."""
    proposed = [trial for trial in run.trials if not trial.label]
    keep = [trial for trial in run.trials if trial.measured and not run.violation(trial)]
    points = [run.point(trial) for trial in keep]
    return {
        "keep": sum(max(run.excesses(trial)) <= 0.0 for trial in proposed if trial.judged) / len(proposed),
        "members": nondominated(points).sum(),
        "halfway": hypervolume([run.point(trial) for trial in keep if trial.number < half]),
        "whole": hypervolume(points),
    }


if __name__ == "__main__":
    main()
