"""Reads JSON into dataclasses by their annotations: every field present and of its type, nothing else.

Only a field that a later version added, which is one with a default, may be absent.
"""

import dataclasses
import functools
import types
import typing
from typing import Any, Literal

from crank.errors import ProtocolError


@functools.cache
def later_fields(kind: type) -> dict[str, Any]:
    """Return the fields that a later version added to a message, with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(kind) if field.default is not dataclasses.MISSING}


def read_fields(kind: type, body: Any, where: str) -> Any:
    """Read a dataclass of an object; `where` names it in a refusal. Raises ProtocolError."""
    if not isinstance(body, dict):
        raise ProtocolError(f"{where} must be an object.")
    hints = typing.get_type_hints(kind)
    names = {field.name for field in dataclasses.fields(kind)}
    odd = (set(body) - names) | (names - set(body) - set(later_fields(kind)))
    if odd:
        raise ProtocolError(f"{where} has missing or unknown fields: {', '.join(sorted(odd))[:200]}.")
    return kind(**{name: _value(hints[name], value, f"{where}.{name}") for name, value in body.items()})


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _union(hint, value, where)
    if origin is Literal:
        if value not in typing.get_args(hint):
            raise ProtocolError(f"{where} has a value that is not allowed.")
        return value
    if origin is list:
        if not isinstance(value, list):
            raise ProtocolError(f"{where} must be a list.")
        (item,) = typing.get_args(hint)
        return [_value(item, entry, where) for entry in value]
    if dataclasses.is_dataclass(hint):
        return read_fields(typing.cast(type, hint), value, where)
    return _plain(origin or hint, value, where)


def _union(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint)
    if value is None and type(None) in options:
        return None
    (inner,) = [option for option in options if option is not type(None)]
    return _value(inner, value, where)


def _plain(kind: Any, value: Any, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as fault:
            raise ProtocolError(f"{where} is too large.") from fault
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ProtocolError(f"{where} has the wrong type.")
    return value
