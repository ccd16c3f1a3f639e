"""Inside the sandbox: what a job shows and what it leaves, as MIME bundles and as plain JSON, within a budget.

Every object is asked by the job's own process, under the job's own limits; one that raises, lies or returns
gigabytes loses a form of itself, and costs nobody else anything.
"""

from __future__ import annotations

from crank.sandbox import guest_chart, guest_figure
from crank.sandbox.guest_plain import NotJson, dumps, encode, is_table, made_by, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

__all__ = ["NotJson", "begin", "bundle", "checked", "dumps", "encode", "is_rich", "open_figures", "settle"]

TABLE = "application/vnd.crank.dataframe+json"
CHART = "application/vnd.crank.chart+json"

_TEXT_CHARS_MAX = 100_000
_ROWS_SHOWN = 50
_HTML_ROWS, _HTML_COLUMNS = 20, 30
_TABLE_BYTES = 64 * 1024
_CHART_BYTES = 64 * 1024
_IMAGE_SIDE_MAX = 1_600
_BYTES = (bytes, bytearray, memoryview)
_BYTES_WRITTEN_MAX = 100

_REPRESENTATIONS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_pdf_", "application/pdf"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
    ("_repr_javascript_", "application/javascript"),
)
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"%PDF-", "application/pdf"),
    (b"RIFF", "image/webp"),
)


def is_rich(value: Any) -> bool:
    """Tell whether a value is shown as more than text: a table, a picture, bytes, or what brings forms of its own."""
    kind = type(value)
    if kind is type or _own_forms(value) is not None or isinstance(value, bytes | bytearray | memoryview):
        return kind is not type
    return any(_brings(kind, name) for name in ("_repr_mimebundle_", *(name for name, _ in _REPRESENTATIONS)))


def _brings(kind: type, name: str) -> bool:
    try:
        return callable(getattr(kind, name, None))
    except Exception:
        # A metaclass of the job's own.
        return False


def bundle(value: Any, budget_bytes: int, complain: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Return a MIME bundle {media type: data} of a value. Raises NotJson when not one form of it fits.

    complain  takes a sentence for each form that was left out
    """
    lost: list[str] = []
    found: dict[str, Any] = {"text/plain": _as_text(value)}
    forms = _own_forms(value) or _brought_forms
    for media_type, make in forms(value, budget_bytes):
        try:
            content = make()
            # A pair is content and metadata; metadata has no place in a bundle.
            content = content[0] if isinstance(content, tuple) else content
            if media_type is None:
                found.update(content or {})
            elif content is not None and media_type not in found:
                found[media_type] = content
        except Exception as fault:
            name = media_type or "_repr_mimebundle_"
            lost.append(f"{name} was left out: asking for it raised {type(fault).__name__}")
    kept = _within(found, budget_bytes, lost)
    for sentence in lost if complain is not None else ():
        complain(f"display: {sentence}.")  # type: ignore[misc]
    if not kept:
        raise NotJson(lost[-1] if lost else "it has no form that can be shown")
    return kept


def checked(found: dict[Any, Any], budget_bytes: int) -> dict[str, Any]:
    """Return a bundle that the job made itself, with binary data as base64. Raises NotJson when something is amiss."""
    lost: list[str] = []
    kept = _within(dict(found), budget_bytes, lost)
    if lost:
        raise NotJson(lost[0])
    return kept


def begin(display: Callable[[Any], None]) -> None:
    """Start a run: pictures that the job shows without `display` go there too."""
    guest_figure.begin(display)


def open_figures() -> list[Any]:
    """Close the job's figures; return those that were not shown yet, in the order in which they were made."""
    return guest_figure.take_open()


def settle(value: Any, budget_bytes: int, *, named: bool, show: Callable[[Any], None]) -> tuple[bool, Any, str | None]:
    """Decide what becomes of a job's result: whether there is one, its plain form, and a note where there is none.

    named  it was given as `result`, not as the value of the last expression
    show   displays a value
    """
    if guest_figure.is_drawing(value):
        if guest_figure.is_figure(value) and not guest_figure.was_shown(value):
            show(value)
        return False, None, "The result is a drawing: it is shown, not kept." if named else None
    rich = is_rich(value)
    if rich:
        show(value)
    try:
        return True, encode(value, budget_bytes), None
    except NotJson as fault:
        if not rich and not named:
            show(value)
        return False, None, f"The result was not kept: {fault}."


def _within(found: dict[Any, Any], budget_bytes: int, lost: list[str]) -> dict[str, Any]:
    """Keep the forms that fit, in their order; say in `lost` which do not."""
    kept: dict[str, Any] = {}
    left = budget_bytes - 2
    for name, content in found.items():
        media_type = text(str(name), 200)
        try:
            plain = encode(_printable(content, left), left)
        except NotJson as fault:
            lost.append(f"{media_type} was left out: {fault}")
            continue
        cost = len(dumps({media_type: plain}))
        if cost > left:
            lost.append(f"{media_type} was left out: the forms together are larger than {budget_bytes} bytes")
            continue
        kept[media_type] = plain
        left -= cost
    return kept


def _printable(content: Any, budget_bytes: int) -> Any:
    if not isinstance(content, bytes | bytearray | memoryview):
        return content
    try:
        raw = memoryview(content)
        if raw.nbytes * 4 // 3 > budget_bytes:
            raise NotJson(f"it is larger than {budget_bytes} bytes")
        import binascii

        return binascii.b2a_base64(raw, newline=False).decode("ascii")
    except (TypeError, ValueError, BufferError):
        raise NotJson("its bytes cannot be read") from None


def _as_text(value: Any) -> str:
    try:
        if type(value) in _BYTES and len(value) > _BYTES_WRITTEN_MAX:
            return f"<{memoryview(value).nbytes} bytes>"
        shown = value if isinstance(value, str) else repr(value)
        return text(shown, _TEXT_CHARS_MAX)
    except Exception as fault:
        return f"<{type(value).__name__}: its text raised {type(fault).__name__}>"


# --- forms: each is a media type and a function that makes its content -----------------------


def _own_forms(value: Any) -> Any:
    """Return the function that yields our own forms of a value that we know by its shape, or None."""
    if is_table(value):
        return _table_forms
    if guest_figure.is_figure(value):
        return _figure_forms
    if made_by(value, "PIL", "Image"):
        return _image_forms
    if type(value) in _BYTES:
        return _byte_forms
    return None


def _brought_forms(value: Any, budget_bytes: int) -> Iterator[tuple[str | None, Any]]:
    kind = type(value)
    if kind is type:
        return
    if _brings(kind, "_repr_mimebundle_"):
        yield None, lambda: value._repr_mimebundle_(include=None, exclude=None)
    for name, media_type in _REPRESENTATIONS:
        if _brings(kind, name):
            yield media_type, lambda name=name: getattr(value, name)()


def _table_forms(value: Any, budget_bytes: int) -> Iterator[tuple[str, Any]]:
    yield TABLE, lambda: table(value, rows_max=_ROWS_SHOWN, bytes_max=min(_TABLE_BYTES, budget_bytes // 4))

    def html() -> Any:
        frame = value.to_frame() if made_by(value, "pandas", "Series") else value
        return frame.to_html(max_rows=_HTML_ROWS, max_cols=_HTML_COLUMNS, border=0, show_dimensions=True)

    yield "text/html", html


def _figure_forms(value: Any, budget_bytes: int) -> Iterator[tuple[str, Any]]:
    guest_figure.mark_shown(value)
    # A quarter is left for the other forms, and base64 needs four bytes for three.
    yield "image/png", lambda: guest_figure.picture(value, budget_bytes * 9 // 16) or _too_large()
    yield CHART, lambda: guest_chart.chart(value, min(_CHART_BYTES, budget_bytes // 8))


def _image_forms(value: Any, budget_bytes: int) -> Iterator[tuple[str, Any]]:
    def png() -> Any:
        import io

        shown = value
        if max(shown.size) > _IMAGE_SIDE_MAX:
            shown = shown.copy()
            shown.thumbnail((_IMAGE_SIDE_MAX, _IMAGE_SIDE_MAX))
        if shown.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
            shown = shown.convert("RGB")
        for _ in range(3):
            target = io.BytesIO()
            shown.save(target, "PNG")
            if target.tell() <= budget_bytes * 11 // 16:
                return target.getvalue()
            shown = shown.copy()
            shown.thumbnail((max(1, shown.size[0] // 2), max(1, shown.size[1] // 2)))
        return _too_large()

    yield "image/png", png


def _byte_forms(value: Any, budget_bytes: int) -> Iterator[tuple[str, Any]]:
    start = bytes(value[:16]) if isinstance(value, bytes | bytearray) else b""
    kinds = (media_type for magic, media_type in _MAGIC if start.startswith(magic))
    yield next(kinds, "application/octet-stream"), lambda: value


def _too_large() -> Any:
    raise NotJson("it is too large even when drawn coarsely")
