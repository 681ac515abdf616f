"""python studies/benchmarks/hour.py --zoo ../shared/zoo [taef2_decoder ...] [--smaller 6] [--faster 5] [--steps 1500]

How much is left of a model's quality when it has to be so much smaller and faster, in an hour on two cores? Searches each model
under these limits, lets the run's model propose the best that keeps them, and trains that on; prints what each step has
found, and when, as a Markdown table. A run that was kept goes on.
"""

from __future__ import annotations

import time
from contextlib import suppress

from searches import folder_of_runs, search_parser, study_of
from zoo import load

from slimfront.search.loop import search
from slimfront.search.polish import polish
from slimfront.search.propose import propose
from slimfront.spaces.build import Builder
from slimfront.spaces.candidate import Candidate
from slimfront.spaces.errors import InputError
from slimfront.studies.run import Run
from slimfront.studies.trial import Trial

SPARE = 1.02  # of the speed: so much may later timings differ


def main() -> None:
    """Run the searches and print the table."""
    flags = search_parser(__doc__ or "", ["taef2_decoder"], trials=60)
    flags.add_argument("--smaller", type=float, default=6.0, help="times smaller than the reference")
    flags.add_argument("--faster", type=float, default=5.0, help="times faster than the reference")
    flags.add_argument("--steps", type=int, default=1500)
    flags.add_argument("--seed", type=int, default=0)
    arguments = flags.parse_args()
    print(
        "| model | after | minutes | bytes | smaller | faster | 95 % | PSNR | change |\n|---|---|---|---|---|---|---|---|---|"
    )
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.models:
            model, began = load(arguments.zoo, name), time.monotonic()
            reference = Builder(model.graph, model.calibration).build(Candidate()).size_bytes
            limits = {"max_size": reference / arguments.smaller, "min_speedup": SPARE * arguments.faster}
            study = study_of(model, name, arguments.seed, {"constraints": limits}, targets=True)
            run = search(study, trials=arguments.trials, run_dir=folder / name)
            with suppress(InputError):  # none keeps the limits yet
                tell(name, "search", began, run, run.pick(**limits, prefer="psnr"))
            try:
                chosen, _ = propose(run, **limits, prefer="psnr")
            except InputError as error:
                print(f"| {name} | {error} |")
                continue
            tell(name, "proposal", began, run, chosen)
            trained, _ = polish(Run(run.folder), chosen, steps=arguments.steps)
            tell(name, "training", began, Run(run.folder), trained)


def tell(name: str, step: str, began: float, run: Run, trial: Trial) -> None:
    """Print a row."""
    speed, size = trial.readings["speedup"], trial.value("size_bytes")
    smaller = run.reference.value("size_bytes") / size
    psnr, change = trial.value("psnr_db"), trial.value("psnr_db") - run.reference.value("psnr_db")
    interval = f"{speed.low:.2f}–{speed.high:.2f}"
    print(
        f"| {name} | {step} | {(time.monotonic() - began) / 60:.1f} | {size:,.0f} | {smaller:.2f}× | {speed.value:.2f}× "
        f"| {interval} | {psnr:.2f} | {change:+.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
