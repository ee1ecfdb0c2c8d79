"""Figures as SVG, drawn for a page that has no scripts to draw them: colours and type are page.css's, by class.

`s0`, `s1` ... are the arms, told apart by colour, by shape and by dashes. Figures beside numbers are hidden from screen
readers; the curves say in words what they show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

SERIES = 6  # that look different
_LINE = 18  # pixels that an arm takes in a figure in a table
_POINTS = 160  # of a curve


@dataclass(frozen=True, slots=True)
class Mark:
    """A value with the ends of its interval, as far as it has any."""

    value: float
    low: float | None
    high: float | None


def intervals(marks: Sequence[Mark | None], bound: float | None, top: float) -> Markup:
    """Values between 0 and `top`, one line for each arm; what passes lies beyond the `bound`'s stroke."""
    height = _LINE * len(marks)

    def x(value: float) -> str:
        return _percent(value / top)

    parts = [_line("axis", x(0), _LINE / 2, x(top), _LINE / 2)] if len(marks) == 1 else []
    parts += [_line("axis", x(end), 3, x(end), height - 3) for end in (0, top)]
    if bound is not None and 0 < bound < top:
        parts.append(_line("bound", x(bound), 1, x(bound), height - 1))
    for number, mark in enumerate(marks):
        if mark is None:
            continue
        y = _LINE * (number + 0.5)
        if mark.low is not None and mark.high is not None:
            parts.append(_line(f"range s{number % SERIES}", x(mark.low), y, x(mark.high), y))
        parts.append(_shape(number, x(mark.value), y))
    return _fluid(height, parts)


def difference(mark: Mark, extent: float, verdict: str) -> Markup:
    """B - A around zero, on a scale that ends at `extent` on both sides."""

    def x(value: float) -> str:
        return _percent(0.5 + value / (extent or 1.0) / 2)

    look, y = verdict if verdict in ("better", "worse") else "unseen", _LINE / 2
    parts = [_line("axis", "0%", y, "100%", y), _line("zero", x(0), 1, x(0), _LINE - 1)]
    if mark.low is not None and mark.high is not None:
        parts.append(_line(f"range {look}", x(mark.low), y, x(mark.high), y))
    parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="4.5"/>').format(look, x(mark.value), y))
    return _fluid(_LINE, parts)


def left(before: int, after: int, all_of_them: int) -> Markup:
    """A step of a funnel: what came in, and what of it stays."""
    all_of_them = max(all_of_them, 1)
    bar = Markup('<rect class="{}" x="{}" y="3" width="{}" height="12"/>')
    parts = [
        bar.format("stays", "0%", _percent(after / all_of_them)),
        bar.format("goes", _percent(after / all_of_them), _percent((before - after) / all_of_them)),
    ]
    return _fluid(_LINE, parts)


def curves(series: Sequence[tuple[str, npt.NDArray[np.float64]]], label: str) -> Markup:
    """How many of the replies had come after so many seconds: for each name its seconds, in any order."""
    wide, high, foot, side = 480, 230, 30, 40
    end = _round_up(max(float(np.quantile(seconds, 0.99)) for _, seconds in series) * 1.05 or 1.0)

    def x(second: float) -> float:
        return round(side + (wide - side - 12) * min(second / end, 1.0), 1)

    def y(share: float) -> float:
        return round(high - foot - (high - foot - 12) * share, 1)

    parts = []
    for share in (0, 0.25, 0.5, 0.75, 0.95, 1):
        parts.append(_line("grid" if share else "axis", x(0), y(share), x(end), y(share)))
        if share not in (0.25, 0.75, 1):
            parts.append(_text(side - 8, y(share) + 4, f"{share:.0%}", "end"))
    for step in range(5):
        parts.append(_text(x(end * step / 4), high - 12, f"{end * step / 4:.3g} s", "end" if step == 4 else "middle"))
    for number, (_, seconds) in enumerate(series):
        shares = np.linspace(0, 1, min(_POINTS, len(seconds)) + 1)
        at = np.quantile(seconds, shares)
        points = " ".join(f"{x(float(a))},{y(float(s))}" for a, s in zip(at, shares, strict=True) if a <= end)
        look = f"s{number % SERIES}"
        parts.append(Markup('<polyline class="curve {}" points="{}"/>').format(look, points))
        for share in (0.5, 0.95):
            second = float(np.quantile(seconds, share))
            if second <= end:
                parts.append(_shape(number, x(second), y(share)))
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>')
    return svg.format(wide, high, label, Markup("").join(parts))


def _round_up(value: float) -> float:
    """To a number that divides by four in few digits."""
    size = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(size * step for step in (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10, 12) if size * step >= value)


def _percent(share: float) -> str:
    """A place in a figure that is as wide as its column."""
    return f"{100 * min(max(share, 0.0), 1.0):.4g}%"


def _line(look: str, x1: float | str, y1: float, x2: float | str, y2: float) -> Markup:
    return Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(look, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _shape(number: int, x: float | str, y: float) -> Markup:
    """The sign of an arm."""
    look = f"dot s{number % SERIES}"
    if corners := _CORNERS.get(number % 4):
        sign = Markup('<svg x="{}" y="{}" overflow="visible"><polygon class="{}" points="{}"/></svg>')
        return sign.format(x, y, look, corners)
    return Markup('<circle class="{}" cx="{}" cy="{}" r="4.5"/>').format(look, x, y)


_CORNERS = {1: "0,-6 6,0 0,6 -6,0", 2: "-4,-4 4,-4 4,4 -4,4", 3: "0,-5 5,4 -5,4"}


def key(number: int) -> Markup:
    """The sign of an arm, for a legend."""
    return Markup('<svg width="18" height="18" aria-hidden="true">{}</svg>').format(_shape(number, 9, 9))


def _fluid(height: float, parts: Sequence[Markup]) -> Markup:
    svg = Markup('<svg class="fluid" width="100%" height="{}" aria-hidden="true">{}</svg>')
    return svg.format(height, Markup("").join(parts))
