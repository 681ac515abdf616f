"""python studies/benchmarks/joint_search.py --zoo ../shared/zoo [rlfn_s_x2 ...] [--trials 100] [--spaces bits] [--within 0.2]

Does it pay to search bits and pruning ratios together? Searches each model twice with as many evaluations, over all of the
default space and over its bits alone, for several seeds, and prints the hypervolumes as a Markdown table.
"""

from __future__ import annotations

from searches import folder_of_runs, run_of, search_parser
from zoo import load

from slimfront.studies.run import Run

SPACES: dict[str, dict[str, tuple[float, ...]]] = {"bits": {"pruning_ratios": (0.0,)}, "bits and ratios": {}}


def main() -> None:
    """Run the searches and print the table."""
    flags = search_parser(__doc__ or "", ["rlfn_s_x2"], trials=100)
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--spaces", nargs="+", choices=list(SPACES), default=list(SPACES))
    flags.add_argument("--within", type=float, default=0.5, help="decibels below the reference, for the last columns")
    arguments = flags.parse_args()
    within = f"within {arguments.within} dB"
    print(f"| model | seed | space | hypervolume | on the front | smallest {within} | fastest {within} |")
    print("|---|---|---|---|---|---|---|")
    with folder_of_runs(arguments.runs) as folder:
        for name in arguments.models:
            model = load(arguments.zoo, name)
            for seed in range(arguments.seeds):
                for space in arguments.spaces:
                    run = run_of(model, name, seed, arguments.trials, folder / f"{name}-{seed}-{space}", SPACES[space])
                    print(f"| {name} | {seed} | {space} | {' | '.join(cells(run, arguments.within))} |", flush=True)


def cells(run: Run, within: float) -> list[str]:
    """Return what a run found; ``within`` are decibels."""
    front = run.front_trials()
    close = [trial for trial in front if run.drop_db(trial) <= within]
    sizes = [run.reference.value("size_bytes") / trial.value("size_bytes") for trial in close]
    speeds = [trial.value("speedup") for trial in close]
    best = [f"{max(sizes):.1f}×", f"{max(speeds):.2f}×"] if close else ["-", "-"]
    return [f"{run.hypervolume():.4f}", str(len(front)), *best]


if __name__ == "__main__":
    main()
