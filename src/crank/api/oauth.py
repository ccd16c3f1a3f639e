"""The form of OAuth's endpoints: bodies as forms, refusals as RFC 6749 section 5.2 has them, nothing that a cache keeps."""

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute

from crank import errors
from crank.api.challenge import challenge
from crank.api.documents import answer
from crank.api.problem import place_of
from crank.api.strict import StrictRequest, chunks
from crank.errors import CrankError, InvalidRequest

FORM_BYTES_MAX = 96 * 1024
FIELDS_MAX = 32
_REPEATABLE = frozenset({"resource", "audience"})
_FORM = "application/x-www-form-urlencoded"
# What the standards call it, by our code; else by the kind of fault. RFC 8693 section 2.2.2: a subject or actor token
# that does not hold, or that policy does not let pass, is an invalid request.
_BY_CODE: Mapping[str, str] = {
    "nothing_granted": "invalid_scope",
    "too_many_rights": "invalid_scope",
    "invalid_scope": "invalid_scope",
    "role_not_found": "invalid_scope",
    "role_not_allowed": "unauthorized_client",
    "invalid_authorization_details": "invalid_authorization_details",
    "invalid_dpop_proof": "invalid_dpop_proof",
    "invalid_target": "invalid_target",
    "unsupported_grant_type": "unsupported_grant_type",
    "not_authenticated": "invalid_client",
    "identity_without_token": "invalid_client",
}
_REQUEST = "invalid_request"


class FormRequest(StrictRequest):
    """A request whose body is a form, read once and bounded."""

    async def fields(self) -> dict[str, list[str]]:
        """Return the fields of the form by name; one that says nothing is as good as left out (RFC 6749 section 3.1).

        Raises InvalidRequest (also one that is sent twice), TooLarge.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _FORM:
            raise InvalidRequest(f"The body is not declared as {_FORM}.", code=_REQUEST, field="content-type")
        octets = b"".join([piece async for piece in chunks(self, bytes_max=FORM_BYTES_MAX)])
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(
                octets.decode("ascii"), keep_blank_values=True, strict_parsing=bool(octets),
                encoding="utf-8", errors="strict", max_num_fields=FIELDS_MAX,
            )  # fmt: skip
        except ValueError as fault:
            raise InvalidRequest(f"The body is no form: {fault}.", code=_REQUEST) from fault
        for name, value in pairs:
            if value:
                found.setdefault(name, []).append(value)
        twice = sorted(name for name, values in found.items() if len(values) > 1 and name not in _REPEATABLE)
        if twice:
            raise InvalidRequest(f"{twice[0][:80]} is sent twice.", code=_REQUEST, field=twice[0][:80])
        return found


class OAuthRoute(APIRoute):
    """Answers every refusal as OAuth's clients read it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the framework's own."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            own = FormRequest(request.scope, request.receive)
            try:
                return await handle(own)
            except CrankError as fault:
                return refusal(own, fault)

        return guarded


def refusal(request: Request, fault: CrankError) -> Response:
    """Return a refusal in OAuth's form, with our own code, field and fix beside it."""
    name = _BY_CODE.get(fault.error_code, _REQUEST)
    status, headers = 400, {"pragma": "no-cache"}
    if isinstance(fault, errors.Unavailable | errors.StoreError):
        name, status = "temporarily_unavailable", 503
        headers["retry-after"] = str(getattr(fault, "retry_after_sec", 10))
    elif isinstance(fault, errors.TooLarge):
        status = 413
    elif name == "invalid_client":
        status = 401
        headers["www-authenticate"] = challenge(fault, place_of(request))
    elif not isinstance(
        fault, errors.InvalidRequest | errors.NotAllowed | errors.NotAuthenticated | errors.UntrustedPeer
    ):
        raise fault
    body = {"error": name, "error_description": _ascii(fault.message), "code": fault.error_code, "fix": fault.fix}
    return answer({**body, "field": fault.field}, status, headers)


def _ascii(text: str) -> str:
    """Return text in the characters that RFC 6749 section 5.2 allows in a description."""
    return "".join(char if " " <= char <= "~" and char not in '"\\' else "'" for char in text)
