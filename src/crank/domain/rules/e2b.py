"""E2B's words for ours: ids, templates, signatures, and which sandboxes a listing means."""

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crank.domain.ids import SessionId
from crank.domain.json import JsonObject
from crank.domain.quantity import KIB
from crank.errors import InvalidRequest, NotFound, NotSupported

# The least that makes a client use octet streams, stdin, a default user and metadata of files.
ENVD_VERSION = "0.6.4"
ENVD_PORT = 49983
CODE_PORT = 49999
CAPABILITY = "python.run.interpreter"
TIMEOUT_SEC_DEFAULT = 300.0
TIMEOUT_SEC_MAX = 86_400.0
PAGE_ENTRIES_MAX = 100
METADATA_BYTES_MAX = 16 * KIB
ENV_BYTES_MAX = 64 * KIB

_ID = re.compile(r"i[0-9a-f]{32}")
_COUNT = re.compile(r"[0-9]{1,9}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
# Every one of them is the same environment here.
TEMPLATES = ("code-interpreter-v1", "base", "python-interpreter", CAPABILITY)
# Fields of a new sandbox that promise what this node does not do, and the value that promises nothing.
_NOT_OFFERED = {
    "autoPause": "A sandbox ends at its timeout; it is not paused.",
    "volumeMounts": "There are no volumes.",
    "mcp": "There is no MCP gateway inside a sandbox.",
    "iam": "There are no workload identities.",
}


def sandbox_id(session_id: SessionId) -> str:
    """Return the name under which E2B clients know a session."""
    return "i" + session_id.replace("-", "")


def session_id(name: str) -> SessionId | None:
    """Return the session that a sandbox's name means, or None for what is no such name."""
    if not _ID.fullmatch(name):
        return None
    digits = name[1:]
    return SessionId("-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])))


@dataclass(frozen=True, slots=True)
class SandboxDraft:
    """A wanted sandbox, checked."""

    template: str
    timeout_sec: float
    metadata: Mapping[str, str]
    environment: Mapping[str, str]


def parse_sandbox(fields: JsonObject) -> SandboxDraft:
    """Read the body of a new sandbox. Raises InvalidRequest, NotSupported, NotFound (an unknown template)."""
    template = fields.get("templateID")
    if not isinstance(template, str):
        raise InvalidRequest("templateID must be a text.", code="invalid_field", field="templateID")
    if template.partition(":")[0] not in TEMPLATES:
        raise NotFound(
            f"There is no template {template[:80]!r} here; there are {', '.join(TEMPLATES)}.", code="template_not_found"
        )
    for name, cause in _NOT_OFFERED.items():
        if fields.get(name):
            raise NotSupported(f"{cause} ({name})", field=name)
    if fields.get("allow_internet_access") is True:
        raise NotSupported(
            "Sandboxes have no network; leave allow_internet_access out, or say false.", field="allow_internet_access"
        )
    if _opens(fields.get("network")):
        raise NotSupported("Sandboxes have no network, so there is none to allow.", field="network")
    return SandboxDraft(
        template=template,
        timeout_sec=parse_timeout(fields.get("timeout")),
        metadata=_texts(fields.get("metadata"), "metadata", METADATA_BYTES_MAX),
        environment=parse_environment(fields.get("envVars")),
    )


def _opens(network: Any) -> bool:
    return isinstance(network, dict) and bool(network.get("allowOut") or network.get("rules"))


def parse_timeout(value: Any, default_sec: float = TIMEOUT_SEC_DEFAULT) -> float:
    """Return for how long a sandbox shall live, in seconds. Raises InvalidRequest."""
    if value is None:
        return default_sec
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= TIMEOUT_SEC_MAX:
        raise InvalidRequest(
            f"timeout is a number of seconds from 0 to {TIMEOUT_SEC_MAX:g}.", code="invalid_field", field="timeout"
        )
    return float(value)


def parse_environment(value: Any, field: str = "envVars") -> dict[str, str]:
    """Return variables for what runs. Raises InvalidRequest."""
    found = _texts(value, field, ENV_BYTES_MAX)
    for name, text in found.items():
        if not _ENV_NAME.fullmatch(name) or "\0" in text:
            raise InvalidRequest(
                f"{field} has {name[:40]!r}, which cannot be a variable.", code="invalid_field", field=field
            )
    return found


def _texts(value: Any, field: str, bytes_max: int) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(each, str) for each in value.values()):
        raise InvalidRequest(f"{field} is an object of texts.", code="invalid_field", field=field)
    if sum(len(name.encode()) + len(text.encode()) for name, text in value.items()) > bytes_max:
        raise InvalidRequest(f"{field} is at most {bytes_max} bytes.", code="invalid_field", field=field)
    return dict(value)


def signature(path: str, operation: str, user: str, token: str, expiration: str | None) -> str:
    """Return what a signed URL of a file must carry."""
    raw = ":".join([path, operation, user, token, *([] if expiration is None else [expiration])])
    digest = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()
    return "v1_" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def matches(metadata: Mapping[str, str], wanted: Sequence[tuple[str, str]]) -> bool:
    """Tell whether a sandbox has all metadata that a listing asks for."""
    return all(metadata.get(name) == text for name, text in wanted)


def parse_page(limit: str | None, token: str | None) -> tuple[int, int]:
    """Return how many entries of a listing are wanted, and after how many. Raises InvalidRequest."""
    try:
        count = PAGE_ENTRIES_MAX if limit is None else _count(limit)
        after = 0 if not token else _count(base64.urlsafe_b64decode(token.encode()).decode("ascii"))
    except ValueError as fault:
        raise InvalidRequest(
            "limit is a number and nextToken one that a listing gave.", code="invalid_cursor"
        ) from fault
    if not 1 <= count <= PAGE_ENTRIES_MAX:
        raise InvalidRequest(f"limit is a number from 1 to {PAGE_ENTRIES_MAX}.", code="invalid_field", field="limit")
    return count, after


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        raise ValueError("no number")
    return int(text)


def page_token(after: int) -> str:
    """Return the token of the page that begins after so many entries."""
    return base64.urlsafe_b64encode(str(after).encode()).decode()
