"""Inside the sandbox: turn any value that a job leaves into bounded, strict JSON, or say why not.

The job's objects may be huge, cyclic or hostile; encoding them costs the job's own time and memory, never
the worker's. Standard library only; numpy, torch, pandas and pydantic are recognised by their shape, not imported.
"""

from __future__ import annotations

import _json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH_MAX = 60
_INTEGER_BITS_MAX = 13_000
_CELL_CHARS_MAX = 500
_TABLE_ROWS_MAX = 1_000


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


def made_by(value: Any, library: str, *names: str) -> bool:
    """Tell whether a value's type is, or derives from, a class of these names that a library defines."""
    for kind in type.mro(type(value)):
        # Past the metaclass, which may be the job's own.
        if type.__getattribute__(kind, "__name__") in names:
            module = type.__getattribute__(kind, "__dict__").get("__module__")
            if isinstance(module, str) and module.partition(".")[0] == library:
                return True
    return False


def is_table(value: Any) -> bool:
    """Tell whether a value is a DataFrame or a Series of pandas."""
    return made_by(value, "pandas", "DataFrame", "Series")


def _simpler(value: Any, left: int) -> Any:
    """Return something closer to JSON that stands for the value. Raises NotJson."""
    kind = type(value)
    module = str(getattr(kind, "__module__", "")).partition(".")[0]
    if is_table(value):
        return table(value, rows_max=_TABLE_ROWS_MAX, bytes_max=left // 2)
    if module in ("numpy", "torch", "pandas"):
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
        # A point in time, a span or a missing value of pandas.
        plain = cell(value) if made_by(value, "pandas", *_SCALARS) else value
        if plain is value:
            raise NotJson(f"a value of type {type(value).__qualname__} has no JSON form")
        return plain
    simple = to_list()
    if type(simple) is type(value):
        raise NotJson(f"a value of type {type(value).__qualname__} has no JSON form")
    return simple


_MISSING = ("NaTType", "NAType")
_SCALARS = ("Timestamp", "Timedelta", "Period", "Interval", *_MISSING)


def cell(value: Any) -> Any:
    """Return one value of a table or a chart as a JSON scalar: what is missing is None, what is long is cut."""
    kind = type(value)
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if value.bit_length() <= _INTEGER_BITS_MAX else text(hex(value))
    if kind is float:
        if value != value:
            return None
        return value if value - value == 0 else ("Infinity" if value > 0 else "-Infinity")
    if kind is str:
        return text(value)
    if kind.__name__ in _MISSING:
        return None
    if kind is bytes or kind is bytearray:
        return f"<{len(value)} bytes>"
    try:
        return _cell_of_other(value, str(kind.__module__).partition(".")[0])
    except Exception as fault:
        return f"<{kind.__name__}: {type(fault).__name__}>"[:_CELL_CHARS_MAX]


def _cell_of_other(value: Any, module: str) -> Any:
    if module == "numpy" and not hasattr(value, "isoformat") and getattr(value, "ndim", 0) == 0:
        # A time of numpy would become a bare number of nanoseconds.
        simple = str(value) if type(value).__name__.endswith("64") and "time" in type(value).__name__ else value.item()
        return None if simple == "NaT" else cell(simple) if type(simple) is not type(value) else text(str(value))
    if callable(getattr(value, "isoformat", None)):
        return text(value.isoformat())
    if isinstance(value, tuple):
        return [cell(part) for part in value[:10]]
    return text(str(value))


def text(value: Any, chars_max: int = _CELL_CHARS_MAX) -> str:
    """Return a text that JSON can hold, cut to a length. Takes only a str; raises TypeError for what pretends."""
    exact = str.__str__(value)
    return exact[:chars_max].encode("utf-8", "replace").decode("utf-8")


_COLUMNS_MAX = 200


def table(value: Any, *, rows_max: int, bytes_max: int) -> dict[str, Any]:
    """Return the form of a DataFrame or a Series: its schema, its true size, and the first rows that fit."""
    index = value.index
    row_count = len(index)
    if made_by(value, "pandas", "Series"):
        column_count = 1
        columns = [{"name": cell(value.name), "dtype": text(str(value.dtype))}]
        head = value.iloc[:rows_max]
        cells: Any = ([item] for item in head.tolist())
    else:
        column_count = len(value.columns)
        head = value.iloc[:rows_max, :_COLUMNS_MAX]
        kinds = zip(list(head.columns), list(head.dtypes), strict=True)
        columns = [{"name": cell(name), "dtype": text(str(dtype))} for name, dtype in kinds]
        cells = head.itertuples(index=False, name=None)
    labels: list[Any] = []
    rows: list[list[Any]] = []
    found = {
        "schema": {
            "index": [{"name": cell(name), "dtype": dtype} for name, dtype in _levels(index)],
            "columns": columns,
        },
        "row_count": row_count,
        "column_count": column_count,
        "head": {"index": labels, "rows": rows},
        "truncated": False,
    }
    left = bytes_max - len(dumps(found))
    for label, row in zip(head.index.tolist(), cells, strict=False):
        labels.append(cell(label))
        rows.append([cell(item) for item in row])
        left -= len(dumps([labels[-1], rows[-1]]))
        if left < 0:
            labels.pop()
            rows.pop()
            break
    found["truncated"] = len(rows) < row_count or len(columns) < column_count
    return found


def _levels(index: Any) -> list[tuple[Any, str]]:
    """Return name and dtype of each level of an index."""
    if getattr(index, "nlevels", 1) == 1:
        return [(index.name, text(str(index.dtype)))]
    return [(level.name, text(str(level.dtype))) for level in list(index.levels)[:10]]


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
