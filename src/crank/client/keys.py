"""The keys of a node: mint, look, revoke, and say which mounts each may name. For the node's owner."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from crank.client.link import Link
from crank.client.token_forms import details_of
from crank.domain.json import JsonObject
from crank.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Key:
    """One key.

    mounts  ids of the mounts that it may name; None: every mount
    rights  what it may be used for, as `authorization_details`; None: everything that a key of its kind may
    secret  only just after it was minted, and never again
    """

    key_id: str
    name: str
    kind: str
    mounts: tuple[str, ...] | None
    revoked: bool
    secret: str | None = field(repr=False, default=None)
    document: JsonObject = field(repr=False, default_factory=dict)
    rights: tuple[JsonObject, ...] | None = None


def parse_key(body: Any) -> Key:
    """Read a key document. Raises ProtocolError when it is none."""
    try:
        mounts, rights = body["mounts"], body.get("authorization_details")
        return Key(
            key_id=str(body["key_id"]),
            name=str(body["name"]),
            kind=str(body["kind"]),
            mounts=None if mounts is None else tuple(str(mount) for mount in mounts),
            revoked=body["revoked_at"] is not None,
            secret=body.get("secret"),
            document={name: value for name, value in body.items() if name != "secret"},
            rights=None if rights is None else tuple(dict(one) for one in rights),
        )
    except (AttributeError, KeyError, TypeError) as fault:
        raise ProtocolError("The node answered something that is not a key.") from fault


class AsyncKeys:
    """`client.keys` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def mint(
        self,
        name: str,
        *,
        kind: str = "api",
        mounts: Sequence[str] = (),
        expires_sec: float | None = None,
        rights: Sequence[Mapping[str, Any]] | None = None,
    ) -> Key:
        """Make a key and return it with its secret. Never repeated by itself: a lost answer is a lost secret.

        kind    `api`, `e2b`, or `owner`; expires_sec None: until it is revoked
        rights  what it may be used for, as in `tokens.exchange`; None: everything
        Raises InvalidRequest, NotFound (a mount), Conflict (`key_name_taken`), NotAllowed.
        """
        body: JsonObject = {"name": name, "kind": kind, "mounts": list(mounts)}
        if expires_sec is not None:
            body["expires_sec"] = expires_sec
        if rights is not None:
            body["authorization_details"] = details_of(rights)
        _, document = await self._link.ask("POST", "/v1/keys", json=body, retry=False)
        return parse_key(document)

    async def list(self) -> Sequence[Key]:
        """Return every key, oldest first, the revoked ones too. Raises NotAllowed."""
        _, document = await self._link.ask("GET", "/v1/keys")
        return tuple(parse_key(entry) for entry in document["keys"])

    async def own(self) -> Key:
        """Return the key that this client uses."""
        _, document = await self._link.ask("GET", "/v1/keys/self")
        return parse_key(document)

    async def revoke(self, key: str) -> Key:
        """Revoke a key, by id or name, and end what it has under way. Raises NotFound, Conflict, NotAllowed."""
        _, document = await self._link.ask("DELETE", f"/v1/keys/{quote(key, safe='')}")
        return parse_key(document)

    async def allow(self, key: str, mount: str) -> Key:
        """Let a key name a mount. Raises NotFound, Conflict, NotAllowed."""
        return await self._set("PUT", key, mount)

    async def deny(self, key: str, mount: str) -> Key:
        """Take a mount from a key, and end what it runs with it. Raises NotFound, Conflict, NotAllowed."""
        return await self._set("DELETE", key, mount)

    async def _set(self, method: str, key: str, mount: str) -> Key:
        path = f"/v1/keys/{quote(key, safe='')}/mounts/{quote(mount, safe='')}"
        _, document = await self._link.ask(method, path)
        return parse_key(document)


class Keys:
    """`client.keys` of a Client: every call promises what that of AsyncKeys promises."""

    def __init__(self, remote: AsyncKeys, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def mint(
        self,
        name: str,
        *,
        kind: str = "api",
        mounts: Sequence[str] = (),
        expires_sec: float | None = None,
        rights: Sequence[Mapping[str, Any]] | None = None,
    ) -> Key:
        """Make a key and return it with its secret."""
        minting = self._remote.mint(name, kind=kind, mounts=mounts, expires_sec=expires_sec, rights=rights)
        key: Key = self._wait_for(minting)
        return key

    def list(self) -> Sequence[Key]:
        """Return every key, oldest first, the revoked ones too."""
        keys: Sequence[Key] = self._wait_for(self._remote.list())
        return keys

    def own(self) -> Key:
        """Return the key that this client uses."""
        key: Key = self._wait_for(self._remote.own())
        return key

    def revoke(self, key: str) -> Key:
        """Revoke a key, by id or name, and end what it has under way."""
        revoked: Key = self._wait_for(self._remote.revoke(key))
        return revoked

    def allow(self, key: str, mount: str) -> Key:
        """Let a key name a mount."""
        changed: Key = self._wait_for(self._remote.allow(key, mount))
        return changed

    def deny(self, key: str, mount: str) -> Key:
        """Take a mount from a key, and end what it runs with it."""
        changed: Key = self._wait_for(self._remote.deny(key, mount))
        return changed
