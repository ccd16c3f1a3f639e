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

    async def authority(self) -> JsonObject:
        """Return how the authority stands: its tiers, the bundle's `sequence`, the `phase` of a change of root."""
        _, document = await self._link.ask("GET", "/v1/authority")
        found: JsonObject = document
        return found

    async def rotate(self, step: str, *, force: bool = False) -> JsonObject:
        """Take a step of a change of root: prepare, activate, retire or abort. Returns how it stands then.

        Raises NotAllowed, InvalidRequest, Conflict (`rotation_phase`, `bundle_not_acknowledged`, `leaves_alive`).
        """
        _, document = await self._link.ask(
            "POST", "/v1/authority/rotation", json={"step": step, "force": force}, retry=False
        )
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

    def authority(self) -> JsonObject:
        """Return how the authority stands."""
        found: JsonObject = self._wait_for(self._remote.authority())
        return found

    def rotate(self, step: str, *, force: bool = False) -> JsonObject:
        """Take a step of a change of root."""
        found: JsonObject = self._wait_for(self._remote.rotate(step, force=force))
        return found

    def allow(self, identity: str) -> None:
        """Let a SPIFFE ID get certificates again."""
        self._wait_for(self._remote.allow(identity))
