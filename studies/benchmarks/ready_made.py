"""python studies/benchmarks/ready_made.py digits_vae superres [--runs runs] [--pictures]

The default search of ready-made studies: what it takes and how many candidates its front has, and the table and the picture of
the front that a study's README shows. A run that is there already is shown as it is. `--pictures` writes front.png beside each
study, which needs matplotlib, and small.png, what the smallest member makes that loses little (strokes_rvae draws its own by
`slimfront.studies.strokes_rvae.reading`).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from slimfront import open_run, search
from slimfront.objectives.protocol import OpenModel
from slimfront.studies.figures import ACCENT, AXIS_TITLES, GREY, GRID, INK, MUTED, VIEWS, size_ticks
from slimfront.studies.frame import run_frame
from slimfront.studies.pictures import as_pictures
from slimfront.studies.run import Run
from slimfront.studies.study import ready_made
from slimfront.studies.texts import size_text
from slimfront.studies.trial import Trial

ROWS = 8  # of a table
SURE = 0.5  # so probably on the front are those that a table shows
LITTLE = {True: 0.5, False: 22.0}  # dB by `Run.drop_db`, with targets and without: then a fidelity of 28 dB
DRAWS_ITS_OWN = ("strokes_rvae",)
WIDTH, MOST = 512, 16  # of its picture: pixels, samples
GAP = ((2, 2), (2, 2), (0, 0))  # pixels of white around each sample
MARKERS = {"reference": "*", "uniform": "D", "polished": "^", "student": "s", "search": "o"}


def main() -> None:
    """Search where there is no run, then show."""
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("studies", nargs="+", choices=list(ready_made()))
    flags.add_argument("--runs", type=Path, default=Path("runs"))
    flags.add_argument("--pictures", action="store_true")
    arguments = flags.parse_args()
    for name in arguments.studies:
        folder = arguments.runs / name
        if not (folder / "run.json").is_file():
            begun, used = time.monotonic(), time.process_time()
            search(name, run_dir=folder)
            print(f"{name}: {time.monotonic() - begun:.0f} s, {time.process_time() - used:.0f} s of a processor")
        run = open_run(folder)
        print(f"{name}: {len(run.front_trials())} on the front, hypervolume {run.hypervolume():.3f}\n{table(run)}\n")
        if arguments.pictures:
            picture(run, ready_made()[name] / "front.png")
        if arguments.pictures and name not in DRAWS_ITS_OWN:
            small(run, ready_made()[name] / "small.png")


def table(run: Run) -> str:
    """Members of the front that are most probably on it, spread over their sizes, as Markdown."""
    front, reference = run.front(), run.reference.row()
    likely = front[(front["front_probability"] >= SURE) & (front["trial"] != reference["trial"])]
    shown = likely.iloc[np.unique(np.linspace(0, len(likely) - 1, ROWS).round().astype(int))]
    quality, name = ("psnr_db", "PSNR") if run.has_target else ("fidelity_db", "fidelity")
    change = " | change" if run.has_target else ""
    lines = [f"| trial | size | smaller | speedup | 95 % | {name}, dB{change} | SSIM |"]
    lines.append("|---|---|---|---|---|---|---|" + ("---|" if run.has_target else ""))
    for row in shown.to_dict("records"):
        difference = f" | {row['psnr_db'] - reference['psnr_db']:+.2f}" if run.has_target else ""
        lines.append(
            f"| {row['trial']} | {size_text(row['size_bytes'])} | {reference['size_bytes'] / row['size_bytes']:.1f} "
            f"| {row['speedup']:.2f} | {row['speedup_low']:.2f}–{row['speedup_high']:.2f} "
            f"| {row[quality]:.2f}{difference} | {row['ssim']:.4f} |"
        )
    return "\n".join(lines)


def picture(run: Run, path: Path) -> None:
    """Draw the three views of a run's candidates that were measured, as the report has them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.lines import Line2D
    from PIL import Image

    frame = run_frame(run)
    titles = AXIS_TITLES | ({} if run.has_target else {"psnr_db": "fidelity (dB)"})
    figure, axes = pyplot.subplots(1, 3, figsize=(15.6, 5.3))
    for axis, (x, y) in zip(axes, VIEWS.values(), strict=True):
        for row in frame.sort_values("on_front").to_dict("records"):
            _point(axis, row, x, y)
        axis.set_xlabel(titles[x], color=INK, fontsize=13)
        axis.set_ylabel(titles[y], color=INK, fontsize=13)
        _look(axis, frame, x, y)
    keys = {"on the front": ("o", ACCENT), "dominated": ("o", GREY), "uniform: all layers alike": ("D", GREY)}
    keys |= {"reference": ("*", INK)} if run.has_target else {}
    handles = [Line2D([], [], marker=m, color=c, ls="", ms=9, label=text) for text, (m, c) in keys.items()]
    figure.legend(handles=handles, loc="upper left", ncol=4, frameon=False, fontsize=11, labelcolor=MUTED)
    figure.tight_layout(rect=(0, 0, 1, 0.95))
    figure.savefig(path, dpi=118)
    pyplot.close(figure)
    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


def small(run: Run, path: Path) -> None:
    """Draw targets, if there are any, what the network makes and what the smallest member makes that loses little, in rows."""
    from skimage.io import imsave

    study, member = run.load(), _little_lost(run)
    samples = study.evaluation

    def made(trial: Trial) -> np.ndarray:
        return OpenModel(run.model_path(trial), samples, study.graph.batch, study.target).outputs

    arrays = [made(run.reference), made(member)]
    if samples.target is not None:
        arrays.insert(0, samples.target)
    found = [as_pictures(each, samples.low, samples.high) for each in arrays]
    rows = [pictures for pictures in found if pictures is not None]
    shown = min(MOST, WIDTH // rows[0].shape[2])
    framed = [[np.pad(picture, GAP, constant_values=255) for picture in row[:shown]] for row in rows]
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in framed])
    imsave(path, sheet, check_contrast=False)
    row = member.row()
    quality = row["psnr_db" if run.has_target else "fidelity_db"]
    print(f"small.png: trial {member.number}, {size_text(row['size_bytes'])}, {quality:.2f} dB\n")


def _little_lost(run: Run) -> Trial:
    members = [trial for trial in run.front_trials() if run.drop_db(trial) <= LITTLE[run.has_target]]
    return min(members, key=lambda trial: trial.value("size_bytes"))


def _point(axis: Any, row: dict[Any, Any], x: str, y: str) -> None:
    if not (np.isfinite(row[x]) and np.isfinite(row[y])):
        return
    reference = row["kind"] == "reference"
    color = INK if reference else ACCENT if row["on_front"] else GREY
    reach = [[row["speedup"] - row["speedup_low"]], [row["speedup_high"] - row["speedup"]]]
    if "speedup" in (x, y) and not reference:
        errors = {"xerr" if x == "speedup" else "yerr": np.maximum(reach, 0.0)}
        axis.errorbar(row[x], row[y], **errors, ecolor=color, elinewidth=1, capsize=2, fmt="none", zorder=2)
    size = 15 if reference else 9
    axis.plot(row[x], row[y], MARKERS[row["kind"]], color=color, ms=size, mec="white", mew=1, zorder=3)


def _look(axis: Any, frame: pd.DataFrame, x: str, y: str) -> None:
    fastest = 1.1 * frame["speedup"].max()  # intervals of a busy machine may reach far beyond
    if x == "size_bytes":
        sizes = frame["size_bytes"]
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(size_ticks(list(sizes)), [size_text(tick) for tick in size_ticks(list(sizes))], rotation=-25)
        axis.set_xlim(0.8 * sizes.min(), 1.25 * sizes.max())
    else:
        axis.set_xlim(0.0, fastest)
    if y == "speedup":
        axis.set_ylim(0.0, fastest)
    axis.tick_params(colors=MUTED, length=0, labelsize=10.5)
    axis.grid(color=GRID, lw=1)
    axis.set_axisbelow(True)
    for side, spine in axis.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)


if __name__ == "__main__":
    main()
