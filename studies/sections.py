"""The sections of the report: front, table, pictures and bits of each candidate, as HTML; all texts escaped."""

from __future__ import annotations

import html
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..objectives.quality import CAP_DB
from . import architecture, figures, page, search_section, strip
from .criteria import explained, further
from .searched import searched
from .texts import (
    change_text,
    interval_text,
    known,
    number_text,
    ratio_text,
    reading_text,
    runtime_text,
    share_text,
    size_text,
    time_text,
)

if TYPE_CHECKING:
    import pandas as pd

    from . import pictures
    from .criteria import Criterion
    from .run import Run
    from .trial import Trial

SMALL_DROP_DB = 0.6  # what the opening sentence calls close to the reference
VIEW_TITLES = {
    "size-speed": ("Size and speed", "better: up and left"),
    "size-quality": ("Size and quality", "better: up and left"),
    "speed-quality": ("Speed and quality", "better: up and right"),
}


def view_titles(criteria: Sequence[Criterion]) -> dict[str, tuple[str, str]]:
    """Return the titles of `figures.views_with`, and which way is better."""
    return VIEW_TITLES | {
        f"size-{one.value}": (
            f"Size and {one.title}",
            f"better: {'up' if one.about.maximise else 'down'} and left",
        )
        for one in criteria
    }


def report_page(
    run: Run,
    frame: pd.DataFrame,
    gallery: pictures.Gallery | None,
    networks: Mapping[str, strip.Network] | None = None,
    notes: Sequence[str] = (),
) -> str:
    """Return the report as one HTML text.

    Args:
        run: the run.
        frame: its candidates, as `run_frame` gives them.
        gallery: its pictures, or None.
        networks: by base, its layers; by default what the candidates tell of them.
        notes: what the page lacks and why.
    """
    front = run.front_trials()
    reference = run.reference.row()
    bases = {trial.candidate.base for trial in front}
    networks = networks or {base: strip.Network.of_run(run, base) for base in bases}
    drawn = figures.front_figures(frame, run.criteria)
    views = figures.views_with(run.criteria)
    told = searched(run)
    data = {
        "figures": {name: json.loads(figure.to_json()) for name, figure in drawn.items()},
        "views": views,
        "ring": figures.RING_TRACE,
        "points": _points(frame, run.criteria),
        "tiles": dict(gallery.tiles) if gallery else {},
        "charts": {search_section.CHART: json.loads(search_section.search_figure(told).to_json())},
    }
    body = (
        _views_section(run)
        + _table_section(run, front)
        + search_section.search_section(told)
        + _members_section(run, front, reference, gallery, networks)
        + _others_section(run, {trial.number for trial in front})
    )
    header = _header(run, front, reference, notes)
    return page.page(f"{run.study_name}: the front", header, body, _footer(run, gallery), data)


def _points(frame: pd.DataFrame, criteria: Sequence[Criterion]) -> dict[str, dict[str, float | None]]:
    axes = ("size_bytes", "speedup", "psnr_db", *(criterion.value for criterion in criteria))
    return {
        str(row["trial"]): {axis: row[axis] if known(row[axis]) else None for axis in axes}
        for row in frame.to_dict("records")
    }


def _header(run: Run, front: Sequence[Trial], reference: dict[str, Any], notes: Sequence[str]) -> str:
    measured = sum(trial.measured for trial in run.trials)
    quality = f"{number_text(reference['psnr_db'])} dB" if run.has_target else "its own output is the target"
    facts = {
        "Reference": (size_text(reference["size_bytes"]), f"{time_text(reference['latency_ms'])}, {quality}"),
        "Candidates measured": (str(measured), _unmeasured(run)),
        "On the front": (str(len(front)), "not surely dominated by any other"),
        "Hypervolume": (f"{run.hypervolume():.3f}", "larger is better, at most 1"),
    }
    tiles = "".join(
        f"<div><dt>{name}</dt><dd>{html.escape(value)}<small>{html.escape(small)}</small></dd></div>"
        for name, (value, small) in facts.items()
    )
    shown = "".join(f'<p class="note">Note: {html.escape(note)}</p>' for note in notes)
    return (
        f'<p class="brand">slimfront</p><h1>{html.escape(run.study_name)}</h1>'
        f"<p>{html.escape(opening(run, front))}</p>{shown}<dl class='facts'>{tiles}</dl>"
    )


def opening(run: Run, front: Sequence[Trial]) -> str:
    """Return the sentence that opens the report: the best trade close to the reference."""
    close = [t for t in front if t.number != run.reference.number and run.drop_db(t) <= SMALL_DROP_DB]
    if not close:
        return "How small and how fast this network gets, and what that costs in quality."
    smallest = min(close, key=lambda trial: trial.value("size_bytes"))
    row = smallest.row()
    smaller = ratio_text(run.reference.value("size_bytes"), row["size_bytes"])
    return (
        f"Within {SMALL_DROP_DB} dB of the reference, the smallest candidate is {smaller} smaller and "
        f"{number_text(row['speedup'], 1)}× as fast (trial {smallest.number})."
    )


def _views_section(run: Run) -> str:
    triangle = ('path d="M7 1.5l6 10.5H1z"', figures.ACCENT, "polished: trained on")
    square = ('path d="M2.5 2.5h9v9h-9z"', figures.ACCENT, "student: another architecture")
    trained = [triangle] if any(trial.candidate.weights for trial in run.trials) else []
    trained += [square] if any(trial.candidate.student for trial in run.trials) else []
    star = 'path d="M7 .6l1.9 4.1 4.5.5-3.3 3 .9 4.4L7 10.4l-4 2.2.9-4.4-3.3-3 4.5-.5z"'
    marks = (
        ('circle cx="7" cy="7" r="4.5"', figures.ACCENT, "on the front"),
        ('circle cx="7" cy="7" r="4.5"', figures.GREY, "dominated"),
        ('path d="M7 1l6 6-6 6-6-6z"', figures.ACCENT, "uniform: all layers alike"),
        *trained,
        (star, figures.INK, "reference"),
    )
    legend = "".join(
        f'<li><svg width="14" height="14" aria-hidden="true"><{shape} fill="{color}"/></svg>{name}</li>'
        for shape, color, name in marks
    )
    views = "".join(
        f'<figure><figcaption>{html.escape(title)}<span>{better}</span></figcaption><div class="plot" id="{name}"></div></figure>'
        for name, (title, better) in view_titles(run.criteria).items()
    )
    missing = "" if run.has_target else " The evaluation data has no targets: PSNR is against the reference's output."
    return (
        "<section id='front'><h2>The front</h2><p class='note'>Choose a point to mark the same candidate everywhere "
        "and to see its pictures. Bars are 95 % intervals of the speedup. Drag to enlarge, double-click to go back."
        f"{missing}</p>"
        f"<ul class='legend'>{legend}</ul><div class='views'>{views}</div></section>"
    )


def _table_section(run: Run, front: Sequence[Trial]) -> str:
    head = (
        "Trial",
        "Size",
        "Smaller",
        "Speedup",
        "95 % interval",
        "On front",
        "Latency",
        "PSNR",
        "Change",
        "Worst image",
        "SSIM",
        *(criterion.title.capitalize() for criterion in run.criteria),
    )
    reference, sure = run.reference, run.probabilities()
    rows = "".join(_table_row(run, trial, sure.get(trial.number)) for trial in front)
    if reference.number not in {trial.number for trial in front}:
        rows += _table_row(run, reference)  # to compare with, dominated as it is
    columns = "".join(f'<th scope="col">{name}</th>' for name in head)
    return (
        "<section><h2>Candidates on the front</h2><p class='note'>Smallest first. Latency is the reference's time "
        "divided by the speedup. On front: the probability that no other dominates it, given the intervals."
        f"{html.escape(explained(run.criteria))}</p>"
        "<div class='scroll' tabindex='0' role='region' aria-label='Candidates on the front'>"
        f"<table><thead><tr>{columns}</tr></thead><tbody>{rows}</tbody></table></div></section>"
    )


def _table_row(run: Run, trial: Trial, sure: float | None = None) -> str:
    row, reference = trial.row(), run.reference.row()
    cells = (
        size_text(row["size_bytes"]),
        ratio_text(reference["size_bytes"], row["size_bytes"]),
        f"{number_text(row['speedup'])}×",
        interval_text(row["speedup_low"], row["speedup_high"]),
        share_text(sure),
        time_text(row["latency_ms"]),
        f"{number_text(row['psnr_db'])} dB",
        change_text(reference, row) if run.has_target else "–",
        f"{number_text(row['worst_psnr_db'])} dB",
        number_text(row["ssim"], 4),
        *(html.escape(reading_text(row[one.value], one.about.unit)) for one in run.criteria),
    )
    label = f" <small>{html.escape(trial.label)}</small>" if trial.label else ""
    number = str(trial.number)
    link = number if trial.number == reference["trial"] else f'<a href="#trial-{number}">{number}</a>'
    return f'<tr data-trial="{trial.number}"><td>{link}{label}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'


def _members_section(
    run: Run,
    front: Sequence[Trial],
    reference: dict[str, Any],
    gallery: pictures.Gallery | None,
    networks: Mapping[str, strip.Network],
) -> str:
    how = ""
    if gallery and gallery.tiles:
        how = (
            "<p class='note'>The worst image comes first. Press on a candidate's picture to see the reference in "
            f"its place. Differences are amplified {gallery.factor} times; black is no difference.</p>"
        )
    members = "".join(
        _member(run, trial, reference, gallery, networks[trial.candidate.base])
        for trial in front
        if trial.number != reference["trial"]
    )
    candidates = [trial.candidate for trial in front]
    sparse = any(choice.sparsity for candidate in candidates for choice in candidate.layers.values())
    legend = strip.legend_html(any(candidate.groups for candidate in candidates), sparse)
    return f"<section><h2>Pictures, bits and channels per layer</h2>{how}{legend}{members}</section>"


def _member(
    run: Run,
    trial: Trial,
    reference: dict[str, Any],
    gallery: pictures.Gallery | None,
    network: strip.Network,
) -> str:
    row = trial.row()
    label = f" · {html.escape(trial.label)}" if trial.label else ""
    change = f" <span>{change_text(reference, row)}</span>" if run.has_target else ""
    smaller = ratio_text(reference["size_bytes"], row["size_bytes"])
    numbers = (
        f"<b>{size_text(row['size_bytes'])}</b> <span>{smaller} smaller</span>",
        f"<b>{number_text(row['speedup'])}×</b> <span>{time_text(row['latency_ms'])}</span>",
        f"<b>{number_text(row['psnr_db'])} dB</b>{change}",
        f"<b>{number_text(row['ssim'], 4)}</b> <span>SSIM</span>",
        *(
            f"<b>{html.escape(reading_text(reading.value, reading.unit))}</b> <span>{html.escape(words)}</span>"
            for words, reading in further(run.criteria, trial.stages)
        ),
    )
    repair = f", {trial.candidate.repair} repair" if trial.candidate.repaired else ""
    repair = ", trained" if trial.candidate.weights else repair
    command = f"slimfront explain {shlex.quote(str(run.folder))} --trial {trial.number}"
    return (
        f'<article class="member" id="trial-{trial.number}" data-trial="{trial.number}">'
        f"<div><h3>Trial {trial.number}{label}</h3><a href='#front' class='note'>back to the front</a></div>"
        f"<ul class='numbers'>{''.join(f'<li>{number}</li>' for number in numbers)}</ul>"
        f"{architecture.drawing_html(trial.candidate.student) if trial.candidate.student else ''}"
        f"{strip.strip_html(trial.candidate, network)}"
        f"<p class='note'>{html.escape(strip.summary_text(trial.candidate, network) + repair)}</p>"
        f"<p class='note'>Where its time goes, and why: <code>{html.escape(command)}</code></p>"
        f"{_comparisons(trial, gallery)}</article>"
    )


def _comparisons(trial: Trial, gallery: pictures.Gallery | None) -> str:
    rows = gallery.comparisons.get(trial.number, ()) if gallery else ()
    if not rows or gallery is None:
        return ""
    first, *rest = [_triple(trial.number, row, gallery, worst=not i) for i, row in enumerate(rows)]
    return first + (f'<div class="pair">{"".join(rest)}</div>' if rest else "")


def _triple(trial: int, row: pictures.Comparison, gallery: pictures.Gallery, worst: bool) -> str:
    size = f'width="{gallery.side[1]}" height="{gallery.side[0]}"'
    name = f"image {row.image + 1}"
    quality = f"{number_text(min(row.psnr_db, CAP_DB))} dB"
    tiles = (
        (row.reference, "", f"reference, {name}", f"reference · {name}{', the worst' if worst else ''}"),
        (row.candidate, f'data-compare="{row.reference}"', f"trial {trial}, {name}", f"trial {trial} · {quality}"),
        (row.difference, "", f"difference, {name}", f"difference × {gallery.factor}"),
    )
    shown = "".join(
        f'<figure><img data-tile="{tile}" {more} {size} alt="{alt}"><figcaption>{caption}</figcaption></figure>'
        for tile, more, alt, caption in tiles
    )
    return f'<div class="triple">{shown}</div>'


def _unmeasured(run: Run) -> str:
    predicted = sum(trial.predicted for trial in run.trials)
    failed = sum(trial.state == "failed" for trial in run.trials)
    return f"{failed} failed" + (f", {predicted} predicted and not timed" if predicted else "")


def _others_section(run: Run, front: set[int]) -> str:
    others = [trial for trial in run.trials if trial.number not in front | {run.reference.number}]
    if not others:
        return ""
    rows = "".join(_other_row(trial) for trial in others)
    return (
        f"<section><details><summary>The other {len(others)} trials</summary><div class='scroll'><table><thead><tr>"
        "<th scope='col'>Trial</th><th scope='col'>Size</th><th scope='col'>Speedup</th><th scope='col'>PSNR</th>"
        f"<th scope='col' class='text'>State</th></tr></thead><tbody>{rows}</tbody></table></div></details></section>"
    )


def _other_row(trial: Trial) -> str:
    row = trial.row()
    label = f" <small>{html.escape(trial.label)}</small>" if trial.label else ""
    state = "dominated" if trial.measured else f"{trial.state}: {trial.reason or 'no reason kept'}"
    speedup = f"{number_text(row['speedup'])}×" if known(row["speedup"]) else "–"
    if trial.predicted:
        speedup = f"≈ {number_text(row['predicted_speedup'])}×"
    return (
        f'<tr data-trial="{trial.number}"><td>{trial.number}{label}</td><td>{size_text(row["size_bytes"])}</td>'
        f"<td>{speedup}</td><td>{number_text(row['psnr_db'])}</td><td class='text'>{html.escape(state)}</td></tr>"
    )


def _footer(run: Run, gallery: pictures.Gallery | None) -> str:
    timed = {
        stage.get("environment") for trial in run.trials for name, stage in trial.stages.items() if name == "timing"
    }
    machines = [
        f"{runtime_text(about, provider=True)} on {about.get('cpu')} ("
        f"{about.get('threads')} thread{'s' if about.get('threads') != 1 else ''})"
        for digest, about in run.environments().items()
        if digest in timed
    ]
    stored = ""
    if gallery and gallery.tiles:
        kept = "losslessly" if gallery.lossless else "with slight loss"
        part = "the centres of the images" if gallery.cropped else "whole images"
        stored = f" Pictures are {part}, {gallery.side[1]} by {gallery.side[0]} pixels, stored {kept}."
    where = f"Measured with {'; '.join(machines)}. " if machines else ""
    return (
        f"<p>{html.escape(where)}Size is that of the file. The speedup is the median of the ratios to the "
        "reference, timed in turn with it. PSNR and SSIM are means over the evaluation images, from their own "
        f"outputs.{stored}</p>"
    )
