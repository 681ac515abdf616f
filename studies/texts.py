"""Numbers as people read them: sizes, times, ratios and intervals, for tables, cards and the report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ..spaces.shorten import WITHOUT
from ..spaces.student import Student

MISSING = "–"


def known(value: Any) -> bool:
    """Whether a value is a finite number (a JSON null is not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def size_text(size_bytes: Any) -> str:
    """Bytes in decimal units, as the command line reads them: 812 kB, 1.35 MB."""
    if not known(size_bytes):
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f} {unit}"
    return f"{size_bytes:.0f} B"


def time_text(milliseconds: Any) -> str:
    """Milliseconds with three digits: 0.412 ms, 12.3 ms, 1.24 s."""
    if not known(milliseconds):
        return MISSING
    if milliseconds >= 1000:
        return f"{milliseconds / 1000:.2f} s"
    return f"{milliseconds:.{0 if milliseconds >= 100 else 1 if milliseconds >= 10 else 2}f} ms"


def number_text(value: Any, digits: int = 2, sign: bool = False) -> str:
    """A number with fixed digits and a true minus sign."""
    if not known(value):
        return MISSING
    text = f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"
    if float(text) == 0.0:
        text = text.lstrip("+-")
    return text.replace("-", "−")


def reading_text(value: Any, unit: str = "") -> str:
    """A reading of any objective with its unit: 28.31 dB, 0.982, 12.4 ms, 1.35 MB."""
    if unit == "bytes":
        return size_text(value)
    if unit == "ms":
        return time_text(value)
    text = number_text(value, _digits(value, unit))
    if text == MISSING or not unit:
        return text
    return f"{text}×" if unit == "x" else f"{text} {unit}"


def _digits(value: Any, unit: str) -> int:
    """Return how many digits a reading is told with behind the point: three that count, where it is small."""
    if unit == "dB" or not known(value) or abs(value) >= 100:
        return 2
    return 3 if abs(value) >= 0.1 or value == 0 else min(2 - math.floor(math.log10(abs(value))), 9)


def interval_text(low: Any, high: Any, digits: int = 2) -> str:
    """``3.41–3.58``, or a dash where there is no interval."""
    return f"{low:.{digits}f}–{high:.{digits}f}" if known(low) and known(high) else MISSING


def ratio_text(reference: Any, value: Any) -> str:
    """How many times smaller: ``4.3×``."""
    if not (known(reference) and known(value)) or value <= 0:
        return MISSING
    return f"{reference / value:.1f}×"


def change_text(reference: Mapping[str, Any], row: Mapping[str, Any], key: str = "psnr_db") -> str:
    """The difference to the reference with its sign: ``−0.42``."""
    if not (known(reference.get(key)) and known(row.get(key))):
        return MISSING
    return number_text(row[key] - reference[key], sign=True)


def preference_text(value: float, low: float | None, high: float | None) -> str:
    """How often people prefer one to another: ``62% (40% to 80%)``."""
    return f"{value:.0%} ({low:.0%} to {high:.0%})"


def runtime_text(environment: Mapping[str, Any], provider: bool = False) -> str:
    """Name the runtime of an environment, as a run or a bundle keeps it: "ONNX Runtime 1.22.0", "OpenVINO 2026.4.1, f32".

    Args:
        environment: the facts.
        provider: whether ONNX Runtime's execution provider is named as well.
    """
    if environment.get("runtime"):
        return str(environment["runtime"])
    name = f"ONNX Runtime {environment.get('onnxruntime', 'unknown')}"
    return f"{name} ({environment.get('provider')})" if provider else name


def seconds_text(seconds: float) -> str:
    """A duration: 45 s, 2 min 05 s, 1 h 12 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def share_text(share: float | None) -> str:
    """A probability in percent; nothing is said to be certain that is only nearly so."""
    if share is None:
        return MISSING
    return "100 %" if share == 1.0 else f"{min(max(100.0 * share, 1.0), 99.0):.0f} %"


def is_elastic(student: Mapping[str, Any]) -> bool:
    """Whether a student is of the elastic family, and not of a researcher's own."""
    return set(student) == {field.name for field in fields(Student)}


def is_shortened(student: Mapping[str, Any]) -> bool:
    """Whether a student is the reference without some of its blocks."""
    return set(student) == {WITHOUT} and isinstance(student[WITHOUT], str)


def student_name(student: Mapping[str, Any]) -> str:
    """Return a short name: "student 48-24-4", the channels at the coarse and at the fine size, and the blocks."""
    if is_shortened(student):
        return f"student without {len(student[WITHOUT].split(', '))} of the blocks"
    keys = ("width", "fine_width", "depth") if is_elastic(student) else student
    return f"student {'-'.join(str(student[key]) for key in keys)}"


def student_text(student: Mapping[str, Any]) -> str:
    """Return a student's architecture in words: "4 residual blocks of 48 channels at 1/4 of the size, 24 channels at 1/2"."""
    if is_shortened(student):
        return f"the reference without the residual blocks {student[WITHOUT]}"
    if not is_elastic(student):
        return ", ".join(f"{key} {value}" for key, value in student.items()) or "its only one"
    coarse, fine = student["coarse"], student["fine"]
    text = f"{student['depth']} {student['block']} blocks of {student['width']} channels at {_part(coarse)} of the size"
    if fine != coarse:
        text += f", {student['fine_width']} channels at {_part(fine)}"
    return text + (f", {student['fine_depth']} blocks there" if student["fine_depth"] else "")


def _part(times: int) -> str:
    return "all" if times == 1 else f"1/{times}"
