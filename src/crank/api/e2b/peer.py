"""Who calls the E2B listener: a key for the control plane, a sandbox's own token for what is inside it."""

import base64
import binascii
import re
from dataclasses import dataclass
from hmac import compare_digest

from starlette.requests import Request

from crank.api.peer import Gate as KeyGate
from crank.controller.boxes import Box, Boxes, Owner
from crank.controller.desk import Desk
from crank.errors import InvalidRequest, NotAuthenticated, NotFound

_HOST = re.compile(r"\d{1,5}-([a-z0-9]{1,64})\.")
_EXPIRES = re.compile(r"[0-9]{1,12}")
# What a signature is made over may be this long: every live sandbox is tried with it.
_SIGNED_CHARS_MAX = 4096
_USERS = frozenset({"", "user"})


@dataclass(frozen=True, slots=True)
class Gate:
    """Lets callers in."""

    desk: Desk
    boxes: Boxes
    keys: KeyGate

    async def owner(self, request: Request) -> Owner:
        """Return whose key a request carries. Raises NotAuthenticated, the same for every cause."""
        try:
            caller = await self.keys.admit_secret(request.headers.get("x-api-key", ""))
        except NotAuthenticated as unknown:
            raise NotAuthenticated(
                "This request carries no API key that this node knows.",
                fix="Set E2B_API_KEY to a key of kind e2b; 'crank node info --json' shows this account's own.",
            ) from unknown
        return Owner(caller.credential, caller.desk)

    async def box(self, request: Request) -> Box:
        """Return the sandbox that a request to the data plane means.

        Raises NotAuthenticated without a token; NotFound, the same for one that is not there and for a wrong token.
        """
        token = request.headers.get("x-access-token") or request.headers.get("e2b-traffic-access-token") or ""
        if not token:
            raise NotAuthenticated("This request carries no access token.", fix="Send the token that came with it.")
        named = _named(request)
        if named is None:
            # Some clients leave the routing headers out where they send files.
            found = self.boxes.with_token(token)
            named = "" if found is None else found.sandbox_id
        box = await self.boxes.find(named)
        if not compare_digest(box.token.encode(), token.encode("utf-8", "surrogatepass")):
            raise NotFound("The sandbox was not found.", code="sandbox_not_found")
        return box

    async def file_box(self, request: Request, operation: str) -> Box:
        """Return the sandbox of a call for a file, which a signature in the URL may name. Raises as `box`."""
        given = request.query_params.get("signature")
        if given is None:
            return await self.box(request)
        expiration = request.query_params.get("signature_expiration")
        now_sec = self.desk.clock.now_us() // 1_000_000
        if expiration is not None and not (_EXPIRES.fullmatch(expiration) and int(expiration) >= now_sec):
            raise NotAuthenticated("The signature of this URL has expired.", fix="Ask for another URL.")
        path, user = request.query_params.get("path", ""), request.query_params.get("username", "")
        is_short = len(path) + len(user) + len(given) <= _SIGNED_CHARS_MAX
        box = self.boxes.signed(path, operation, user, expiration, given) if is_short else None
        if box is None:
            raise NotAuthenticated("The signature of this URL is not one of this node.", fix="Ask for another URL.")
        return await self.boxes.find(box.sandbox_id)


def _named(request: Request) -> str | None:
    name = request.headers.get("e2b-sandbox-id")
    if name:
        return name
    host = _HOST.match(request.headers.get("host", ""))
    return host[1] if host else None


def check_user(request: Request) -> None:
    """Refuse to act as anybody else than the sandbox's user. Raises InvalidRequest."""
    name = request.query_params.get("username", "")
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name = base64.b64decode(encoded, validate=True).decode("utf-8").partition(":")[0]
        except (binascii.Error, ValueError) as fault:
            raise InvalidRequest("The Authorization header is not Basic.", code="invalid_field") from fault
    if name not in _USERS:
        raise InvalidRequest(
            f"There is no user {name[:40]!r} in a sandbox of this node: everything runs as 'user', without root.",
            code="unknown_user", fix="Leave the user out.",
        )  # fmt: skip
