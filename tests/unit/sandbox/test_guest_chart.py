"""Charts become data: read from what was drawn, bounded, and absent rather than wrong."""

from typing import Any

import pytest

from crank.sandbox.guest_chart import chart, note_boxes
from crank.sandbox.guest_plain import dumps
from tests.unit.sandbox.lookalikes import Asked, axes, axis, bar, drawn, figure, line

_BYTES = 64 * 1024


def _only(*parts: Any, **members: Any) -> Any:
    found = chart(figure(axes(**members)), _BYTES)
    assert found is not None
    return found["axes"][0]


def test_lines_give_their_points_and_labels() -> None:
    """A line chart has titles, axis labels, scales, and each line's points under its label."""
    found = chart(
        figure(
            axes(
                lines=[line([1, 2], [3.0, 4.0], label="up"), line([0, 1], [5, 5], transform="axes")],
                get_title=Asked("T"),
                get_xlabel=Asked("x"),
                get_yscale=Asked("log"),
            ),
            title="All",
        ),
        _BYTES,
    )
    assert found == {
        "title": "All",
        "axes": [
            {
                "type": "line",
                "title": "T",
                "x": {"label": "x", "scale": "linear"},
                "y": {"label": None, "scale": "log"},
                "series": [{"type": "line", "label": "up", "point_count": 2, "points": [[1, 3.0], [2, 4.0]]}],
                "truncated": False,
            }
        ],
    }


def test_markers_without_a_line_are_a_scatter() -> None:
    """Both ways of drawing a scatter are one type; an axes with two types is mixed."""
    dots = drawn("PathCollection", get_offsets=Asked([(1.0, 2.0)]), get_label=Asked("dots"))
    only = _only(lines=[line([1], [2], style="None")], collections=[dots])
    assert only["type"] == "scatter"
    assert [each["label"] for each in only["series"]] == [None, "dots"]
    assert _only(lines=[line([1], [2])], collections=[dots])["type"] == "mixed"


def test_bars_are_named_by_their_ticks() -> None:
    """A bar stands under the name of its tick, also where two series stand beside each other."""
    left = drawn("BarContainer", patches=[bar(-0.25, 0.25, 0, 3)], orientation="vertical", get_label=Asked("a"))
    right = drawn("BarContainer", patches=[bar(0, 0.25, 0, 4)], orientation="vertical", get_label=Asked("b"))
    only = _only(containers=[left, right], xaxis=axis("FixedFormatter", "FixedLocator"), ticks=[(0, "Graz")])
    assert only["x"] == {"label": None, "scale": "category", "categories": ["Graz"]}
    assert [each["points"] for each in only["series"]] == [[["Graz", 3.0]], [["Graz", 4.0]]]


def test_a_histogram_tells_how_wide_its_bars_are() -> None:
    """Bars over numbers are given by their middles and their width, without noise of floating point."""
    bins = drawn(
        "BarContainer",
        patches=[bar(5.4, 1.8, 0, 2), bar(7.2, 1.8, 0, 1)],
        orientation="vertical",
        get_label=Asked("_container0"),
    )
    only = _only(containers=[bins])
    assert only["series"][0]["points"] == [[6.3, 2.0], [8.1, 1.0]]
    assert (only["series"][0]["bar_width"], only["series"][0]["label"]) == (1.8, None)


def test_pies_give_shares() -> None:
    """A pie has no axes; each slice has its label and its share of the whole."""
    slices = [
        drawn("Wedge", theta1=0, theta2=90, get_label=Asked("a")),
        drawn("Wedge", theta1=90, theta2=360, get_label=Asked("")),
    ]
    only = _only(patches=slices)
    assert only["type"] == "pie"
    assert only["series"][0]["points"] == [["a", 0.25], [None, 0.75]]
    assert "x" not in only


def test_boxes_come_from_what_they_were_drawn_from() -> None:
    """A box is told by its five numbers and its outliers; the lines that it is made of are no series."""
    median, whisker = line([0, 2], [2, 2]), line([1, 1], [0, 1])
    standing = axes(lines=[median, whisker])
    statistics = {"label": "g", "whislo": 1, "q1": 1.5, "med": 2, "q3": 3, "whishi": 4, "fliers": [9]}
    note_boxes(standing, [statistics], {"medians": [median], "whiskers": [whisker]})
    found = chart(figure(standing), _BYTES)
    assert found is not None
    assert found["axes"][0]["series"] == [
        {
            "type": "box",
            "label": "g",
            "box": {"minimum": 1, "q1": 1.5, "median": 2, "q3": 3, "maximum": 4},
            "outlier_count": 1,
            "outliers": [9],
        }
    ]
    standing.lines.clear()
    cleared = chart(figure(standing), _BYTES)
    assert cleared is not None
    assert cleared["axes"][0]["series"] == []


def test_long_series_are_thinned_evenly() -> None:
    """A million points become a thousand at most, the first and the last among them, and the count is true."""
    many = list(range(1_000_000))
    only = _only(lines=[line(many, many)])
    series = only["series"][0]
    assert series["point_count"] == 1_000_000
    assert len(series["points"]) <= 1_001
    assert (series["points"][0], series["points"][-1]) == ([0, 0], [999_999, 999_999])
    assert only["truncated"]


def test_a_chart_is_coarser_rather_than_too_large() -> None:
    """Where the points do not fit, there are fewer; where nothing fits, there is no chart."""
    crowd = figure(axes(lines=[line([n / 7 for n in range(900)], [n / 3 for n in range(900)]) for _ in range(60)]))
    found = chart(crowd, 32 * 1024)
    assert found is not None
    assert len(dumps(found)) <= 32 * 1024
    assert len(found["axes"][0]["series"]) == 50
    assert found["axes"][0]["truncated"]
    assert chart(crowd, 1_000) is None


def test_what_is_not_known_keeps_its_title() -> None:
    """A picture or a chart in space has a title and labels and no series; a legend of colours is left out."""
    found = chart(figure(axes(get_title=Asked("im")), axes(name="3d"), axes(get_label=Asked("<colorbar>"))), _BYTES)
    assert found is not None
    assert [(each["type"], each["title"]) for each in found["axes"]] == [("other", "im"), ("other", None)]


@pytest.mark.parametrize("missing", ["get_title", "lines", "xaxis"])
def test_a_figure_of_another_shape_gives_no_chart(missing: str) -> None:
    """What cannot be read is left out, and nothing is raised."""
    broken = axes()
    delattr(broken, missing)
    assert chart(figure(broken), _BYTES) is None
