"""Tokens of a node: make narrower ones of what one holds, look at them, and end them."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from crank.client.link import Link, read_secret
from crank.client.proof import ProofKey
from crank.client.token_forms import TOKEN_PATH, TokenWanted, exchange_form
from crank.domain.chain import looks_like_chain
from crank.domain.json import JsonObject
from crank.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was just made.

    bound      whether its holder must prove a key
    lives_sec  how long it lasts from now
    """

    text: str = field(repr=False)
    grant_id: str
    bound: bool
    lives_sec: int
    scope: str
    document: JsonObject = field(repr=False)


def parse_token(body: Any) -> Token:
    """Read the answer of the token endpoint. Raises ProtocolError when it is none."""
    try:
        return Token(
            text=str(body["access_token"]),
            grant_id=str(body["grant_id"]),
            bound=str(body["token_type"]).lower() == "dpop",
            lives_sec=int(body["expires_in"]),
            scope=str(body["scope"]),
            document={name: value for name, value in body.items() if name != "access_token"},
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise ProtocolError("The node answered something that is not a token.") from fault


class AsyncTokens:
    """`client.tokens` of an AsyncClient."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def exchange(self, subject: str | None = None, *, proof_key: ProofKey | None = None, **wanted: Any) -> Token:
        """Exchange what is held for a token that allows less, for oneself or for somebody else.

        subject    a token or a key's secret; None: what this client was made with
        proof_key  the key that the subject is bound to, or that the new token shall be bound to
        wanted     the fields of `TokenWanted`
        Raises NotAuthenticated, and InvalidRequest for all that OAuth calls an invalid request or scope: its code says
        which (`delegation_not_allowed`, `bearer_not_allowed`, `nothing_granted`, …).
        """
        options = self._link.options
        shown = subject or options.token or read_secret(options.token_file)
        form = exchange_form(shown, TokenWanted(**wanted))
        key = proof_key or options.proof_key
        proof = {} if key is None else {"DPoP": key.prove("POST", options.api.rstrip("/") + TOKEN_PATH)}
        # Who asks is in the form; nothing is repeated by itself: a proof counts once.
        _, body = await self._link.ask("POST", TOKEN_PATH, data=form, headers=proof, retry=False, auth=None)
        return parse_token(body)

    async def introspect(self, token: str) -> JsonObject:
        """Return what a token is good for; `active` False for one that is over, or not this caller's to know of."""
        _, body = await self._link.ask("POST", f"{TOKEN_PATH}/introspect", data={"token": token})
        return dict(body)

    async def revoke(self, token: str) -> None:
        """End a token, by itself or by its grant's id, with all that came of it. Raises NotFound for an unknown id."""
        if token.count(".") == 2 or looks_like_chain(token):
            await self._link.ask("POST", f"{TOKEN_PATH}/revoke", data={"token": token})
        else:
            await self._link.ask("DELETE", f"/v1/tokens/{quote(token, safe='')}")

    async def list(self, *, limit: int = 50, before: str | None = None) -> Sequence[JsonObject]:
        """Return the grants of tokens, newest first, those that ended too. Raises NotAllowed."""
        params = {"limit": limit, **({} if before is None else {"before": before})}
        _, body = await self._link.ask("GET", "/v1/tokens", params=params)
        return tuple(body["tokens"])

    async def roles(self) -> Sequence[JsonObject]:
        """Return the roles that this caller may assume, by name."""
        _, body = await self._link.ask("GET", "/v1/roles")
        return tuple(body["roles"])


class Tokens:
    """`client.tokens` of a Client: every call promises what that of AsyncTokens promises."""

    def __init__(self, remote: AsyncTokens, wait_for: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
        self._remote = remote
        self._wait_for = wait_for

    def exchange(self, subject: str | None = None, **wanted: Any) -> Token:
        """Exchange what is held for a token that allows less."""
        token: Token = self._wait_for(self._remote.exchange(subject, **wanted))
        return token

    def introspect(self, token: str) -> JsonObject:
        """Return what a token is good for."""
        found: JsonObject = self._wait_for(self._remote.introspect(token))
        return found

    def revoke(self, token: str) -> None:
        """End a token with all that came of it."""
        self._wait_for(self._remote.revoke(token))

    def list(self, *, limit: int = 50, before: str | None = None) -> Sequence[JsonObject]:
        """Return the grants of tokens, newest first."""
        found: Sequence[JsonObject] = self._wait_for(self._remote.list(limit=limit, before=before))
        return found

    def roles(self) -> Sequence[JsonObject]:
        """Return the roles that this caller may assume, by name."""
        found: Sequence[JsonObject] = self._wait_for(self._remote.roles())
        return found
