"""How the value of one setting is read: each reader returns it, or raises a Mistake with its cause and its fix."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crank.domain.identity import parse_trust_domain
from crank.domain.ids import parse_name
from crank.domain.isolation import Tier, parse_tier
from crank.domain.trust import Attestation, parse_attestation
from crank.errors import InvalidRequest

_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9.:-]{0,251}[a-z0-9])?")


class Mistake(Exception):
    """Why one value cannot be used; collected, never shown alone."""

    def __init__(self, cause: str, fix: str) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix


def a_text(value: Any) -> str:
    """Read a text that is not empty."""
    if not isinstance(value, str) or not value.strip():
        raise Mistake("must be a text that is not empty", "Write a text.")
    return value.strip()


def any_text(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise Mistake("must be a text", "Write a text.")
    return value


def a_path(value: Any) -> Path:
    """Read an absolute path."""
    path = Path(a_text(value)).expanduser()
    if not path.is_absolute():
        raise Mistake(f"{str(value)!r} is not an absolute path", "Write the path from the root: /…")
    return path


def a_number(value: Any, low: float, high: float) -> float:
    """Read a number between two, both allowed."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise Mistake("must be a number", f"Write a number from {low:g} to {high:g}.")
    try:
        number = float(value)
    except ValueError:
        raise Mistake(f"{value!r} is not a number", f"Write a number from {low:g} to {high:g}.") from None
    if not low <= number <= high:
        raise Mistake(f"{value} is out of range", f"Write a number from {low:g} to {high:g}.")
    return number


def seconds(low: float, high: float) -> Callable[[Any], float]:
    """Return a reader of so many seconds."""
    return lambda value: a_number(value, low, high)


def whole(low: int, high: int) -> Callable[[Any], int]:
    """Return a reader of a whole number."""
    def read(value: Any) -> int:
        number = a_number(value, low, high)
        if number != int(number):
            raise Mistake(f"{value} is not a whole number", f"Write a whole number from {low} to {high}.")
        return int(number)

    return read


def a_flag(value: Any) -> bool:
    """Read yes or no in any of its usual words."""
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    known = words.get(str(value).strip().lower())
    if known is None:
        raise Mistake(f"{value!r} is neither true nor false", "Write true or false.")
    return known


def a_label(value: Any) -> str:
    """Read the name of a worker."""
    try:
        return parse_name(a_text(value), field="worker_name")
    except InvalidRequest as fault:
        raise Mistake(fault.message, "Choose a name such as main.") from None


def host_names(value: Any) -> str:
    """Read host names with commas between; return them in small letters."""
    names = [name.strip().lower() for name in any_text(value).split(",") if name.strip()]
    for name in names:
        if not _HOST_NAME.fullmatch(name):
            raise Mistake(f"{name!r} is not a host name", "Write names without port or scheme, with commas between.")
    return ",".join(names)


def a_domain(value: Any) -> str:
    """Read a trust domain."""
    try:
        return parse_trust_domain(a_text(value))
    except InvalidRequest as fault:
        raise Mistake(fault.message, "Choose a name such as crank.internal.") from None


def a_tier(value: Any) -> Tier:
    """Read a tier of isolation."""
    try:
        return parse_tier(a_text(value))
    except InvalidRequest as fault:
        raise Mistake(fault.message, fault.fix) from None


def a_level(value: Any) -> Attestation:
    """Read a level of attestation."""
    try:
        return parse_attestation(a_text(value), field="attestation_min")
    except InvalidRequest as fault:
        raise Mistake(fault.message, fault.fix) from None


_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
# A full name whose last label begins with a letter: never an address, which would pass by every rule about names.
_HOST = re.compile(rf"({_LABEL}\.){{1,8}}[a-z]([a-z0-9-]{{0,61}}[a-z0-9])?")
_PUBLIC_URL = re.compile(rf"https://({_HOST.pattern}|localhost)(:[1-9]\d{{0,4}})?")


def public_address(value: Any) -> str:
    """Read an https address without a path, or nothing."""
    text = any_text(value).strip().rstrip("/")
    if text and not _PUBLIC_URL.fullmatch(text):
        raise Mistake(
            f"{text[:80]!r} is not an https address of a host", "Write https://crank.example.org, without a path."
        )
    return text


def hosts(value: Any) -> tuple[str, ...]:
    """Read full host names, as a list or with commas between."""
    entries = value if isinstance(value, list) else any_text(value).split(",")
    named = tuple(entry.strip() for entry in entries if isinstance(entry, str) and entry.strip())
    for host in named:
        if not _HOST.fullmatch(host):
            raise Mistake(f"{host[:80]!r} is not a host's full name", "Write names such as files.example.org.")
    return named


LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
