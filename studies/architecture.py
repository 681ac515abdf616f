"""A student's architecture as a drawing: one bar a tensor, as high as the tensor is large, as wide as it has channels."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..spaces.student import Student
from . import figures
from .texts import is_elastic, student_text

HIGH = 96.0  # of the output, in pixels
LEAST_HIGH = 10.0
CHANNEL = 0.7  # pixels a channel is wide
LEAST_WIDE = 5.0
GAP = 28.0
TEXT = 15.0


@dataclass(frozen=True)
class Bar:
    """A tensor.

    Attributes:
        size: how many times smaller than the output it is, along each axis.
        channels: how many it has.
        blocks: that work on it.
    """

    size: int
    channels: int
    blocks: int = 0


def bars_of(student: Student) -> list[Bar]:
    """Return a student's tensors in the order of the data: down to the coarse size, blocks, up to the fine size."""
    down = [Bar(size, student.channels(size)) for size in reversed(student.sizes[1:])]
    coarse = Bar(student.coarse, student.width, student.depth)
    up = [Bar(size, student.channels(size)) for size in student.sizes[1:]]
    if student.fine_depth:
        last = (up or [coarse])[-1]
        fine = Bar(last.size, last.channels, last.blocks + student.fine_depth)
        return [*down, coarse, *up[:-1], fine] if up else [fine]
    return [*down, coarse, *up]


def drawing_html(parameters: Mapping[str, Any]) -> str:
    """Return the drawing of a student as HTML, given its parameters; of one that is not of the elastic family, its words."""
    drawn = drawing_svg(parameters) or ""
    return f'<figure class="student">{drawn}<figcaption>student: {html.escape(student_text(parameters))}</figcaption></figure>'


def drawing_svg(parameters: Mapping[str, Any]) -> str | None:
    """Return the drawing alone, as SVG; None where a student is not of the elastic family."""
    if not is_elastic(parameters):
        return None
    student = Student.from_json(parameters)
    shown, x = "", 0.0
    middle = HIGH / 2.0
    for number, bar in enumerate(bars_of(student)):
        high = max(HIGH / bar.size, LEAST_HIGH)
        wide = max(CHANNEL * bar.channels, LEAST_WIDE)
        if number:
            shown += _line(x - GAP + 3.0, x - 3.0, middle)
        shown += f'<rect x="{x:.1f}" y="{middle - high / 2:.1f}" width="{wide:.1f}" height="{high:.1f}" rx="2"/>'
        shown += _text(x + wide / 2.0, HIGH + TEXT - 4.0, str(bar.channels))
        if bar.blocks:
            shown += _text(x + wide / 2.0, middle - high / 2 - 4.0, f"× {bar.blocks}")
        x += wide + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x - GAP + 24:.0f}" height="{HIGH + TEXT:.0f}" '
        f'viewBox="-12 0 {x - GAP + 24:.0f} {HIGH + TEXT:.0f}" role="img" '
        f'aria-label="{html.escape(student_text(parameters))}" '
        f'fill="{figures.ACCENT}" font-size="11" font-family="system-ui, sans-serif">{shown}</svg>'
    )


def _line(start: float, end: float, y: float) -> str:
    return f'<path d="M{start:.1f} {y}H{end:.1f}" stroke="{figures.GREY}" stroke-width="1.5"/>'


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="middle" fill="{figures.INK}">{text}</text>'
