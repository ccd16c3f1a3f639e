"""The identities of a node's trust domain: look, revoke, allow again. For the node's owner."""

from collections.abc import Callable, Coroutine
from typing import Any

from crank.client.link import Link
from crank.domain.json import JsonObject


class AsyncIdentities:
    """`client.identities` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def list(self, *, limit: int = 100) -> JsonObject:
        """Return `identities` that have not expired, newest first, and what is `revoked`. Raises NotAllowed."""
        _, document = await self._link.ask("GET", f"/v1/identities?limit={int(limit)}")
        found: JsonObject = document
        return found

    async def revoke(self, identity: str, *, reason: str = "") -> JsonObject:
        """Revoke a SPIFFE ID, or one certificate by its serial; again changes nothing. Returns what is revoked by it.

        Raises NotAllowed, InvalidRequest, NotFound, Conflict (`own_identity`).
        """
        _, document = await self._link.ask("POST", "/v1/identities/revoke", json={"identity": identity, "reason": reason})
        found: JsonObject = document
        return found

    async def allow(self, identity: str) -> None:
        """Let a SPIFFE ID get certificates again. Raises NotAllowed, NotFound when it is not revoked."""
        await self._link.ask("POST", "/v1/identities/allow", json={"identity": identity}, retry=False)


class Identities:
    """`client.identities` of a Client: every call promises what that of AsyncIdentities promises."""

    def __init__(self, remote: AsyncIdentities, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def list(self, *, limit: int = 100) -> JsonObject:
        """Return `identities` that have not expired, newest first, and what is `revoked`."""
        found: JsonObject = self._wait_for(self._remote.list(limit=limit))
        return found

    def revoke(self, identity: str, *, reason: str = "") -> JsonObject:
        """Revoke a SPIFFE ID, or one certificate by its serial."""
        found: JsonObject = self._wait_for(self._remote.revoke(identity, reason=reason))
        return found

    def allow(self, identity: str) -> None:
        """Let a SPIFFE ID get certificates again."""
        self._wait_for(self._remote.allow(identity))
