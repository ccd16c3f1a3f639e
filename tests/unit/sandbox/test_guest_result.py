"""What a job shows: every form of it that fits, and a sentence for each that does not."""

import base64
import sys
from typing import Any

import pytest

from crank.sandbox import guest_figure
from crank.sandbox.guest_result import CHART, TABLE, NotJson, bundle, checked, dumps, is_rich, settle
from tests.unit.sandbox.lookalikes import Frame, Series, axes, figure, line

_BUDGET = 10_000


class _Rich:
    def _repr_mimebundle_(self, include: Any, exclude: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"application/json": {"a": 1}}, {}

    def _repr_png_(self) -> bytes:
        return b"\x89PNG"

    def _repr_html_(self) -> None:
        return None


def test_bundles_hold_every_representation() -> None:
    """A rich value's bundle has its own forms, binary as base64, and always a plain text."""
    found = bundle(_Rich(), _BUDGET)
    assert found["application/json"] == {"a": 1}
    assert found["image/png"] == "iVBORw=="
    assert "text/html" not in found
    assert found["text/plain"].startswith("<")
    assert is_rich(_Rich())
    assert not is_rich(_Rich)
    assert not is_rich({"_repr_html_": 1})


def test_bundles_are_bounded() -> None:
    """A bundle that the job made and that is too large is refused like a result."""
    with pytest.raises(NotJson, match="larger"):
        checked({"image/png": bytes(20_000)}, _BUDGET)


class _Partly:
    def _repr_html_(self) -> str:
        return "x" * 20_000

    def _repr_markdown_(self) -> str:
        raise KeyError("no")

    def _repr_latex_(self) -> str:
        return "$1$"

    def __repr__(self) -> str:
        raise ValueError("no")


def test_one_bad_form_does_not_take_the_others_along() -> None:
    """A form that raises or does not fit is left out with a sentence; the others are shown."""
    said: list[str] = []
    found = bundle(_Partly(), _BUDGET, said.append)
    assert found == {"text/plain": "<_Partly: its text raised ValueError>", "text/latex": "$1$"}
    assert len(said) == 2
    assert "text/html was left out: it is larger" in " ".join(said)
    assert "raised KeyError" in " ".join(said)


def test_together_the_forms_keep_the_budget() -> None:
    """Each form fits, all of them do not: the later ones go."""

    class Greedy:
        def _repr_html_(self) -> str:
            return "h" * 6_000

        def _repr_markdown_(self) -> str:
            return "m" * 6_000

    found = bundle(Greedy(), _BUDGET)
    assert list(found) == ["text/plain", "text/html"]
    assert len(dumps(found)) <= _BUDGET


# Made by `type`: no type checker believes that an object can lie about its class.
_Liar: type = type("_Liar", (), {"__class__": property(lambda _self: bytes), "_repr_png_": lambda _self: _Liar()})


class _Meta(type):
    def __getattribute__(cls, name: str) -> Any:
        raise OSError(name)


class _Closed(metaclass=_Meta):
    pass


def _endless() -> Any:
    class Endless:
        def __repr__(self) -> str:
            return repr(self)

    return Endless()


@pytest.mark.parametrize(
    "value", [_Liar(), _endless(), _Closed(), "\ud800", int], ids=["liar", "endless", "closed", "surrogate", "type"]
)
def test_whatever_is_shown_has_a_text(value: Any) -> None:
    """Values that lie about their type, recurse or hold half characters still become a bundle of strict JSON."""
    found = bundle(value, _BUDGET)
    assert set(found) == {"text/plain"}
    assert dumps(found)


def test_bytes_are_shown_in_base64_under_what_they_are() -> None:
    """Bytes that begin like a picture are one; others have no known type."""
    png = b"\x89PNG\r\n\x1a\n..."
    assert bundle(png, _BUDGET)["image/png"] == base64.b64encode(png).decode()
    assert bundle(bytearray(b"abc"), _BUDGET)["application/octet-stream"] == "YWJj"
    assert bundle(bytes(5_000), _BUDGET)["text/plain"] == "<5000 bytes>"


def test_tables_are_shown_in_three_forms() -> None:
    """A table has a text, bounded HTML, and its schema and head as data."""
    frame = Frame({"n": ("int64", list(range(500)))})
    found = bundle(frame, _BUDGET)
    assert set(found) == {"text/plain", TABLE, "text/html"}
    assert found[TABLE]["row_count"] == 500
    assert len(found[TABLE]["head"]["rows"]) == 50
    assert found["text/html"] == "<table>20</table>"
    assert bundle(Series([1], name="n"), _BUDGET)[TABLE]["column_count"] == 1


def test_figures_are_shown_as_picture_and_as_data() -> None:
    """A figure has its picture and its chart in one bundle."""
    shown = figure(axes(lines=[line([1], [2])]), picture=b"pixels")
    found = bundle(shown, _BUDGET)
    assert base64.b64decode(found["image/png"]) == b"pixels"
    assert found[CHART]["axes"][0]["type"] == "line"
    assert guest_figure.was_shown(shown)


def test_a_figure_too_large_keeps_its_chart() -> None:
    """Where no picture fits, the chart as data is still shown, and a sentence says why there is no picture."""
    said: list[str] = []
    found = bundle(figure(axes(lines=[line([1], [2])]), picture=bytes(20_000)), _BUDGET, said.append)
    assert CHART in found
    assert "image/png" not in found
    assert len(said) == 1


def test_images_are_made_small_enough() -> None:
    """An image is shown as PNG, with its longer side at most 1600 pixels, in a mode that PNG has."""

    class Image:
        __module__ = "PIL.Image"

        def __init__(self, size: tuple[int, int], mode: str) -> None:
            self.size, self.mode = size, mode

        def copy(self) -> "Image":
            return Image(self.size, self.mode)

        def thumbnail(self, most: tuple[int, int]) -> None:
            share = min(most[0] / self.size[0], most[1] / self.size[1], 1)
            self.size = (int(self.size[0] * share), int(self.size[1] * share))

        def convert(self, mode: str) -> "Image":
            return Image(self.size, mode)

        def save(self, target: Any, form: str) -> None:
            target.write(f"{form} {self.mode} {self.size}".encode())

    image = Image((4_000, 3_000), "CMYK")
    assert base64.b64decode(bundle(image, _BUDGET)["image/png"]) == b"PNG RGB (1600, 1200)"
    assert image.size == (4_000, 3_000)


def _settled(value: Any, *, named: bool) -> tuple[Any, list[Any]]:
    shown: list[Any] = []
    return settle(value, _BUDGET, named=named, show=shown.append), shown


def test_a_plain_result_is_kept_and_not_shown() -> None:
    """JSON is a result and nothing else."""
    assert _settled({"a": 1}, named=False) == ((True, {"a": 1}, None), [])


def test_a_table_is_shown_and_kept() -> None:
    """A table is both: shown, and as a result in its form."""
    frame = Frame({"n": ("int64", [1])})
    (kept, plain, note), shown = _settled(frame, named=True)
    assert (kept, plain["row_count"], note, shown) == (True, 1, None, [frame])


def test_what_has_no_form_is_noted() -> None:
    """A value without a form is said not to be kept; as a last expression it is shown instead."""
    value = object()
    assert _settled(value, named=False) == (
        (False, None, "The result was not kept: a value of type object has no JSON form."),
        [value],
    )
    assert _settled(value, named=True)[1] == []


def test_a_figure_is_shown_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure as the last expression is shown, unless it was shown before; there is no complaint about its form."""
    monkeypatch.setattr(guest_figure, "_state", guest_figure._State())
    monkeypatch.setitem(sys.modules, "matplotlib", guest_figure)
    drawing = figure()
    assert _settled(drawing, named=False) == ((False, None, None), [drawing])
    guest_figure.mark_shown(drawing)
    assert _settled(drawing, named=False) == ((False, None, None), [])
    assert "drawing" in _settled(drawing, named=True)[0][2]
