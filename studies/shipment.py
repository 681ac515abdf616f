"""Several members of a front in one folder, with a loader that chooses among them on the device.

trial-N/         the bundle of each member
shipment.json    what the loader reads: the runtime, and the members' numbers
load.py          the loader (`loader.py`), which needs NumPy and the runtime alone (ExecuTorch's needs PyTorch)
card.md          the same for people
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..spaces.build import file_hash
from ..spaces.errors import InputError, SlimfrontError, last_line
from . import bundle, loader
from .card import RUNTIMES
from .limits import Limits
from .output import new_folder
from .ship import Note, decide, fill, keep, shipped
from .subset import spread_subset
from .texts import interval_text, number_text, size_text, time_text

if TYPE_CHECKING:
    from .run import Run
    from .trial import Trial

LEAST = 2  # members


def ship_spread(
    run: Run, count: int, folder: Path, limits: Limits | None = None, note: Note | None = None, why: str = ""
) -> Path:
    """Write members of the front that stand for all of it as one shipment; return its folder.

    Each is a bundle, measured again in a fresh process; the loader beside them is run once as a device would.

    Args:
        run: the run; its study must be there, unchanged.
        count: how many members, 2 or more.
        folder: is created; it must be absent or empty.
        limits: what they must keep; by default the study's own.
        note: is told what is done.
        why: the reason for the choice.

    Raises:
        InputError: there are fewer such members, the folder holds something, cannot be written, or the study is gone.
        SlimfrontError: a file does not load in a fresh process, or does not hold what was measured.
    """
    trials = spread(run, count, run.limits if limits is None else limits)
    folder = folder.absolute()
    tell = note or (lambda text: None)
    decisions = [decide(run, trial, folder / _name(trial), why) for trial in trials]
    with new_folder(folder, "a shipment") as part:
        for trial, decision in zip(trials, decisions, strict=True):
            tell(f"trial {trial.number}, one of {count}")
            (part / _name(trial)).mkdir()
            fill(run, trial, part / _name(trial), decision, tell)
        _finish(part, run.study_name, trials)
        if run.load().device is None:
            tell("choosing among them as a device would")
            _try_loader(part)
        else:
            tell("the loader was not tried: it runs on the device")
    for decision in decisions:
        keep(run, decision, tell)
    return folder


def spread(run: Run, count: int, limits: Limits) -> list[Trial]:
    """Return members of the front of all that keep limits which stand for it, smallest first; the reference is none of them.

    Raises:
        InputError: fewer than two are asked for, or there are fewer.
    """
    if count < LEAST:
        raise InputError(
            f"a shipment of several needs {LEAST} or more, but got {count}; leave --bundle out to ship one"
        )
    fitting = [trial for trial in run.trials if trial.measured and run.violation(trial, limits) == 0.0]
    members = [trial for trial in run.undominated(fitting) if trial.number != run.reference.number]
    if len(members) < count:
        keep = f" of those that keep {limits}" if limits.each() else ""
        raise InputError(
            f"the front of {run.folder}{keep} has {len(members)} compressed candidates, but {count} are asked for; "
            "ask for fewer, loosen the limits, or search on"
        )
    return [members[row] for row in spread_subset([run.coordinates(trial) for trial in members], count)]


def shipped_members(folder: Path) -> list[dict[str, Any]]:
    """Return the numbers of each member of a shipment that was just written, as `ship.shipped` does of one bundle."""
    return [shipped(folder / facts["name"]) for facts in bundle.read_shipment(folder)["members"]]


def _name(trial: Trial) -> str:
    return f"trial-{trial.number}"


def _finish(part: Path, study_name: str, trials: Sequence[Trial]) -> None:
    """Write what is beside the members."""
    shutil.copyfile(loader.__file__, part / bundle.LOADER_FILE)
    rows = [{"name": _name(trial), **shipped(part / _name(trial))} for trial in trials]
    reference = rows[0]["reference"] | {"latency_ms": median(row["reference"]["latency_ms"] for row in rows)}
    facts = bundle.read_bundle(part / _name(trials[0]))
    document = {
        "version": bundle.VERSION,
        "study": study_name,
        **{key: facts[key] for key in ("runtime", "provider", "threads", "batch")},
        "model": bundle.model_file(facts),
        "loader": file_hash(part / bundle.LOADER_FILE),
        "reference": reference,
        "members": [
            {key: value for key, value in row.items() if key not in ("candidate", "reference")} for row in rows
        ],
    }
    (part / bundle.SHIPMENT_FILE).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (part / bundle.CARD_FILE).write_text(_card(document), encoding="utf-8")


def _try_loader(part: Path) -> None:
    """Let the loader measure all members and choose one, in a fresh process and on a copy, so that nothing of it is shipped."""
    code = f"import {Path(bundle.LOADER_FILE).stem} as load; load.load(milliseconds=1e9)"
    with tempfile.TemporaryDirectory(prefix="slimfront-") as folder:
        copy = shutil.copytree(part, Path(folder) / "shipment")
        done = subprocess.run([sys.executable, "-c", code], cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlimfrontError(f"the loader does not run: {last_line(done.stderr) or 'no message'}")


def _card(document: dict[str, Any]) -> str:
    reference = document["reference"]
    size, time = size_text(reference["size_bytes"]), time_text(reference["latency_ms"])
    lines = "".join(_line(row, reference["latency_ms"]) for row in document["members"])
    return f"""# {len(document["members"])} members of a front

| member | size | time | speedup | PSNR |
|---|---:|---:|---:|---:|
| reference | {size} | {time} | | {number_text(reference["psnr_db"])} dB |
{lines}
Each folder is a bundle with a card of its own. Where they were searched for, the files took these times; on the device
`load.py` measures them at the first start, each in a process of its own, keeps what it found in `measured.json`, and chooses:

```python
from load import load
model = load(milliseconds=20)  # the best quality within 20 ms; megabytes=50 limits the memory that the process grows by
outputs = model.run(feed)      # arrays by the names of the inputs, as the members' cards show
```

`python load.py` tells what each takes there. It needs {RUNTIMES[document["runtime"]].loader}.
"""


def _line(row: dict[str, Any], reference_ms: float) -> str:
    interval = interval_text(row["speedup_low"], row["speedup_high"])
    cells = (
        f"`{row['name']}`",
        size_text(row["size_bytes"]),
        time_text(reference_ms / row["speedup"]),
        f"{number_text(row['speedup'])}× ({interval})",
        f"{number_text(row['psnr_db'])} dB",
    )
    return f"| {' | '.join(cells)} |\n"
