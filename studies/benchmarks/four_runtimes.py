"""python studies/benchmarks/four_runtimes.py [--study superres] [--trials 40] [--runs runs] [--environments folder]

Searches a ready-made study for each of the four runtimes, each with as many candidates, and compares the fronts: sizes and
quality as each runtime's own files have them, speed of all in one session, in turn, on one thread, as medians of the ratio to
float ONNX Runtime in the same round. Prints which runtime is fastest and smallest where so much quality may go, and how many
members each has on the front of all. A run that is there already goes on.

`--environments`: ships three members of each run (`slimfront ship --bundle 3`) and runs each shipment's own loader in a new
virtual environment that holds NumPy and that runtime alone (ExecuTorch's loads PyTorch), made in that folder.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import moocore
import numpy as np

import slimfront as sf
from slimfront.objectives.device.engine import Slot, timed
from slimfront.objectives.runtimes import make_target
from slimfront.spaces.rules import RULES
from slimfront.studies.run import Run
from slimfront.studies.study import STUDY_FILE, ready_made
from slimfront.studies.texts import size_text
from slimfront.studies.trial import Trial

DROPS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)  # dB
PACKAGES = {
    "onnxruntime": ["onnxruntime"],
    "openvino": ["openvino"],
    "litert": ["ai-edge-litert"],
    "executorch": ["executorch", "torch"],
}


@dataclass(frozen=True)
class Member:
    """A member of one runtime's front."""

    runtime: str
    trial: Trial
    size_bytes: float
    drop_db: float
    speed: np.ndarray  # of each round, against float ONNX Runtime


def main() -> None:
    """Search, time all in turn, print the tables."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--study", default="superres", choices=list(ready_made()))
    flags.add_argument("--trials", type=int, default=40)
    flags.add_argument("--rounds", type=int, default=40)
    flags.add_argument("--runs", type=Path, default=Path("runs"))
    flags.add_argument("--environments", type=Path)
    arguments = flags.parse_args()
    runs = {name: searched(arguments.study, name, arguments.trials, arguments.runs) for name in RULES}
    members = compared(runs, arguments.rounds)
    print(f"{table(members)}\n\n{shares(members)}")
    for name, run in runs.items() if arguments.environments else ():
        print(f"\n{name} alone:\n{alone(name, run, arguments.environments)}")


def searched(study: str, runtime: str, trials: int, runs: Path) -> Run:
    """Return a study's run for a runtime."""
    folder = runs / f"{study}-{runtime}-study"
    if not folder.exists():
        shutil.copytree(ready_made()[study], folder)
        file = folder / STUDY_FILE
        text = file.read_text(encoding="utf-8")
        assert "target" not in tomllib.loads(text)
        file.write_text(f'{text}\n[target]\nruntime = "{runtime}"\n', encoding="utf-8")
    return sf.search(str(folder), trials=trials, run_dir=runs / f"{study}-{runtime}")


def compared(runs: dict[str, Run], rounds: int) -> list[Member]:
    """Return the members of all fronts, timed in turn, and each runtime's reference."""
    first = next(iter(runs.values()))
    study = first.load()
    feed = {name: array[: study.graph.batch] for name, array in study.evaluation.inputs.items()}
    known = [
        (name, run, trial)
        for name, run in runs.items()
        for trial in {t.number: t for t in [run.reference, *run.front_trials()]}.values()
    ]
    slots = [Slot(make_target(name).open(run.model_path(trial)), feed) for name, run, trial in known]
    for slot in slots:
        timed([slot] * 3)
    times = np.array([timed(slots) for _ in range(rounds)])
    best = first.reference.value("psnr_db")
    return [
        Member(name, trial, trial.value("size_bytes"), best - trial.value("psnr_db"), times[:, 0] / times[:, column])
        for column, (name, _, trial) in enumerate(known)
    ]


def table(members: list[Member]) -> str:
    """Return the fastest and the smallest of each runtime for each loss of quality, as Markdown; the winners are bold."""
    lines = ["| PSNR may fall by | " + " | ".join(f"{name}: fastest, smallest" for name in RULES) + " |"]
    lines.append("|---" * (1 + len(RULES)) + "|")
    for drop in DROPS:
        able = {name: [m for m in members if m.runtime == name and m.drop_db <= drop] for name in RULES}
        fastest = {name: max(some, key=lambda m: float(np.median(m.speed))) for name, some in able.items() if some}
        smallest = {name: min(some, key=lambda m: m.size_bytes) for name, some in able.items() if some}
        speed = {name: float(np.median(member.speed)) for name, member in fastest.items()}
        size = {name: member.size_bytes for name, member in smallest.items()}
        cells = []
        for name in RULES:
            faster = _marked(f"{speed[name]:.1f}×", speed[name] == max(speed.values())) if name in speed else "none"
            smaller = _marked(size_text(size[name]), size[name] == min(size.values())) if name in size else "none"
            cells.append(f"{faster}, {smaller}")
        lines.append(f"| {drop:g} dB | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _marked(text: str, wins: bool) -> str:
    return f"**{text}**" if wins else text


def shares(members: list[Member]) -> str:
    """Return each runtime's float model, and how many of its members are on the front of all."""
    values = np.array([[m.size_bytes, m.drop_db, -float(np.median(m.speed))] for m in members])
    best = moocore.is_nondominated(values)
    lines = ["| runtime | uncompressed, against ONNX Runtime | members of its front | of them on the front of all |"]
    lines.append("|---|---|---|---|")
    for name in RULES:
        own = [(m, bool(stays)) for m, stays in zip(members, best, strict=True) if m.runtime == name]
        speeds = np.sort(own[0][0].speed)
        tail = max(1, len(speeds) // 20)
        lines.append(
            f"| {name} | {np.median(speeds):.2f}× ({speeds[tail]:.2f}–{speeds[-1 - tail]:.2f}) "
            f"| {len(own) - 1} | {sum(stays for _, stays in own)} |"
        )
    return "\n".join(lines)


def alone(runtime: str, run: Run, environments: Path) -> str:
    """Return what the loader of three shipped members says in an environment of NumPy and the runtime alone."""
    shipment, place = environments / f"{runtime}-shipment", environments / runtime
    if not shipment.exists():
        subprocess.run(
            [sys.executable, "-m", "slimfront.cli", "ship", run.folder, "--bundle", "3", "-o", shipment], check=True
        )
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", *PACKAGES[runtime]], check=True)
    found = subprocess.run([python, shipment / "load.py"], check=True, capture_output=True, text=True)
    return found.stdout.strip()


if __name__ == "__main__":
    main()
