"""Inside the sandbox: turn what a job leaves into bounded, strict JSON, or say why not.

The job's objects may be huge, cyclic or hostile; encoding them costs the job's own time and memory, never
the worker's. Standard library only; numpy, torch and pydantic are recognised by their shape, not imported.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH_MAX = 60
_TEXT_CHARS_MAX = 100_000
_INTEGER_BITS_MAX = 13_000

_REPRESENTATIONS = (
    ("_repr_html_", "text/html"),
    ("_repr_markdown_", "text/markdown"),
    ("_repr_svg_", "image/svg+xml"),
    ("_repr_png_", "image/png"),
    ("_repr_jpeg_", "image/jpeg"),
    ("_repr_pdf_", "application/pdf"),
    ("_repr_latex_", "text/latex"),
    ("_repr_json_", "application/json"),
)


class NotJson(Exception):
    """The value has no JSON form within the limits; the message says why, in one clause."""


class _Encoder:
    """Walks one value, spending a budget of bytes."""

    def __init__(self, budget_bytes: int) -> None:
        self._left = budget_bytes
        self._budget = budget_bytes

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise NotJson(f"it is larger than {self._budget} bytes")

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return the value in dicts, lists, texts, numbers, booleans and None."""
        if depth > DEPTH_MAX:
            raise NotJson(f"it is nested deeper than {DEPTH_MAX} levels, or contains itself")
        self._spend(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            if int.bit_length(value) > _INTEGER_BITS_MAX:
                raise NotJson("an integer in it has too many digits")
            return int(value)
        if isinstance(value, float):
            return self._number(value)
        if isinstance(value, dict):
            return self._object(value, depth)
        if isinstance(value, list | tuple | set | frozenset):
            return [self.plain(item, depth + 1) for item in value]
        return self.plain(_simpler(value, self._left), depth + 1)

    def _text(self, value: str) -> str:
        text = str.__str__(value)
        self._spend(len(text))
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise NotJson("a text in it holds half of a surrogate pair") from None
        return text

    def _number(self, value: float) -> float:
        number = float.__float__(value)
        if number - number != 0:
            raise NotJson("a number in it is NaN or infinite")
        return number

    def _object(self, value: dict[Any, Any], depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in value.items():
            name = self._text(key) if isinstance(key, str) else self._key(key)
            if name in plain:
                raise NotJson(f"two keys of one object are both written {name[:80]!r}")
            plain[name] = self.plain(item, depth + 1)
        return plain

    def _key(self, key: Any) -> str:
        if key is None or isinstance(key, bool | int | float):
            return dumps(self.plain(key)).decode()
        raise NotJson(f"a key of type {type(key).__name__} is not a text")


def _simpler(value: Any, left: int) -> Any:
    """Return something closer to JSON that stands for the value. Raises NotJson."""
    kind = type(value)
    module = str(getattr(kind, "__module__", "")).partition(".")[0]
    if module in ("numpy", "torch"):
        return _from_array(value, left)
    if callable(getattr(kind, "model_dump", None)):
        return value.model_dump(mode="json")
    if hasattr(kind, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in kind.__dataclass_fields__}
    if module == "datetime" and callable(getattr(kind, "isoformat", None)):
        return value.isoformat()
    if module == "enum" or hasattr(kind, "_value2member_map_"):
        return value.value
    if hasattr(kind, "__fspath__"):
        return str(value.__fspath__())
    if module in ("decimal", "uuid", "fractions", "ipaddress", "_decimal"):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        raise NotJson("it holds bytes; decode them, or leave a file in /out")
    raise NotJson(f"a value of type {kind.__qualname__} has no JSON form")


def _from_array(value: Any, left: int) -> Any:
    count = getattr(value, "size", 1)
    count = value.numel() if callable(count) else count
    if isinstance(count, int) and count > left:
        raise NotJson("an array in it is too large; leave it as a file in /out")
    to_list = getattr(value, "tolist", None)
    if not callable(to_list):
        raise NotJson(f"a value of type {type(value).__qualname__} has no JSON form")
    simple = to_list()
    if type(simple) is type(value):
        raise NotJson(f"a value of type {type(value).__qualname__} has no JSON form")
    return simple


def encode(value: Any, budget_bytes: int) -> Any:
    """Return the value as plain JSON data that fits the budget. Raises NotJson with the reason."""
    try:
        plain = _Encoder(budget_bytes).plain(value)
        size = len(dumps(plain))
    except RecursionError:
        raise NotJson("it is nested too deeply") from None
    except NotJson:
        raise
    except Exception as fault:
        # The value's own code ran (model_dump, tolist, …) and failed.
        raise NotJson(f"asking it for its form raised {type(fault).__name__}") from None
    if size > budget_bytes:
        raise NotJson(f"it is larger than {budget_bytes} bytes")
    return plain


def dumps(value: Any) -> bytes:
    """Write plain data as compact UTF-8 JSON. Raises ValueError for NaN and Infinity.

    By the encoder beneath `json`, without the decoder and the regular expressions that `json` brings along.
    """
    encode_all = _json.make_encoder(None, _no_form, _json.encode_basestring, None, ":", ",", False, False, False)
    return "".join(encode_all(value, 0)).encode("utf-8")


def _no_form(value: Any) -> None:
    raise TypeError(f"{type(value).__name__} is not plain data")


def is_rich(value: Any) -> bool:
    """Tell whether a value brings representations of its own, as notebooks know them."""
    kind = type(value)
    names = ["_repr_mimebundle_", *(name for name, _ in _REPRESENTATIONS)]
    return kind is not type and any(callable(getattr(kind, name, None)) for name in names)


def bundle(value: Any, budget_bytes: int) -> dict[str, Any]:
    """Return a MIME bundle {media type: data} of a value. Raises NotJson."""
    found: dict[str, Any] = {}
    kind = type(value)
    if callable(getattr(kind, "_repr_mimebundle_", None)):
        own = value._repr_mimebundle_(include=None, exclude=None)
        own = own[0] if isinstance(own, tuple) else own
        found.update(own or {})
    for name, media_type in _REPRESENTATIONS:
        if media_type not in found and callable(getattr(kind, name, None)):
            own = getattr(value, name)()
            own = own[0] if isinstance(own, tuple) else own
            if own is not None:
                found[media_type] = own
    if "text/plain" not in found:
        text = value if isinstance(value, str) else repr(value)
        found["text/plain"] = text[:_TEXT_CHARS_MAX].encode("utf-8", "replace").decode("utf-8")
    return checked(found, budget_bytes)


def checked(found: dict[Any, Any], budget_bytes: int) -> dict[str, Any]:
    """Return a bundle with binary data as base64, within the budget. Raises NotJson."""
    import base64

    texts: dict[str, Any] = {}
    for media_type, content in found.items():
        binary = isinstance(content, bytes | bytearray | memoryview)
        texts[str(media_type)[:200]] = base64.b64encode(content).decode("ascii") if binary else content
    encoded = encode(texts, budget_bytes)
    return dict(encoded)
