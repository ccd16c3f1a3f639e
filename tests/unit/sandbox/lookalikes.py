"""Objects shaped like those of pandas and matplotlib, which are not installed where the unit tests run.

They have only what the guest asks for. The real ones are met in tests/system/test_rich_results.py.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any


class Index:
    """One level of labels, or several."""

    def __init__(self, labels: Sequence[Any], name: Any = None, levels: Sequence[Any] = ()) -> None:
        self._labels = list(labels)
        self.name = name
        self.dtype = "int64" if all(isinstance(label, int) for label in labels) else "object"
        self.levels = list(levels)
        self.nlevels = len(self.levels) or 1

    def __len__(self) -> int:
        return len(self._labels)

    def tolist(self) -> list[Any]:
        return self._labels


class Series:
    """A column with labels."""

    def __init__(self, values: Sequence[Any], name: Any) -> None:
        self._values = list(values)
        self.name = name
        self.dtype = "int64"
        self.index = Index(range(len(self._values)))

    @property
    def iloc(self) -> Any:
        cut = self

        class Cut:
            def __getitem__(self, rows: slice) -> "Series":
                return Series(cut._values[rows], cut.name)

        return Cut()

    def tolist(self) -> list[Any]:
        return self._values

    def to_frame(self) -> "Frame":
        return Frame({self.name: ("int64", self._values)})


class Frame:
    """Columns by name, each with its type and its cells."""

    def __init__(self, columns: Mapping[Any, tuple[str, list[Any]]], index: Index | None = None) -> None:
        self._columns = dict(columns)
        longest = max((len(cells) for _, cells in columns.values()), default=0)
        self.index = index or Index(range(longest))

    @property
    def columns(self) -> list[Any]:
        return list(self._columns)

    @property
    def dtypes(self) -> list[str]:
        return [dtype for dtype, _ in self._columns.values()]

    @property
    def iloc(self) -> Any:
        whole = self

        class Cut:
            def __getitem__(self, at: tuple[slice, slice]) -> "Frame":
                names = whole.columns[at[1]]
                cut = {name: (whole._columns[name][0], whole._columns[name][1][at[0]]) for name in names}
                labels = Index(whole.index.tolist()[at[0]], whole.index.name, whole.index.levels)
                return Frame(cut, labels)

        return Cut()

    def itertuples(self, *, index: bool, name: None) -> Iterator[tuple[Any, ...]]:
        assert not index
        return zip(*(cells for _, cells in self._columns.values()), strict=True)

    def to_html(self, **options: Any) -> str:
        return f"<table>{options['max_rows']}</table>"


Frame.__module__ = "pandas.core.frame"
Frame.__name__ = "DataFrame"
Series.__module__ = "pandas.core.series"


def scalar(kind: str, written: str = "") -> Any:
    """Return something like a NaT, an NA or a Timestamp."""
    members = {"__module__": "pandas._libs", "isoformat": lambda _self: written}
    return type(kind, (), members)()


class Artist:
    """What everything drawn derives from."""


Artist.__module__ = "matplotlib.artist"


def drawn(kind: str, **members: Any) -> Any:
    """Return something like an artist or a container of matplotlib: an object of a class of this name."""
    made = type(kind, (Artist,), {"__module__": "matplotlib.lookalike"})()
    for name, value in members.items():
        setattr(made, name, value if not isinstance(value, Asked) else value.answer)
    return made


class Asked:
    """A member that is a method without arguments."""

    def __init__(self, value: Any) -> None:
        self.answer = lambda *_args, **_options: value


def line(xs: list[Any], ys: list[Any], *, label: str = "_child0", style: str = "-", transform: str = "data") -> Any:
    """Return something like a Line2D."""
    return drawn(
        "Line2D",
        get_xdata=Asked(xs),
        get_ydata=Asked(ys),
        get_label=Asked(label),
        get_linestyle=Asked(style),
        get_transform=Asked(transform),
    )


def bar(x: float, width: float, y: float, height: float) -> Any:
    """Return something like a Rectangle."""
    return drawn("Rectangle", get_x=Asked(x), get_width=Asked(width), get_y=Asked(y), get_height=Asked(height))


def axis(formatter: str = "ScalarFormatter", locator: str = "AutoLocator", converter: str = "NoneType") -> Any:
    """Return something like an Axis."""
    return drawn(
        "XAxis",
        get_major_formatter=Asked(type(formatter, (), {})()),
        get_major_locator=Asked(type(locator, (), {})()),
        get_converter=Asked(type(converter, (), {})()),
    )


def axes(**members: Any) -> Any:
    """Return something like an Axes, empty but for what is given."""
    ticks = members.pop("ticks", [])
    given = {
        "name": "rectilinear",
        "transData": "data",
        "lines": [],
        "collections": [],
        "containers": [],
        "patches": [],
        "xaxis": axis(),
        "yaxis": axis(),
        "get_label": Asked(""),
        "get_title": Asked(""),
        "get_xlabel": Asked(""),
        "get_ylabel": Asked(""),
        "get_xscale": Asked("linear"),
        "get_yscale": Asked("linear"),
        "get_xticks": Asked([at for at, _ in ticks]),
        "get_xticklabels": Asked([SimpleNamespace(get_text=lambda name=name: name) for _, name in ticks]),
        **members,
    }
    return drawn("Axes", **given)


def figure(*every_axes: Any, title: str = "", picture: bytes = b"\x89PNG") -> Any:
    """Return something like a Figure that draws itself as the picture given."""

    def save(target: Any, **_options: Any) -> None:
        target.write(picture)

    return drawn(
        "Figure", axes=list(every_axes), get_suptitle=Asked(title), savefig=save, dpi=100, get_size_inches=Asked((6, 4))
    )
