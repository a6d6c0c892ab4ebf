"""Charts as SVG: shapes only, stretched to whatever width there is; what is written stands around them, as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

_WIDTH, _HEIGHT = 1000, 100
_GAP = 0.25  # of a bar's step


@dataclass(frozen=True)
class Point:
    """A value, and what is said of it when one points at it."""

    value: float
    words: str


def draw(kind: Literal["area", "bars"], points: Sequence[Point], title: str, description: str) -> Markup:
    """Draw values from 0 to their largest; all text in it is escaped.

    :param title, description: what a screen reader says instead of the shapes.
    """
    largest = max((point.value for point in points), default=0) or 1
    heights = [max(point.value, 0) / largest * _HEIGHT for point in points]
    shapes = _draw_bars(points, heights) if kind == "bars" else _draw_area(points, heights)
    return Markup(
        '<svg class="chart {}" viewBox="0 0 {} {}" preserveAspectRatio="none" role="img">'
        '<title>{}</title><desc>{}</desc><path class="grid" d="M0 0H{}M0 50H{}M0 {}H{}"/>{}</svg>'
    ).format(kind, _WIDTH, _HEIGHT, title, description, _WIDTH, _WIDTH, _HEIGHT, _WIDTH, Markup("").join(shapes))


def _draw_bars(points: Sequence[Point], heights: Sequence[float]) -> list[Markup]:
    step = _WIDTH / max(len(points), 12)  # a few bars stay bars
    bar = Markup('<rect class="bar" x="{:.1f}" y="{:.2f}" width="{:.1f}" height="{:.2f}"><title>{}</title></rect>')
    drawn = []
    for index, (point, height) in enumerate(zip(points, heights, strict=True)):
        seen = max(height, 1.0)  # little is not nothing
        drawn.append(bar.format((index + _GAP / 2) * step, _HEIGHT - seen, step * (1 - _GAP), seen, point.words))
    return drawn


def _draw_area(points: Sequence[Point], heights: Sequence[float]) -> list[Markup]:
    if not points:
        return []
    step = _WIDTH / max(len(points) - 1, 1)
    places = [(index * step, _HEIGHT - height) for index, height in enumerate(heights)]
    if len(places) == 1:
        places.append((float(_WIDTH), places[0][1]))
    line = "L".join(f"{x:.1f} {y:.2f}" for x, y in places)
    target = Markup('<rect class="target" x="{:.1f}" y="0" width="{:.1f}" height="{}"><title>{}</title></rect>')
    return [
        Markup('<path class="area" d="M0 {}L{}L{} {}Z"/><path class="line" d="M{}"/>').format(
            _HEIGHT, line, _WIDTH, _HEIGHT, line
        ),
        *(target.format((index - 0.5) * step, step, _HEIGHT, point.words) for index, point in enumerate(points)),
    ]
