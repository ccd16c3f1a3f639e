"""A handle as it is written on a command line."""

from crank.domain.json import JsonObject, loads_strict
from crank.errors import InvalidRequest

_MOUNT = "mount:"


def parse_handle(text: str) -> JsonObject:
    """Read `name=capability`, `name=mount:<mount>`, or a whole JSON object. Raises InvalidRequest."""
    if text.lstrip().startswith("{"):
        try:
            whole = loads_strict(text.encode())
        except InvalidRequest as fault:
            raise InvalidRequest(f"--handle is not JSON: {fault.message}", code="usage", field="handle") from fault
        assert isinstance(whole, dict), "it begins as an object does"
        return whole
    name, equals, meant = text.partition("=")
    if not equals or not name or not meant:
        raise InvalidRequest(
            f"--handle {text[:80]!r} is not name=capability.",
            code="usage",
            field="handle",
            fix="Write convert=document.convert, docs=mount:papers, or a JSON object with name, kind and its terms.",
        )
    if meant.startswith(_MOUNT):
        return {"name": name, "kind": "mount", "mount": meant.removeprefix(_MOUNT)}
    return {"name": name, "kind": "call", "capability": meant}
