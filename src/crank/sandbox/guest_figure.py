"""Inside the sandbox: figures of matplotlib become pictures without a screen, each one once.

`plt.show()` shows what is open at that point; what is still open at the end of a run is shown then. The
hooks are laid when a job imports matplotlib (or Pillow, for `image.show()`), which is never imported here;
other jobs pay nothing for them.
"""

from __future__ import annotations

import sys

from crank.sandbox import guest_chart
from crank.sandbox.guest_plain import made_by

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_PIXELS_MAX = 16_000_000
_DPI_TRIES = (1.0, 0.6, 0.3)
_LOOK_MAX = 50
_LOOK_DEPTH = 3


class _State:
    """What this process knows of its figures."""

    def __init__(self) -> None:
        self.show: Callable[[Any], None] | None = None
        self.shown: Any = None
        self.laid: set[str] = set()


_state = _State()


def is_figure(value: Any) -> bool:
    """Tell whether a value is a figure of matplotlib."""
    return made_by(value, "matplotlib", "Figure")


def is_drawing(value: Any, depth: int = 0) -> bool:
    """Tell whether a value is a figure, or something drawn into one, as most calls of pyplot return it."""
    if "matplotlib" not in sys.modules or depth > _LOOK_DEPTH:
        return False
    if made_by(value, "matplotlib", "Artist", "Container"):
        return True
    if isinstance(value, dict):
        value = list(value.values())
    elif type(value).__name__ == "ndarray" and str(getattr(value, "dtype", "")) == "object":
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        return any(is_drawing(item, depth + 1) for item in value[:_LOOK_MAX])
    return False


def picture(figure: Any, bytes_max: int) -> bytes | None:
    """Return a figure as PNG, coarser where it would be too large, or None where even that does not fit."""
    import io

    width, height = (float(size) for size in figure.get_size_inches())
    for share in _DPI_TRIES:
        dots = min(float(figure.dpi) * share, (_PIXELS_MAX / max(width * height, 1e-9)) ** 0.5)
        target = io.BytesIO()
        figure.savefig(target, format="png", dpi=dots, bbox_inches="tight")
        if target.tell() <= bytes_max:
            return target.getvalue()
    return None


def mark_shown(figure: Any) -> None:
    """Remember that a figure was shown."""
    if _state.shown is None:
        import weakref

        _state.shown = weakref.WeakSet()
    _state.shown.add(figure)


def was_shown(figure: Any) -> bool:
    """Tell whether a figure was shown in this run."""
    return _state.shown is not None and figure in _state.shown


def begin(show: Callable[[Any], None]) -> None:
    """Start a run: nothing was shown yet, and `show` is where pictures go."""
    _state.show = show
    _state.shown = None
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
    for name in _HOOKS:
        if name in sys.modules:
            _lay(name, sys.modules[name])


def take_open() -> list[Any]:
    """Close every figure of pyplot; return those that were not shown yet, in the order of their numbers."""
    pool = getattr(sys.modules.get("matplotlib._pylab_helpers"), "Gcf", None)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pool is None or pyplot is None:
        return []
    standing = sorted(pool.get_all_fig_managers(), key=lambda each: int(each.num))
    figures = [each.canvas.figure for each in standing]
    pyplot.close("all")
    return [figure for figure in figures if not was_shown(figure)]


def _show_open() -> None:
    for figure in take_open():
        if _state.show is not None:
            _state.show(figure)


class _Finder:
    """An import finder (PEP 451) that finds nothing itself and lays a hook into what the others find."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the spec of one of the hooked modules, or None to let the next finder look."""
        if name not in _HOOKS:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                break
        else:
            return None
        run = getattr(spec.loader, "exec_module", None)
        if run is not None:

            def exec_module(module: Any) -> None:
                run(module)
                _lay(name, module)

            spec.loader.exec_module = exec_module
        return spec


def _lay(name: str, module: Any) -> None:
    """Lay the hook of a module that was just imported, once. A module of another shape is left alone."""
    if name not in _state.laid:
        _state.laid.add(name)
        try:
            _HOOKS[name](module)
        except AttributeError:
            return


def _hook_pyplot(pyplot: Any) -> None:
    def show(*_args: Any, block: bool | None = None, **_options: Any) -> None:
        """Show every open figure that was not shown yet, and close them all.

        With block=False nothing happens yet: the script goes on drawing, and its end shows what is open.
        """
        if block is not False:
            _show_open()

    pyplot.show = show


def _hook_bases(bases: Any) -> None:
    def show(self: Any) -> None:
        """Show this figure now. It stays open."""
        if _state.show is not None:
            _state.show(self.canvas.figure)

    bases.FigureManagerBase.show = show


def _hook_images(images: Any) -> None:
    def show(self: Any, title: str | None = None) -> None:
        """Show this image now."""
        if _state.show is not None:
            _state.show(self)

    images.Image.show = show


def _hook_axes(axes: Any) -> None:
    draw = axes.Axes.bxp

    def bxp(self: Any, bxpstats: Any, *args: Any, **options: Any) -> Any:
        drawn = draw(self, bxpstats, *args, **options)
        try:
            guest_chart.note_boxes(self, bxpstats, drawn)
        except Exception:
            return drawn
        return drawn

    # `inspect.signature` and the documentation see the function that was there.
    bxp.__wrapped__ = draw  # type: ignore[attr-defined]
    bxp.__doc__ = draw.__doc__
    bxp.__name__ = "bxp"
    axes.Axes.bxp = bxp


_HOOKS: dict[str, Callable[[Any], None]] = {
    "matplotlib.pyplot": _hook_pyplot,
    "matplotlib.backend_bases": _hook_bases,
    "matplotlib.axes": _hook_axes,
    "PIL.Image": _hook_images,
}
