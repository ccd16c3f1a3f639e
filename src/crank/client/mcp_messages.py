"""What the bridge must know of MCP's messages: enough to send each on by the right headers, and no more.

Two eras look different on HTTP. Up to 2025-11-25 a session is opened by `initialize` and named in a header; from
2026-07-28 on every request stands alone and says its version in `params._meta`.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from crank.domain.json import JsonObject, JsonValue, dumps, loads_strict
from crank.domain.quantity import BODY_BYTES_MAX
from crank.errors import CrankError, InvalidRequest

MESSAGE_BYTES_MAX = BODY_BYTES_MAX
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
PARSE_ERROR, INVALID_REQUEST = -32700, -32600
# In the range that the protocol leaves to implementations: the node could not be asked.
NODE_ERROR = -32010
_NAMED_BY = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_SAFE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
_WRAPPED = re.compile(r"=\?base64\?.*\?=")

RequestId: TypeAlias = str | int


@dataclass(frozen=True, slots=True)
class Envelope:
    """One message of the host, as far as it is looked at; `raw` is sent on as it came."""

    raw: bytes
    kind: Literal["request", "notification", "response"]
    method: str
    request_id: RequestId | None
    params: Mapping[str, Any]

    @property
    def version(self) -> str | None:
        """Return the version that a message of the newer era says; None in the older."""
        meta = self.params.get("_meta")
        found = meta.get(VERSION_KEY) if isinstance(meta, Mapping) else None
        return found if isinstance(found, str) else None

    @property
    def cancels(self) -> RequestId | None:
        """Return the request that this message cancels."""
        wanted = self.params.get("requestId") if self.method == "notifications/cancelled" else None
        return wanted if isinstance(wanted, str | int) and not isinstance(wanted, bool) else None

    def headers(self) -> dict[str, str]:
        """Return the headers that mirror a message of the newer era; none in the older."""
        if self.version is None:
            return {}
        found = {"mcp-protocol-version": _header(self.version), "mcp-method": _header(self.method)}
        name = self.params.get(_NAMED_BY.get(self.method, ""))
        if isinstance(name, str):
            found["mcp-name"] = _header(name)
        return found


def read_envelope(line: bytes) -> Envelope:
    """Read one line of the host. Raises InvalidRequest, which says what is wrong with it."""
    message = loads_strict(line)
    if not isinstance(message, dict):
        raise InvalidRequest("A message is one JSON object.", code="invalid_message")
    method, params = message.get("method"), message.get("params", {})
    request_id = message.get("id")
    known_id = isinstance(request_id, str | int) and not isinstance(request_id, bool)
    if not isinstance(params, dict) or ("id" in message and not known_id):
        raise InvalidRequest("The message's id or params are of the wrong type.", code="invalid_message")
    if isinstance(method, str):
        kind: Literal["request", "notification"] = "request" if known_id else "notification"
        return Envelope(line, kind, method, request_id, params)
    if known_id and ("result" in message or "error" in message):
        return Envelope(line, "response", "", request_id, {})
    raise InvalidRequest("The message has no method.", code="invalid_message")


def error(request_id: RequestId | None, fault: CrankError, *, code: int = NODE_ERROR) -> bytes:
    """Return a JSON-RPC error that tells of a fault."""
    told = {"code": fault.error_code, "fix": fault.fix}
    body: JsonObject = {"code": code, "message": f"{fault.message} {fault.fix}", "data": told}
    return dumps({"jsonrpc": "2.0", "id": request_id, "error": body}).encode()


def renamed(answer: JsonValue, request_id: RequestId) -> bytes | None:
    """Return a JSON-RPC answer as the answer to this request; None for what is none."""
    if not isinstance(answer, dict) or not ({"result", "error"} & answer.keys()):
        return None
    return dumps({**answer, "id": request_id}).encode()


def _header(value: str) -> str:
    """Write a value so that it comes through a header as it is."""
    if len(value) <= 4_096 and _SAFE.fullmatch(value) and not _WRAPPED.fullmatch(value):
        return value
    return f"=?base64?{base64.b64encode(value.encode('utf-8', 'surrogatepass')).decode('ascii')}?="
