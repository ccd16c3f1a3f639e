"""Inside the sandbox: what a matplotlib figure shows, as data, so that an agent need not look at pixels.

Read from the drawn figure by its public parts; matplotlib is never imported here. What is not a line, a
scatter, a bar, a pie or a box chart keeps its title and labels and has the type `other`. Everything is bounded.
"""

from __future__ import annotations

from crank.sandbox.guest_plain import cell, dumps, made_by, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_AXES_MAX = 32
_SERIES_MAX = 50
# Tried in this order until the chart fits its bytes.
_POINTS_MAX = (1_000, 300, 100, 30, 8)
_CATEGORIES_MAX = 200
_TOLERANCE = 0.5


class _Notes:
    """What was noted while charts were drawn, by axes: a drawn box is nothing but lines."""

    boxes: Any = None


def chart(figure: Any, bytes_max: int) -> dict[str, Any] | None:
    """Return a figure's form as data, or None where it does not fit or cannot be read."""
    for points_max in _POINTS_MAX:
        try:
            axes = [_of_axes(each, points_max) for each in figure.axes[:_AXES_MAX] if not _is_legend_bar(each)]
        except Exception:
            return None
        suptitle = getattr(figure, "get_suptitle", str)
        found = {"title": _label(suptitle()), "axes": axes}
        if axes and len(dumps(found)) <= bytes_max:
            return found
    return None


def note_boxes(axes: Any, statistics: Any, artists: Any) -> None:
    """Keep what the boxes of an axes were drawn from. `artists` is what matplotlib returned: lists by kind."""
    if _Notes.boxes is None:
        import weakref

        _Notes.boxes = weakref.WeakKeyDictionary()
    noted = _Notes.boxes.setdefault(axes, _Boxes())
    noted.boxes += zip([dict(each) for each in statistics], artists["medians"], strict=False)
    noted.parts.update(id(artist) for kind in artists.values() for artist in kind)


class _Boxes:
    """The boxes of one axes, each with its median line, and every artist that is part of one."""

    def __init__(self) -> None:
        self.boxes: list[tuple[dict[str, Any], Any]] = []
        self.parts: set[int] = set()


def _boxes_of(axes: Any) -> _Boxes:
    found = None if _Notes.boxes is None else _Notes.boxes.get(axes)
    return found or _Boxes()


class _Scale:
    """One axis: how its positions are written as data."""

    def __init__(self, axes: Any, name: str) -> None:
        axis = getattr(axes, f"{name}axis")
        self.label = _label(getattr(axes, f"get_{name}label")())
        self.kind = text(getattr(axes, f"get_{name}scale")())
        self.names = _tick_names(axes, axis, name)
        get_converter = getattr(axis, "get_converter", None)
        converter = type(get_converter() if get_converter else getattr(axis, "converter", None)).__name__
        formatter = type(axis.get_major_formatter()).__name__
        self._to_time = None
        if "Date" in converter or "Period" in converter or "Date" in formatter:
            import sys

            self.kind, self.names = "datetime", {}
            self._to_time = getattr(sys.modules.get("matplotlib.dates"), "num2date", None)
        elif self.names:
            self.kind = "category"

    def form(self) -> dict[str, Any]:
        found: dict[str, Any] = {"label": self.label, "scale": self.kind}
        if self.names:
            found["categories"] = list(self.names.values())
        return found

    def at(self, position: Any) -> Any:
        """Return a position as a person would name it."""
        if isinstance(position, str):
            return text(position)
        if self.names and hasattr(position, "__float__"):
            near = min(self.names, key=lambda place: abs(place - float(position)))
            if abs(near - float(position)) < _TOLERANCE:
                return self.names[near]
        plain = cell(position)
        if self._to_time is not None and isinstance(plain, int | float):
            moment = self._to_time(plain).replace(tzinfo=None).isoformat()
            return moment.removesuffix("T00:00:00")
        return _rounded(plain)


def _tick_names(axes: Any, axis: Any, name: str) -> dict[float, str]:
    """Return the names of an axis's positions, where its ticks are names and not numbers."""
    formatter = type(axis.get_major_formatter()).__name__
    if formatter not in ("StrCategoryFormatter", "FixedFormatter", "FuncFormatter"):
        return {}
    ticks = zip(getattr(axes, f"get_{name}ticks")(), getattr(axes, f"get_{name}ticklabels")(), strict=False)
    named = [(float(at), text(tick.get_text())) for at, tick in ticks]
    names = {at: label for at, label in named[:_CATEGORIES_MAX] if label}
    if formatter == "StrCategoryFormatter":
        return names
    # Labels that were laid by hand may still be numbers, and a function may only write numbers in its own way.
    placed = type(axis.get_major_locator()).__name__ == "FixedLocator"
    words = [any(sign.isalpha() for sign in label) for label in names.values()]
    digits = any(sign.isdigit() for label in names.values() for sign in label)
    return names if any(words) and (placed or not digits) else {}


def _rounded(value: Any) -> Any:
    # The middle of a bar is computed; nobody wants to read 6.300000000000001.
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _is_legend_bar(axes: Any) -> bool:
    return bool(axes.get_label() == "<colorbar>")


def _label(value: Any) -> str | None:
    # Labels that begin with an underscore are matplotlib's own.
    return text(value) if isinstance(value, str) and value and not value.startswith("_") else None


def _of_axes(axes: Any, points_max: int) -> dict[str, Any]:
    x, y = _Scale(axes, "x"), _Scale(axes, "y")
    series = []
    count = 0
    for each in _series(axes, x, y, points_max):
        count += 1
        if count <= _SERIES_MAX:
            series.append(each)
    kinds = sorted({each["type"] for each in series})
    found: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else "mixed" if kinds else "other"}
    found["title"] = _label(axes.get_title())
    if found["type"] != "pie":
        found.update(x=x.form(), y=y.form())
    found["series"] = series
    found["truncated"] = count > _SERIES_MAX or any(
        each.get("point_count", 0) > len(each.get("points", ())) for each in series
    )
    return found


def _series(axes: Any, x: _Scale, y: _Scale, points_max: int) -> Iterator[dict[str, Any]]:
    if axes.name == "3d":
        return
    yield from _bars(axes, x, y, points_max)
    yield from _pies(axes, points_max)
    yield from _box_plots(axes, x, y, points_max)
    named, taken = _contained(axes)
    taken |= _boxes_of(axes).parts
    for line in axes.lines:
        # A line in other coordinates than the data's is a ruler, not a series.
        if id(line) not in taken and line.get_transform() == axes.transData:
            marked_only = str(line.get_linestyle()).lower() in ("none", "", " ")
            xs, ys = line.get_xdata(orig=True), line.get_ydata(orig=True)
            label = named.get(id(line)) or _label(line.get_label())
            yield _points("scatter" if marked_only else "line", label, _pairs(xs, ys, x, y, points_max), len(xs))
    for collection in axes.collections:
        if made_by(collection, "matplotlib", "PathCollection"):
            places = collection.get_offsets()
            pairs = [[x.at(float(at[0])), y.at(float(at[1]))] for at in _sample(places, points_max)]
            yield _points("scatter", _label(collection.get_label()), pairs, len(places))


def _points(kind: str, label: str | None, pairs: list[Any], count: int) -> dict[str, Any]:
    return {"type": kind, "label": label, "point_count": count, "points": pairs}


def _sample(items: Any, most: int) -> Iterable[Any]:
    """Return at most so many items, evenly spread, the first and the last among them."""
    count = len(items)
    if count <= most:
        return list(items)
    step = -(-(count - 1) // (most - 1))
    picked = list(items[::step])
    return picked if (count - 1) % step == 0 else [*picked, items[-1]]


def _pairs(xs: Any, ys: Any, x: _Scale, y: _Scale, most: int) -> list[Any]:
    found = zip(_sample(xs, most), _sample(ys, most), strict=False)
    return [[x.at(one), y.at(other)] for one, other in found]


def _contained(axes: Any) -> tuple[dict[int, str | None], set[int]]:
    """Return the label of each line that carries error bars or stems, and the lines that only belong to one."""
    named: dict[int, str | None] = {}
    parts: set[int] = set()
    for container in axes.containers:
        if made_by(container, "matplotlib", "ErrorbarContainer"):
            line, ends, _ = container.lines
            parts.update(id(end) for end in ends)
        elif made_by(container, "matplotlib", "StemContainer"):
            line = container.markerline
            parts.add(id(container.baseline))
        else:
            continue
        named[id(line)] = _label(container.get_label())
    return named, parts


def _bars(axes: Any, x: _Scale, y: _Scale, points_max: int) -> Iterator[dict[str, Any]]:
    for container in axes.containers:
        if not made_by(container, "matplotlib", "BarContainer"):
            continue
        lying = getattr(container, "orientation", "vertical") == "horizontal"
        bars = list(container.patches)
        pairs = []
        for bar in _sample(bars, points_max):
            if lying:
                pairs.append([y.at(bar.get_y() + bar.get_height() / 2), cell(float(bar.get_width()))])
            else:
                pairs.append([x.at(bar.get_x() + bar.get_width() / 2), cell(float(bar.get_height()))])
        found = _points("bar", _label(container.get_label()), pairs, len(bars))
        found["orientation"] = "horizontal" if lying else "vertical"
        along = y if lying else x
        if bars and not along.names and along.kind == "linear":
            found["bar_width"] = _rounded(float(bars[0].get_height() if lying else bars[0].get_width()))
        yield found


def _pies(axes: Any, points_max: int) -> Iterator[dict[str, Any]]:
    wedges = [patch for patch in axes.patches if made_by(patch, "matplotlib", "Wedge")]
    if wedges:
        shares = [
            [_label(wedge.get_label()), round((float(wedge.theta2) - float(wedge.theta1)) / 360, 6)]
            for wedge in _sample(wedges, points_max)
        ]
        yield _points("pie", None, shares, len(wedges))


_BOX_FIELDS = (("minimum", "whislo"), ("q1", "q1"), ("median", "med"), ("q3", "q3"), ("maximum", "whishi"))


def _box_plots(axes: Any, x: _Scale, y: _Scale, points_max: int) -> Iterator[dict[str, Any]]:
    standing = {id(line) for line in axes.lines}
    for statistics, median in _boxes_of(axes).boxes:
        # Gone when the axes were cleared after the box was drawn.
        if id(median) not in standing:
            continue
        outliers = statistics.get("fliers")
        outliers = [] if outliers is None else outliers
        yield {
            "type": "box",
            "label": _label(str(statistics.get("label") or "")) or _box_name(median, x, y),
            "box": {name: cell(statistics.get(field)) for name, field in _BOX_FIELDS},
            "outlier_count": len(outliers),
            "outliers": [cell(value) for value in _sample(outliers, points_max)],
        }


def _box_name(median: Any, x: _Scale, y: _Scale) -> str | None:
    scale, places = (x, median.get_xdata()) if x.names else (y, median.get_ydata())
    name = scale.at((float(places[0]) + float(places[-1])) / 2) if scale.names else None
    return name if isinstance(name, str) else None
