"""python studies/benchmarks/samplers.py --zoo ../shared/zoo [rlfn_s_x2 painting ...] [--seeds 3] [--results FOLDER]

How much of the front does each sampler find, over its evaluations? All have the same space and evaluator:
exact size, real PSNR, predicted latency. An evaluation is made once, whoever asks for it, and kept in the folder, so that a
benchmark that was stopped goes on. Prints the mean hypervolumes over the seeds as a Markdown table, and leaves
MODEL/hypervolumes.csv (model, sampler, seed, evaluations, hypervolume, seconds a proposal, candidate). What the
sensitivities of the frontier sampler took is told as evaluations of equal time. With --timed the final fronts are timed for
real as well, into MODEL/timed.csv; what was timed is kept.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import optuna
import pandas as pd
from shared_evaluations import Evaluations, open_study, prepare
from zoo import parser

from slimfront.search.proposers import Observation, OptunaProposer, Proposer, Task, make_proposer
from slimfront.search.start import first_points
from slimfront.search.task import task_of
from slimfront.studies.front import hypervolume, nondominated

MODELS = ("rlfn_s_x2", "painting", "waifu2x_upconv7_x2")
EVALUATIONS = {"frontier": 120, "tpe": 400, "tpe, each alone": 400, "nsga2": 400, "random": 400, "gp": 60}
SHOWN = (20, 40, 60, 120, 200, 400)


def main() -> None:
    """Search with every sampler and print the table."""
    flags = parser(__doc__ or "", MODELS)
    flags.add_argument("--seeds", type=int, default=3)
    flags.add_argument("--samplers", nargs="+", choices=list(EVALUATIONS), default=list(EVALUATIONS))
    flags.add_argument("--most", type=int, default=max(EVALUATIONS.values()), help="evaluations of each search")
    flags.add_argument(
        "--timed", action="store_true", help="time the final fronts of the first seed, on a quiet machine"
    )
    flags.add_argument("--workers", type=int, default=2)
    flags.add_argument("--results", type=Path, required=True, help="a folder that keeps all that is found")
    arguments = flags.parse_args()
    print(f"| model | sampler | {' | '.join(map(str, SHOWN))} | ms a proposal |\n|{'---|' * (len(SHOWN) + 3)}")
    for name in arguments.models:
        folder = arguments.results / name
        os.environ["SLIMFRONT_CACHE"] = str((folder / "cache").resolve())  # so that nothing is known beforehand
        prepare(arguments.zoo, name, folder)
        tasks = [(sampler, seed) for sampler in arguments.samplers for seed in range(arguments.seeds)]
        with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
            searched = partial(curve, arguments.zoo, name, folder, arguments.most)
            table = pd.concat(pool.starmap(searched, tasks, chunksize=1))
        table.to_csv(folder / "hypervolumes.csv", index=False)
        for line in rows(table):
            print(f"| {name} | {line} |", flush=True)
        for line in timed_fronts(arguments.zoo, name, folder, table) if arguments.timed else ():
            print(f"| {name} | {line} |", flush=True)
        probing = json.loads((folder / "probing.json").read_text())
        print(f"| {name} | sensitivities: {probing['seconds']:.0f} s, {probing['evaluations']:.0f} evaluations |")


class EachAlone(OptunaProposer):
    """TPE as Optuna has it by default: each parameter on its own."""

    def _sampler(self, asked: int) -> optuna.samplers.BaseSampler:
        return optuna.samplers.TPESampler(seed=self._seed(asked), multivariate=False)


def proposer_of(sampler: str, task: Task) -> Proposer:
    """Return a proposer by the name that this benchmark gives it."""
    return EachAlone("tpe", task) if sampler == "tpe, each alone" else make_proposer(sampler, task)


def curve(zoo: Path, name: str, folder: Path, most: int, sampler: str, seed: int) -> pd.DataFrame:
    """Search once; return the hypervolume after each evaluation, from the folder where it was finished before."""
    count = min(EVALUATIONS[sampler], most)
    kept = folder / f"{sampler.replace(', ', '-').replace(' ', '-')}-{seed}-{count}.csv"
    if kept.exists():
        return pd.read_csv(kept)
    evaluations = Evaluations(open_study(zoo, name), folder)
    study = evaluations.study
    proposer = proposer_of(sampler, task_of(study, evaluations.run, sampler, seed))
    history: list[Observation] = []
    lines = []
    starting = [candidate for _, candidate in first_points(study.space, sampler)]
    while len(history) < count:
        begun = perf_counter()
        ahead = starting[len(history) : len(history) + 1]
        candidate = ahead[0] if ahead else next(iter(proposer.propose(history, 1)), None)
        proposing = perf_counter() - begun
        if candidate is None:
            break
        history.append(evaluations.observe(candidate))
        points = [observation.point for observation in history if observation.point is not None]
        lines.append((name, sampler, seed, len(history), hypervolume(points), proposing, candidate.key))
    columns = ["model", "sampler", "seed", "evaluations", "hypervolume", "seconds", "candidate"]
    table = pd.DataFrame(lines, columns=columns)
    part = kept.with_suffix(".part")
    table.to_csv(part, index=False)
    part.replace(kept)
    return table


def timed_fronts(zoo: Path, name: str, folder: Path, table: pd.DataFrame) -> Sequence[str]:
    """Return a line for each sampler: the hypervolume of its final front as predicted, and timed for real."""
    evaluations = Evaluations(open_study(zoo, name), folder)
    found = []
    for sampler, some in table[table.seed == 0].groupby("sampler", sort=False):
        points = {key: point for key in some.candidate if (point := evaluations.known(key).point) is not None}
        stays = nondominated(list(points.values()))
        front = {key: point for (key, point), on_it in zip(points.items(), stays, strict=True) if on_it}
        speedups = evaluations.timed(list(front))
        real = [(size, 1.0 / speedup, db) for (size, _, db), speedup in zip(front.values(), speedups, strict=True)]
        found.append((sampler, len(front), hypervolume(list(front.values())), hypervolume(real)))
    fronts = pd.DataFrame(found, columns=["sampler", "members", "predicted", "timed"])
    fronts.to_csv(folder / "timed.csv", index=False)
    return [
        f"{row.sampler}, {row.members} on the front | predicted {row.predicted:.4f} | timed {row.timed:.4f}"
        for row in fronts.itertuples()
    ]


def rows(table: pd.DataFrame) -> Sequence[str]:
    """Return a line for each sampler: the mean hypervolume over the seeds after so many evaluations."""
    lines = []
    for sampler, some in table.groupby("sampler", sort=False):
        means = some.groupby("evaluations").hypervolume.mean()
        cells = [f"{means[count]:.4f}" if count in means.index else "" for count in SHOWN]
        proposing = 1000.0 * some[some.evaluations > 20].seconds.mean()
        lines.append(f"{sampler} | {' | '.join(cells)} | {proposing:.0f}")
    return lines


if __name__ == "__main__":
    main()
