"""Figures without a screen: shown once, in order, and only where matplotlib is in use."""

import sys
from collections.abc import Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest

from crank.sandbox import guest_figure
from tests.unit.sandbox.lookalikes import drawn, figure


@pytest.fixture(autouse=True)
def _as_new(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process that has imported nothing and hooked nothing."""
    monkeypatch.setattr(guest_figure, "_state", guest_figure._State())
    finders = list(sys.meta_path)
    yield
    sys.meta_path[:] = finders
    for name in [name for name in sys.modules if name.partition(".")[0] in ("matplotlib", "PIL")]:
        del sys.modules[name]


class _Pool:
    """Stands for pyplot's pool of figures."""

    standing: ClassVar[dict[int, Any]] = {}

    @classmethod
    def get_all_fig_managers(cls) -> list[Any]:
        return list(cls.standing.values())


def _lay_pyplot(numbers: list[int]) -> list[Any]:
    """Make pyplot appear to be imported, with figures of these numbers open, in this order of use."""
    figures = [figure() for _ in numbers]
    _Pool.standing = {
        number: SimpleNamespace(num=number, canvas=SimpleNamespace(figure=each))
        for number, each in zip(numbers, figures, strict=True)
    }
    pyplot: Any = ModuleType("matplotlib.pyplot")
    pyplot.show = lambda: None
    pyplot.close = lambda _which: _Pool.standing.clear()
    pool: Any = ModuleType("matplotlib._pylab_helpers")
    pool.Gcf = _Pool
    sys.modules.update({"matplotlib": ModuleType("matplotlib"), pyplot.__name__: pyplot, pool.__name__: pool})
    return figures


def test_a_job_without_matplotlib_has_no_figures() -> None:
    """Nothing is imported, nothing is found."""
    guest_figure.begin(lambda _figure: None)
    assert guest_figure.take_open() == []
    assert not guest_figure.is_drawing([1, 2])
    assert "matplotlib" not in sys.modules


def test_open_figures_are_taken_once_in_order_of_their_numbers() -> None:
    """What is open is given in the order in which it was made, without what was shown, and closed."""
    second, first, third = _lay_pyplot([2, 1, 3])
    guest_figure.begin(lambda _figure: None)
    guest_figure.mark_shown(third)
    assert guest_figure.take_open() == [first, second]
    assert guest_figure.take_open() == []


def test_show_shows_what_is_open_and_closes_it() -> None:
    """`plt.show()` shows at that point; afterwards nothing is left for the end."""
    figures = _lay_pyplot([1, 2])
    seen: list[Any] = []
    guest_figure.begin(seen.append)
    sys.modules["matplotlib.pyplot"].show(block=True)
    assert seen == figures
    assert guest_figure.take_open() == []


def test_a_show_that_does_not_block_leaves_figures_open() -> None:
    """`plt.show(block=False)`, which `plt.pause` calls in every step of a loop, closes nothing and shows nothing yet."""
    figures = _lay_pyplot([1])
    seen: list[Any] = []
    guest_figure.begin(seen.append)
    sys.modules["matplotlib.pyplot"].show(block=False)
    assert seen == []
    assert guest_figure.take_open() == figures


def test_an_image_is_shown_where_it_says_so() -> None:
    """`image.show()` starts no viewer: it is a display."""
    images: Any = ModuleType("PIL.Image")
    images.Image = type("Image", (), {"show": lambda _self: None})
    sys.modules["PIL.Image"] = images
    seen: list[Any] = []
    guest_figure.begin(seen.append)
    image = images.Image()
    image.show()
    assert seen == [image]


def test_hooks_are_laid_when_matplotlib_is_imported_later() -> None:
    """The hook waits for the import, lies in the module before anybody sees it, and is laid once."""

    class Laid(Loader):
        def create_module(self, spec: ModuleSpec) -> None:
            return None

        def exec_module(self, module: Any) -> None:
            module.FigureManagerBase = type("FigureManagerBase", (), {"show": lambda _self: None})

    class Finder:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
            known = name in ("matplotlib", "matplotlib.backend_bases")
            return ModuleSpec(name, Laid(), is_package=name == "matplotlib") if known else None

    seen: list[Any] = []
    sys.meta_path.append(Finder())
    guest_figure.begin(seen.append)
    guest_figure.begin(seen.append)
    assert sum(isinstance(finder, guest_figure._Finder) for finder in sys.meta_path) == 1
    bases: Any = __import__("matplotlib.backend_bases", fromlist=["x"])
    manager = bases.FigureManagerBase()
    manager.canvas = SimpleNamespace(figure="the figure")
    manager.show()
    assert seen == ["the figure"]


def test_a_module_of_another_shape_is_left_alone() -> None:
    """A matplotlib that is not as expected, or a job's own module of that name, still imports."""
    sys.modules["matplotlib.axes"] = ModuleType("matplotlib.axes")
    guest_figure.begin(lambda _figure: None)
    assert not hasattr(sys.modules["matplotlib.axes"], "Axes")


def test_what_calls_of_pyplot_return_is_a_drawing() -> None:
    """The list that `plt.plot` returns, the tuple of `plt.hist` and the dictionary of `plt.boxplot` are no results."""
    sys.modules["matplotlib"] = ModuleType("matplotlib")
    artist = drawn("Artist")
    assert guest_figure.is_drawing([artist])
    assert guest_figure.is_drawing(([1.0], [2.0], [artist]))
    assert guest_figure.is_drawing({"medians": [artist]})
    assert not guest_figure.is_drawing([1, [2, [3, [4, [artist]]]]])
    assert not guest_figure.is_drawing([])


def test_a_picture_that_is_too_large_is_drawn_coarser() -> None:
    """The resolution falls until the picture fits, and is bounded from the start; what never fits is None."""
    asked: list[float] = []

    def save(target: Any, *, dpi: float, **_options: Any) -> None:
        asked.append(dpi)
        target.write(b"x" * int(dpi))

    large = figure()
    large.savefig = save
    assert guest_figure.picture(large, 70) == b"x" * 60
    assert asked == [100, 60]
    assert guest_figure.picture(large, 10) is None
    large.get_size_inches = lambda: (10_000, 10_000)
    asked.clear()
    guest_figure.picture(large, 70)
    assert asked[0] == pytest.approx(0.4)
