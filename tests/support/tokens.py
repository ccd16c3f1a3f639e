"""Tokens on a desk: keys that sign them, an agent that proves a key, and the forms that the endpoint takes."""

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx2

from crank.adapters.jose import JoseProofs, JoseTokens
from crank.adapters.jwt_svid import JoseSvidReader
from crank.controller.desk import Desk
from crank.controller.token_desk import TokenDesk
from crank.domain.json import dumps
from crank.domain.role import Role
from crank.domain.rules.exchange import ACCESS_TOKEN, API_KEY, GRANT_TYPE
from crank.domain.rules.role import SHIPPED
from crank.testing.fake_tokens import FakeTokenKeys, Holder
from crank.testing.fakes import FakeClock
from tests.support.desk import SECRET

PLACE = "https://node.test"
TOKEN_URL = f"{PLACE}/v1/token"
DETAIL = "urn:crank:capability"


def with_tokens(desk: Desk, *, clock: FakeClock | None = None, keys: Any = None, **roles: Role) -> Desk:
    """Return the desk with a token endpoint behind it; more roles may be given by name."""
    signer = keys if keys is not None else FakeTokenKeys()
    tokens = TokenDesk(
        signer=signer,
        reader=JoseTokens(signer.access_token_keys, typ="at+jwt"),
        proofs=JoseProofs(),
        roles={**SHIPPED, **roles},
        place=PLACE,
        svids=JoseSvidReader(),
    )
    return replace(desk, tokens=tokens, clock=clock or desk.clock)


def kind_of(text: str) -> str:
    """Return the type under which something is shown."""
    return ACCESS_TOKEN if text.startswith("eyJ") else API_KEY


def form(subject: str = SECRET, *, actor: str | None = None, details: Any = None, **more: Any) -> dict[str, Any]:
    """Return the fields of an exchange."""
    fields = {"grant_type": GRANT_TYPE, "subject_token": subject, "subject_token_type": kind_of(subject)}
    if actor is not None:
        fields |= {"actor_token": actor, "actor_token_type": kind_of(actor)}
    if details is not None:
        fields["authorization_details"] = dumps([{"type": DETAIL, **one} for one in details])
    return {**fields, **more}


def ath(token: str) -> str:
    """Return the hash of a token that a proof beside it carries."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


class Agent:
    """Somebody with a key of their own, who asks for tokens and uses them."""

    def __init__(self, http: httpx2.AsyncClient, desk: Desk) -> None:
        self.http = http
        self.desk = desk
        self.holder = Holder()

    @property
    def now_sec(self) -> int:
        """Return the node's time."""
        return self.desk.clock.now_us() // 1_000_000

    def proof(self, method: str, url: str, token: str | None = None, **more: object) -> str:
        """Make a fresh proof."""
        beside = {} if token is None else {"ath": ath(token)}
        return self.holder.prove(method, url, now_sec=self.now_sec, **{**beside, **more})

    async def ask(self, fields: Mapping[str, Any], *, prove: bool = True) -> httpx2.Response:
        """Ask for a token, with a proof of the own key unless told otherwise."""
        headers = {"DPoP": self.proof("POST", TOKEN_URL)} if prove else {}
        return await self.http.post("/v1/token", data=dict(fields), headers=headers)

    async def token(self, subject: str = SECRET, *, prove: bool = True, **more: Any) -> str:
        """Return a new token. Fails the test when it is refused."""
        answer = await self.ask(form(subject, **more), prove=prove)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    async def use(self, token: str, method: str, path: str, *, prove: bool = True, **parts: Any) -> httpx2.Response:
        """Send a request with a token, bound or not."""
        headers = {"Authorization": f"{'DPoP' if prove else 'Bearer'} {token}", **parts.pop("headers", {})}
        if prove:
            headers.setdefault("DPoP", self.proof(method, PLACE + path.partition("?")[0], token))
        return await self.http.request(method, path, headers=headers, **parts)
