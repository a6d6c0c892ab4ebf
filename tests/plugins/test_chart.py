"""Charts, and the words for times."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_rocksdb.plugins.chart import Point, draw
from airflow_provider_rocksdb.plugins.words import format_ago, format_every, format_span

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["area", "bars"])
@pytest.mark.parametrize("values", [[], [0], [5], [0, 0], [1, 2, 3], [3] * 60])
def test_well_formed(kind: str, values: list[int]) -> None:
    """Every chart is well-formed, names itself, and has a shape with words for each value, all within its bounds."""
    svg = ET.fromstring(draw(kind, [Point(value, f"it is {value}") for value in values], "T", "D"))  # type: ignore[arg-type]  # noqa: S314 -- ours
    assert [child.text for child in svg if child.tag in ("title", "desc")] == ["T", "D"]
    shapes = [shape for shape in svg if shape.tag == "rect"]
    assert [shape.findtext("title") for shape in shapes] == [f"it is {value}" for value in values]
    for shape in shapes:
        assert 0 <= float(shape.attrib["y"]) <= float(shape.attrib["y"]) + float(shape.attrib["height"]) <= 100.01


def test_heights() -> None:
    """The largest value takes all of the height, half of it half, and the least is still to be seen."""
    svg = ET.fromstring(draw("bars", [Point(200, ""), Point(100, ""), Point(0, "")], "T", "D"))  # noqa: S314 -- ours
    assert [float(shape.attrib["height"]) for shape in svg if shape.tag == "rect"] == [100, 50, 1]


def test_escaped() -> None:
    """Markup in any of the texts is text."""
    drawn = draw("bars", [Point(1, "<script>1")], "<script>2", "<script>3")
    assert "<script>" not in drawn
    assert drawn.count("&lt;script&gt;") == 3


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (90, "1 minute 30 seconds"),
        (725, "12 minutes"),
        (3600, "1 hour"),
        (5400, "1 hour 30 minutes"),
        (129600, "1 day 12 hours"),
        (86400 * 9 + 3600, "9 days"),
    ],
)
def test_span(seconds: int, words: str) -> None:
    """A length of time is told in one or two units, as one would say it."""
    assert format_span(timedelta(seconds=seconds)) == words


def test_every() -> None:
    """An interval of one unit needs no number."""
    assert [format_every(timedelta(minutes=minutes)) for minutes in (60, 90, 180)] == [
        "every hour",
        "every 1 hour 30 minutes",
        "every 3 hours",
    ]


def test_ago() -> None:
    """A time in the future, by a clock that is ahead, is just now."""
    assert format_ago(NOW, NOW - timedelta(seconds=5)) == "just now"
    assert format_ago(NOW - timedelta(hours=3), NOW) == "3 hours ago"
    assert format_ago(NOW - timedelta(seconds=119), NOW) == "1 minute ago"
