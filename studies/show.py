"""The results of the verbs as tables for a terminal; each function draws what the verb's JSON holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..spaces.candidate import REFERENCE
from .texts import (
    MISSING,
    change_text,
    interval_text,
    number_text,
    ratio_text,
    reading_text,
    share_text,
    size_text,
    student_name,
    time_text,
)

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

Row = Mapping[str, Any]
CANDIDATE_HEADERS = (
    ">trial",
    ">size",
    ">smaller",
    ">speedup",
    ">95 %",
    ">on front",
    ">latency",
    ">PSNR",
    ">change",
    ">SSIM",
    ">memory",
    "layers",
)
SURE = 0.95  # of being on the front, from which nothing is said of it
MOST_ROWS = 12  # of a table that ends a search
LEAST_SHARE = 0.01  # of the time, of a row that is shown
ALIVE = 4  # tensors of a peak that are named
SHARE_BAR = 20  # blocks of a whole
REFERENCE_CAP_DB = 100.0  # a reference that is its own target


def studies_table(studies: Sequence[Row]) -> RenderableType:
    """The ready-made studies."""
    table = _table("study", "what it is")
    for study in studies:
        table.add_row(study["name"], study["description"])
    return table


def space_table(space: Row) -> RenderableType:
    """Layers and their choices, then what is frozen."""
    from rich.console import Group

    keys = ["weight_bits", "activation_bits"]
    keys += ["sparsities"] if any(any(layer["sparsities"]) for layer in space["layers"]) else []
    keys += ["forms"] if any(layer["forms"] != ["native"] for layer in space["layers"]) else []
    table = _table("layer", "op", ">parameters", *(key.replace("_", " ") for key in keys))
    for layer in space["layers"]:
        choices = (" ".join(f"{value:g}" if key != "forms" else value for value in layer[key]) for key in keys)
        table.add_row(layer["name"], layer["op"], f"{layer['parameters']:,}", *choices)
    lines: list[RenderableType] = [table]
    if space["groups"]:
        groups = _table("channel group", ">channels", "pruning ratios", "layers")
        for group in space["groups"]:
            ratios = " ".join(f"{ratio:.4g}" for ratio in group["pruning_ratios"])
            groups.add_row(group["name"], str(group["channels"]), ratios, ", ".join(group["layers"]))
        lines += ["", groups, ""]
    names: dict[str, list[str]] = {}
    for frozen in space["frozen"]:
        names.setdefault(frozen["reason"], []).append(frozen["name"])
    lines += [f"frozen: {', '.join(of)}: {reason}" for reason, of in names.items()]
    return Group(*lines)


def profile_table(profile: Row) -> RenderableType:
    """Where the reference's bytes and milliseconds go, the slowest layer first; then what each compression costs."""
    from rich.console import Group

    table = _table("layer", "op", ">parameters", ">bytes", ">time", ">share")
    for layer in profile["layers"]:
        share = f"{100 * layer['share']:.1f} %"
        numbers = f"{layer['parameters']:,}", size_text(layer["bytes"]), time_text(layer["ms"]), share
        table.add_row(layer["name"], layer["op"], *numbers)
    table.add_section()
    rest = profile["other"]
    table.add_row("between the layers", "", "", "", time_text(rest["ms"]), f"{100 * rest['share']:.1f} %")
    whole = f"{profile['parameters']:,}", size_text(profile["bytes"]), time_text(profile["latency_ms"])
    table.add_row("the whole model", "", *whole, "")
    lines: list[RenderableType] = [table]
    for what, rows, key in (("layer", profile["layers"], "weight_bits_db"), ("group", profile["groups"], "ratios_db")):
        lines += _curves(what, rows, key)
    if "memory" in profile:
        lines += _memory_lines(profile["memory"])
    return Group(*lines)


def _memory_lines(memory: Row) -> list[RenderableType]:
    """What takes memory, and which layers and groups save most of it alone, those that save nothing left out."""
    peaks = f"opening {size_text(memory['loading_bytes'])}, running {size_text(memory['running_bytes'])}"
    tensors = ", ".join(f"{size_text(each['bytes'])} of {each['by']}" for each in memory["alive"][:ALIVE])
    rest = len(memory["alive"]) - ALIVE
    told = f"memory: {peaks}, predicted. Most is alive in {memory['fullest']}, {size_text(memory['live_bytes'])}: {tensors}"
    kinds = (("layer", "layers", "at 8 bits alone"), ("group", "groups", "without a quarter of its channels"))
    lines: list[RenderableType] = ["", told + (f" and {rest} more" if rest > 0 else "")]
    for kind, key, what in kinds:
        rows = {name: row for name, row in memory[key].items() if (row["saved_bytes"] or 0) > 0}
        if not rows:
            lines.append(f"no {kind} saves memory {what}")
            continue
        table = _table(kind, *([">weights", ">alive then"] if kind == "layer" else []), f">saves {what}")
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["saved_bytes"]):
            held = [size_text(row[each]) for each in ("weight_bytes", "alive_bytes") if each in row]
            table.add_row(name, *held, size_text(row["saved_bytes"]))
        lines += ["", table]
    return lines


def _curves(what: str, rows: Sequence[Row], key: str) -> list[RenderableType]:
    """Return a table of the predicted dB over bits or ratios, what may be compressed furthest first."""
    rows = [row for row in rows if row[key]]
    if not rows:
        return []
    options = sorted({float(option) for row in rows for option in row[key]})
    of = "weights rounded to so many bits" if what == "layer" else "this part of the channels removed"
    table = _table(what, *(f">{option:g}" for option in options))
    for row in sorted(rows, key=lambda row: -sum(row[key].values()) / len(row[key])):
        values = {float(option): decibels for option, decibels in row[key].items()}
        table.add_row(row["name"], *(number_text(values.get(option), 1) for option in options))
    return ["", f"dB against the reference's output with one {what} alone compressed ({of}), predicted", table]


def front_table(front: Row) -> RenderableType:
    """The front, smallest first; with all trials below it where the document has them."""
    from rich.console import Group

    further = further_readings(front)
    lines: list[RenderableType] = [candidates_table(front["front"], front["reference"], further), _standing(front)]
    if "trials" in front:
        table = _table(">trial", ">size", ">speedup", ">PSNR", "state", "reason")
        for row in front["trials"]:
            numbers = size_text(row["size_bytes"]), _times(row["speedup"]), number_text(row["psnr_db"])
            table.add_row(str(row["trial"]), *numbers, row["state"], row["reason"] or "")
        lines += ["", table]
    return Group(*lines)


def search_table(found: Row) -> RenderableType:
    """What a search ends with: some of the front from the smallest to the largest."""
    from rich.console import Group

    rows = found["front"]
    step = max(1.0, (len(rows) - 1) / (MOST_ROWS - 1))
    shown = [rows[round(i * step)] for i in range(min(len(rows), MOST_ROWS))]
    more = f"; these are {len(shown)} of them: slimfront front {found['run']}" if len(shown) < len(rows) else ""
    return Group(candidates_table(shown, found["reference"], further_readings(found)), _standing(found) + more)


def _standing(front: Row) -> str:
    told = front.get("search") or {}
    ahead = ""
    if told.get("gain_ahead") is not None:
        ahead = f" (the next {told['ahead']} evaluations would probably add {told['gain_ahead']:.4f})"
    return f"{len(front['front'])} on the front, hypervolume {front['hypervolume']:.3f}{ahead}"


def further_readings(front: Row) -> dict[str, Row]:
    """Return what a front's document tells of the values of further objectives, by reading (`criteria.abouts`)."""
    return {one["value"]: {"name": one["name"], **one["readings"][one["value"]]} for one in front.get("objectives", ())}


def candidates_table(
    rows: Sequence[Row], reference: Row | None = None, further: Mapping[str, Row] | None = None
) -> RenderableType:
    """Measured candidates, compared with the reference where there is one.

    Args:
        rows: the candidates.
        reference: what they are compared with.
        further: what is told of values of further objectives, by reading (`criteria.abouts`), each a column.
    """
    columns = {f">{about['name'].replace('_', ' ')}": (name, about) for name, about in (further or {}).items()}
    compared = reference is not None
    has_target = reference is not None and reference["psnr_db"] < REFERENCE_CAP_DB
    doubts = any(row.get("front_probability", 1.0) < SURE for row in rows)
    told = "memory_bytes" in {name for name, _ in columns.values()}
    remembered = not told and any(_memory_text(row) for row in rows)
    left_out = (() if compared else (">smaller", ">change")) + (() if doubts else (">on front",))
    left_out += () if remembered else (">memory",)
    headers = [header for header in CANDIDATE_HEADERS if header not in left_out]
    headers[-1:-1] = columns
    table = _table(*headers)
    for row in rows:
        cells = {
            ">trial": MISSING if row["trial"] is None else str(row["trial"]),
            ">size": size_text(row["size_bytes"]),
            ">smaller": ratio_text(reference["size_bytes"], row["size_bytes"]) if reference else "",
            ">speedup": _times(row["speedup"]),
            ">95 %": interval_text(row["speedup_low"], row["speedup_high"]),
            ">on front": share_text(row.get("front_probability")),
            ">latency": time_text(row["latency_ms"]),
            ">PSNR": number_text(row["psnr_db"]),
            ">change": change_text(reference, row) if reference and has_target else MISSING,
            ">SSIM": number_text(row["ssim"], 4),
            ">memory": _memory_text(row) or MISSING,
            "layers": _layers_text(row["candidate"]),
            **{
                header: reading_text(row.get(name), about["unit"]).removesuffix(" dB")
                for header, (name, about) in columns.items()
            },
        }
        table.add_row(*(cells[header] for header in headers))
    return table


def predictions_table(rows: Sequence[Row]) -> RenderableType:
    """Predicted candidates."""
    table = _table(">speedup", ">90 %", ">latency", "layers")
    for row in rows:
        interval = interval_text(row["predicted_speedup_low"], row["predicted_speedup_high"])
        latency = time_text(row["predicted_latency_ms"])
        table.add_row(_times(row["predicted_speedup"]), interval, latency, _layers_text(row["candidate"]))
    return table


def candidate_view(row: Row, further: Mapping[str, Row] | None = None) -> RenderableType:
    """One measured candidate, a line for each number; ``further`` as of `candidates_table`."""
    table = _table("", "")
    table.show_header = False
    facts = {
        "trial": row["trial"],
        "size": size_text(row["size_bytes"]),
        "speedup": f"{_times(row['speedup'])} ({interval_text(row['speedup_low'], row['speedup_high'])})",
        "latency": time_text(row["latency_ms"]),
        "PSNR": f"{number_text(row['psnr_db'])} dB, worst image {number_text(row['worst_psnr_db'])} dB",
        "fidelity": f"{number_text(row['fidelity_db'])} dB",
        "SSIM": number_text(row["ssim"], 4),
        **{about["title"]: reading_text(row.get(name), about["unit"]) for name, about in (further or {}).items()},
        **({"memory": _memory_text(row)} if _memory_text(row) and "memory_bytes" not in (further or {}) else {}),
        "layers": _layers_text(row["candidate"]),
        "sha256": row["sha256"],
    }
    for name, value in facts.items():
        table.add_row(name, str(value))
    return table


def members_view(document: Row) -> RenderableType:
    """The members of a shipment, a line for each."""
    table = _table(">trial", ">size", ">speedup", ">latency", ">PSNR")
    for row in document["members"]:
        table.add_row(
            str(row["trial"]),
            size_text(row["size_bytes"]),
            f"{_times(row['speedup'])} ({interval_text(row['speedup_low'], row['speedup_high'])})",
            time_text(row["latency_ms"]),
            f"{number_text(row['psnr_db'])} dB",
        )
    return table


def _memory_text(row: Row) -> str:
    """Return a candidate's peak memory as measured, else as predicted; "" where it is not known."""
    if row.get("memory_bytes") is not None:
        return size_text(row["memory_bytes"])
    told = row.get("predicted_memory_bytes")
    return "" if told is None else f"{size_text(told)}, predicted"


def checks_view(verified: Row) -> RenderableType:
    """What was verified of a bundle, line by line."""
    table = _table("", "check", "found")
    for check in verified["checks"]:
        table.add_row("ok" if check["holds"] else "FAILS", check["name"], check["found"])
    return table


def explanation_view(explained: Row) -> RenderableType:
    """Where a candidate's time goes, the slowest layer first, with the reasons; then what would help most."""
    from rich.console import Group

    beside = ">reference" if explained["base"] == REFERENCE else ">uncompressed"  # the student itself, in float
    headers = ("", "kernel", ">MACs", ">bytes", beside, ">candidate", "share", "why", ">would help")
    table = _table(*headers)
    for rows, rest in ((explained["layers"], "layers"), (explained["between"], "between the layers")):
        shown = [row for row in rows if row["share"] >= LEAST_SHARE]
        for row in shown:
            _explained_row(table, row)
        _rest_row(table, [row for row in rows if row["share"] < LEAST_SHARE], rest)
        table.add_section()
    overhead = (time_text(explained[key]) for key in ("reference_overhead_ms", "overhead_ms"))
    table.add_row("between kernels", "", "", "", *overhead, "", "the runtime itself", "")
    whole = (time_text(explained[key]) for key in ("reference_ms", "candidate_ms"))
    table.add_row("the whole model", "", "", "", *whole, "", f"speedup as measured: {_times(explained['speedup'])}", "")
    return Group(table, "", explained["advice"])


def _explained_row(table: Table, row: Row) -> None:
    work = row.get("multiply_adds")
    help_ = f"{row['change'].split()[0]} −{time_text(row['gain_ms'])}" if row["help"] else ""
    table.add_row(
        f"conversion {row['name']}" if row.get("kind") == "conversion" else row["name"],
        row.get("kernel") or row["kind"],
        "" if work is None else f"{work / 1e6:.1f} M",
        size_text(row["bytes"]) if "bytes" in row else "",
        time_text(row["reference_ms"]),
        time_text(row["candidate_ms"]),
        f"{'█' * round(SHARE_BAR * row['share'])} {100 * row['share']:.0f} %".strip(),
        row["why"],
        help_,
    )


def _rest_row(table: Table, rows: Sequence[Row], name: str) -> None:
    """Sum up what is too small to be shown."""
    if rows:
        times = (time_text(sum(row[key] for row in rows)) for key in ("reference_ms", "candidate_ms"))
        share = f"{100 * sum(row['share'] for row in rows):.0f} %"
        why = f"each below {100 * LEAST_SHARE:.0f} % of the time"
        table.add_row(f"{len(rows)} more {name}", "", "", "", *times, share, why, "")


def lines_view(facts: Row) -> RenderableType:
    """Plain facts, one a line."""
    table = _table("", "")
    table.show_header = False
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), size_text(value) if name == "size_bytes" else str(value))
    return table


def _layers_text(candidate: Row) -> str:
    """Weight bits and how often: ``4b ×12, 8b ×29, 40 integer, −25–50 % of 6 groups``; what is not named is uncompressed."""
    layers = candidate["layers"].values()
    widths = Counter(layer.get("weight_bits", 32) for layer in layers)
    parts = [f"{bits}b ×{count}" for bits, count in sorted(widths.items())]
    integer = sum(layer.get("activation_bits", 32) == 8 for layer in layers)
    if layers:
        parts.append(f"{integer} integer")
    ratios = [group["pruning_ratio"] for group in candidate.get("groups", {}).values()]
    if ratios:
        low, high = (f"{100 * end:.0f}" for end in (min(ratios), max(ratios)))
        parts.append(f"−{low if low == high else f'{low}–{high}'} % of {len(ratios)} group{'s'[: len(ratios) > 1]}")
    sparse = [layer["sparsity"] for layer in layers if layer.get("sparsity")]
    if sparse:
        parts.append(f"{len(sparse)} sparse")
    forms = Counter(layer["form"] for layer in layers if "form" in layer)
    parts += [f"{count} in {form}" for form, count in sorted(forms.items())]
    if candidate.get("repair", "static") != "static":
        parts.append(candidate["repair"])
    if candidate.get("weights"):
        parts.append("trained")
    text = ", ".join(parts) or "uncompressed"
    return f"{student_name(candidate['student'])}: {text}" if candidate.get("student") else text


def _times(value: Any) -> str:
    text = number_text(value)
    return text if text == MISSING else f"{text}×"


def _table(*headers: str) -> Table:
    """Return a plain table; ``>`` in front of a header aligns its column to the right."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for header in headers:
        right = header.startswith(">")
        table.add_column(header.lstrip(">"), justify="right" if right else "left", no_wrap=right)
    return table
