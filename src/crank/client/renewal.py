"""How requests prove who asks: by a key's secret, by a token that was given, or by tokens that renew themselves."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx2

from crank.client.fault import fault_of
from crank.client.proof import ProofKey
from crank.client.token_forms import TOKEN_PATH, TokenWanted, exchange_form

# Renewed when so much of its life is left, or this many seconds, whatever is less.
_LEFT_SHARE = 0.5
_LEFT_SEC = 60.0


class GivenToken(httpx2.Auth):
    """Sends a token that somebody gave; with a proof of the own key where it is bound to that."""

    def __init__(self, token: str, key: ProofKey | None) -> None:
        self._token = token
        self._key = key

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Add the headers."""
        show(request, self._token, self._key)
        yield request


class RenewedToken(httpx2.Auth):
    """Exchanges a secret for short tokens bound to a key of its own, and sends those; the secret goes to `/v1/token` alone.

    wanted  what each of them shall allow
    """

    def __init__(self, api: str, secret: str, key: ProofKey, wanted: TokenWanted) -> None:
        self._url = api.rstrip("/") + TOKEN_PATH
        self._secret = secret
        self._key = key
        self._wanted = wanted
        self._token = ""
        self._renew_at_sec = 0.0
        self._renewing = asyncio.Lock()

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """Send a request with a token that lives; once more with a new one where the node does not know it any more."""
        async with self._renewing:
            if time.monotonic() >= self._renew_at_sec:
                answer = yield self._exchange()
                await self._take(answer)
            token = self._token
        show(request, token, self._key)
        answer = yield request
        if answer.status_code != httpx2.codes.UNAUTHORIZED or not isinstance(request.stream, httpx2.ByteStream):
            return
        async with self._renewing:
            if self._token == token:
                await self._take((yield self._exchange()))
        show(request, self._token, self._key)
        yield request

    def _exchange(self) -> httpx2.Request:
        headers = {"DPoP": self._key.prove("POST", self._url)}
        return httpx2.Request("POST", self._url, data=exchange_form(self._secret, self._wanted), headers=headers)

    async def _take(self, answer: httpx2.Response) -> None:
        await answer.aread()
        if not answer.is_success:
            raise fault_of(answer.status_code, _json_or_none(answer))
        body = answer.json()
        self._token = str(body["access_token"])
        lives_sec = float(body["expires_in"])
        self._renew_at_sec = time.monotonic() + max(1.0, lives_sec - max(_LEFT_SEC, lives_sec * _LEFT_SHARE))


def show(request: httpx2.Request, token: str, key: ProofKey | None) -> None:
    """Put a token into a request, with a fresh proof where there is a key."""
    request.headers["Authorization"] = f"{'Bearer' if key is None else 'DPoP'} {token}"
    if key is not None:
        url = request.url.copy_with(query=None, fragment=None)
        request.headers["DPoP"] = key.prove(request.method, str(url), token)


def _json_or_none(answer: httpx2.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
