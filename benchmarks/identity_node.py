"""What identity costs a real node: authentication in each request, five hundred watchers fed, a revocation, a root changed.

Whatever this tree does not hold yet is left out with a sentence.
"""

import asyncio
import contextlib
import functools
import importlib
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from benchmarks.identity_ways import proof
from benchmarks.measure import Series, Way, interleave
from benchmarks.node import CRANK

from crank import AsyncClient
from crank.bootstrap.node import node_info
from crank.config import load
from crank.domain.json import JsonObject
from crank.errors import CrankError
from crank.testing.fake_tokens import Holder

WATCHERS = 500
_STREAMS_A_CONNECTION = 20
FED_SEC = 60.0
_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_KEY = "urn:crank:params:token-type:api-key"
_BISCUIT = "urn:crank:params:token-type:biscuit"


@dataclass(slots=True)
class AskingWay:
    """One request over a connection that is kept; what it proves with is made before the clock starts."""

    name: str
    note: str
    http: httpx2.AsyncClient
    path: str
    headers: Callable[[], dict[str, str]]

    async def once(self) -> float:
        """Ask once; return the seconds to the answer."""
        headers = self.headers()
        began = time.perf_counter()
        answer = await self.http.get(self.path, headers=headers)
        taken = time.perf_counter() - began
        if answer.status_code != 200:
            raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
        return taken

    async def settle(self) -> None:
        """Do nothing: an answer leaves nothing behind."""


async def added_latency(rounds: int) -> dict[str, Any]:
    """Return what authentication adds to a request: p50 beside that of a request that needs none."""
    node = node_info(load())
    tls = ssl.create_default_context(cafile=node["ca_file"])
    secret = Path(node["token_file"]).read_text("utf-8").strip()
    async with httpx2.AsyncClient(base_url=node["api"], verify=tls) as http:
        series = await interleave(await _ways(http, node["api"], secret), rounds=rounds, warmups=5)
    floor = series["none"].percentile(50)
    return {name: _told(entry, floor) for name, entry in series.items()}


def _told(series: Series, floor_sec: float) -> JsonObject:
    if not series.seconds:
        return series.to_json()
    return {**series.to_json(), "added_ms_p50": round(1000 * (series.percentile(50) - floor_sec), 3)}


async def _ways(http: httpx2.AsyncClient, api: str, secret: str) -> list[Way]:
    prover = Holder()
    bearer = await _token(http, api, secret, None)
    bound = await _token(http, api, secret, prover)
    chain = await _token(http, api, secret, prover, requested_token_type=_BISCUIT)
    own = "/v1/keys/self"

    def by(token: str) -> Callable[[], dict[str, str]]:
        return lambda: {"authorization": f"DPoP {token}", "dpop": proof(prover, "GET", api + own, token)}

    return [
        AskingWay("none", "/healthz: nobody is asked for", http, "/healthz", dict),
        AskingWay("key", "a key's secret", http, own, lambda: {"authorization": f"Bearer {secret}"}),
        AskingWay("token", "an access token of a bearer", http, own, lambda: {"authorization": f"Bearer {bearer}"}),
        AskingWay("token, proven", "bound to a key, a fresh proof each time", http, own, by(bound)),
        AskingWay("Biscuit, proven", "the same as a Biscuit", http, own, by(chain)),
    ]


async def _token(http: httpx2.AsyncClient, api: str, secret: str, prover: Holder | None, **more: str) -> str:
    headers = {} if prover is None else {"dpop": proof(prover, "POST", f"{api}/v1/token", None)}
    form = {"grant_type": _EXCHANGE, "subject_token": secret, "subject_token_type": _KEY, **more}
    answer = await http.post("/v1/token", data=form, headers=headers)
    if answer.status_code != 200:
        raise RuntimeError(f"no token was issued: {answer.text[:200]}")
    return str(answer.json()["access_token"])


# --- watchers ---------------------------------------------------------------------------------


async def watchers(count: int = WATCHERS) -> dict[str, Any]:
    """Return how long it takes until every watcher of the Workload API has its first message, and one more after a change."""
    _register()
    async with contextlib.AsyncExitStack() as stack:
        began = time.perf_counter()
        streams = await fed(stack, count)
        first = time.perf_counter() - began
        began = time.perf_counter()
        waiting = asyncio.gather(*(stream.recv_message() for stream in streams))
        async with AsyncClient() as client:
            await _rotate(client, "prepare")
            await asyncio.wait_for(waiting, FED_SEC)
            again = time.perf_counter() - began
            await _rotate(client, "abort")
    return {"watchers": count, "first_sec": round(first, 3), "rotated_sec": round(again, 3)}


async def fed(stack: contextlib.AsyncExitStack, count: int) -> list[Any]:
    """Return so many streams of certificates, each with its first message behind it."""
    _register()
    messages = importlib.import_module("crank.api.spiffe.messages.workload_pb2")
    place = str(node_info(load())["spiffe_socket"]).removeprefix("unix://")
    streams = await _streams(stack, place, messages, count)
    await asyncio.wait_for(asyncio.gather(*(stream.recv_message() for stream in streams)), FED_SEC)
    return streams


@functools.cache
def _register() -> None:
    """Register this account's workload, once for all who watch."""
    _run("workload", "add", "agent/bench", "--selector", f"unix:uid:{os.geteuid()}")


async def _streams(stack: contextlib.AsyncExitStack, place: str, messages: Any, count: int) -> list[Any]:
    # Only where the socket is served is there something that speaks gRPC.
    grpc: Any = importlib.import_module("grpclib.client")
    kinds = messages.X509SVIDRequest, messages.X509SVIDResponse
    channels = [grpc.Channel(path=place) for _ in range(-(-count // _STREAMS_A_CONNECTION))]
    streams = []
    for channel in channels:
        stack.callback(channel.close)
    for number in range(count):
        channel = channels[number // _STREAMS_A_CONNECTION]
        method = grpc.UnaryStreamMethod(channel, "/SpiffeWorkloadAPI/FetchX509SVID", *kinds)
        stream = await stack.enter_async_context(_cancelled(method.open(metadata={"workload.spiffe.io": "true"})))
        await stream.send_message(messages.X509SVIDRequest(), end=True)
        streams.append(stream)
    return streams


@contextlib.asynccontextmanager
async def _cancelled(opening: Any) -> AsyncIterator[Any]:
    stream = await opening.__aenter__()
    try:
        yield stream
    finally:
        with contextlib.suppress(Exception):
            await stream.cancel()
            await opening.__aexit__(None, None, None)


def _run(*words: str) -> None:
    subprocess.run([CRANK, *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


# --- the root ---------------------------------------------------------------------------------


async def root_change() -> dict[str, Any]:
    """Return how long each step of changing the root takes, and the way back; activating waits for all who are connected.

    The last step waits for an hour's certificates to end, so it is not measured.
    """
    found: dict[str, Any] = {}
    async with AsyncClient() as client:
        for step in ("prepare", "activate", "abort"):
            began = time.perf_counter()
            await asyncio.wait_for(_until_done(client, step), FED_SEC)
            found[f"{step}_sec"] = round(time.perf_counter() - began, 3)
    return found


async def _until_done(client: AsyncClient, step: str) -> None:
    while True:
        try:
            return await _rotate(client, step)
        except CrankError:
            # Somebody has not acknowledged the step before; the deadline decides.
            await asyncio.sleep(0.2)


async def _rotate(client: Any, step: str) -> None:
    await client.identities.rotate(step)


async def _revocation() -> dict[str, Any]:
    # A part of this one, and of a tree that may not hold all that it needs.
    measured: dict[str, Any] = await importlib.import_module("benchmarks.identity_revoke").revocation()
    return measured


async def measure(rounds: int, notes: list[str]) -> dict[str, Any]:
    """Measure what there is; say what is not."""
    parts: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
        "added_latency": lambda: added_latency(rounds),
        "watchers": watchers,
        "revocation": _revocation,
        "root_change": root_change,
    }
    found: dict[str, Any] = {}
    for name, part in parts.items():
        try:
            found[name] = await part()
        except (ImportError, AttributeError, KeyError, subprocess.CalledProcessError) as fault:
            notes.append(f"{name.replace('_', ' ')} was not measured: this tree does not have it ({fault})")
        except (CrankError, RuntimeError, TimeoutError, OSError) as fault:
            notes.append(f"{name.replace('_', ' ')} could not be measured: {fault!r}")
    return found
