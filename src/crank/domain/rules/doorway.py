"""By which names a node may be reached, so that a stranger's web page cannot speak to it under a name of its own.

A browser sends the name that it looked up (Host) and the site that made it ask (Origin). A page that lets its own
name point to this machine (DNS rebinding) still sends its own name.
"""

from collections.abc import Iterable

from crank.domain.job import Refusal

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EVERY_ADDRESS = ("", "0.0.0.0", "::")  # noqa: S104 - compared, never bound here


def known_names(bind: str, more: Iterable[str] = ()) -> frozenset[str]:
    """Return the names of a node that listens at an address: loopback's, that address, and what its operator adds."""
    own = () if bind in _EVERY_ADDRESS else (bind.lower(),)
    return frozenset((*_LOOPBACK, *own, *(name.lower() for name in more if name)))


def own_place(bind: str, port: int | None) -> str:
    """Return by which name and port a node calls itself where nobody's word counts."""
    own = "localhost" if bind in (*_LOOPBACK, *_EVERY_ADDRESS) else bind.lower()
    name = f"[{own}]" if ":" in own else own
    return name if port is None else f"{name}:{port}"


def is_known(host: str | None, names: frozenset[str]) -> bool:
    """Tell whether a Host is one of a node's names, with or without a port."""
    return host is not None and _name_of(host) in names


def refusal(host: str | None, origin: str | None, names: frozenset[str]) -> Refusal | None:
    """Return why a request is refused for the name that it came by, or the site that it came from."""
    if not is_known(host, names):
        return Refusal(
            "wrong_host",
            "This node is not reached by this name.",
            "Use the address that 'crank node info' prints, or let the operator add the name to api_names.",
            "host",
        )
    if origin is None:
        return None
    scheme, found, place = origin.partition("://")
    if not found or scheme not in ("https", "http") or _name_of(place) not in names:
        return Refusal(
            "wrong_origin",
            "Another web site asks for this; it may not.",
            "Call the node from a program, which sends no Origin, or from a page of the node itself.",
            "origin",
        )
    return None


def _name_of(place: str) -> str | None:
    """Return the name in `name`, `name:port`, `[::1]` or `[::1]:port`; None for what is none of these."""
    name, port = place.lower(), ""
    if name.startswith("["):
        name, bracket, rest = name[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return None
        port = rest[1:] if rest else "0"
    elif ":" in name:
        name, _, port = name.partition(":")
    else:
        port = "0"
    return name if name and port.isascii() and port.isdigit() and len(port) <= 5 else None
