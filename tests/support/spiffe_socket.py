"""The socket of workloads without a node: real kernel, real HTTP/2, an authority in memory, and a plain client."""

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grpclib.client import Channel, Stream, StreamStreamMethod, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from crank.adapters.callers import KernelWitness
from crank.adapters.fresh_keys import FreshKeys
from crank.adapters.jwt_svid import JoseSvidReader
from crank.api.spiffe.door import Door
from crank.api.spiffe.messages import secrets_pb2, workload_pb2
from crank.api.spiffe.secrets import SERVICE as SECRETS
from crank.controller import workloads
from crank.controller.bundles import Bundles
from crank.controller.desk import Desk
from crank.controller.svids import Svids
from crank.domain.ids import LOCAL_TENANT
from crank.domain.trust import TrustBundle
from crank.domain.workload import WorkloadEntry
from tests.support.authority import CountedAuthority
from tests.support.desk import TRUST_DOMAIN, open_desk

OWN_UID = f"unix:uid:{os.geteuid()}"
HEADER = {"workload.spiffe.io": "true"}


@dataclass
class Socket:
    """An open socket."""

    desk: Desk
    authority: CountedAuthority
    others: Bundles
    svids: Svids
    door: Door
    path: str

    async def register(self, path: str, *selectors: str, **more: Any) -> WorkloadEntry:
        """Register a workload; by this account unless other selectors are given."""
        wanted = workloads.WorkloadWanted(path, selectors or (OWN_UID,), **more)
        return await workloads.add(self.desk, tenant=LOCAL_TENANT, subject="local", wanted=wanted)

    async def remove(self, entry: WorkloadEntry) -> None:
        """Take an identity away."""
        await workloads.remove(self.desk, tenant=LOCAL_TENANT, subject="local", entry_id=entry.entry_id)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """Give a client on a connection of its own."""
        channel = Channel(path=self.path)
        try:
            yield Client(channel)
        finally:
            channel.close()


class Client:
    """Calls by hand: no library's manners between a test and the socket."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def fetch_x509(self) -> workload_pb2.X509SVIDResponse:
        """Return the first message of the stream of certificates."""
        async with self.watch_x509() as stream:
            return await next_of(stream)

    def watch_x509(self) -> Any:
        """Open the stream of certificates."""
        return self.watch("FetchX509SVID", workload_pb2.X509SVIDRequest(), workload_pb2.X509SVIDResponse)

    @contextlib.asynccontextmanager
    async def watch(self, name: str, request: Any, answer: Any, **metadata: str) -> AsyncIterator[Stream[Any, Any]]:
        """Open a stream of the Workload API."""
        method = UnaryStreamMethod(self.channel, f"/SpiffeWorkloadAPI/{name}", type(request), answer)
        async with over(method.open(metadata=metadata or HEADER)) as stream:
            await stream.send_message(request, end=True)
            yield stream

    async def ask(self, name: str, request: Any, answer: Any, **metadata: str) -> Any:
        """Make one call of the Workload API."""
        method: Any = UnaryUnaryMethod(self.channel, f"/SpiffeWorkloadAPI/{name}", type(request), answer)
        return await method(request, metadata=metadata or HEADER)

    async def tokens(self, *audience: str, spiffe_id: str = "") -> workload_pb2.JWTSVIDResponse:
        """Fetch tokens."""
        request = workload_pb2.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
        found: workload_pb2.JWTSVIDResponse = await self.ask("FetchJWTSVID", request, workload_pb2.JWTSVIDResponse)
        return found

    @contextlib.asynccontextmanager
    async def secrets(self) -> AsyncIterator[Stream[Any, Any]]:
        """Open Envoy's stream of secrets."""
        kinds = (secrets_pb2.DiscoveryRequest, secrets_pb2.DiscoveryResponse)
        method = StreamStreamMethod(self.channel, f"/{SECRETS}/StreamSecrets", *kinds)
        async with over(method.open()) as stream:
            await stream.send_request()
            yield stream


@contextlib.asynccontextmanager
async def over(opening: Any) -> AsyncIterator[Any]:
    """Give a stream, and give it up at the end whatever it is about."""
    stream = await opening.__aenter__()
    try:
        yield stream
    finally:
        with contextlib.suppress(Exception):
            await stream.cancel()
        with contextlib.suppress(GRPCError, ProtocolError, StreamTerminatedError):
            await opening.__aexit__(None, None, None)


async def next_of(stream: Stream[Any, Any]) -> Any:
    """Return the next message. Raises GRPCError when the stream ended with one."""
    message = await stream.recv_message()
    if message is None:
        await stream.recv_trailing_metadata()
        raise GRPCError(Status.OK, "the stream is over")
    return message


async def end_of(stream: Stream[Any, Any]) -> Status:
    """Return the status with which a stream ends, without another message before."""
    try:
        await next_of(stream)
    except GRPCError as fault:
        return fault.status
    except (ProtocolError, StreamTerminatedError):
        # Of a stream that was not closed from here, too, the library forgets the last word that came with its end.
        last = dict(stream._stream.trailers or ())
        if not last:
            last = dict(await stream._stream.recv_headers())
        return Status(int(last["grpc-status"]))
    raise AssertionError("There was another message.")


@contextlib.asynccontextmanager
async def open_socket(folder: Path, *, life_sec: float = 600, federated: Sequence[TrustBundle] = ()) -> AsyncIterator[Socket]:
    """Give an open socket; its node knows the bundles of other trust domains that are given."""
    async with open_desk(folder) as opened:
        authority = CountedAuthority(TRUST_DOMAIN, opened.clock, life_sec=life_sec)
        desk = replace(opened, authority=authority)
        others = Bundles(authority, desk.clock)
        for bundle in federated:
            others.put(bundle, until_us=desk.clock.now_us() + 3600 * 1_000_000)
        svids = Svids(desk, FreshKeys(), JoseSvidReader(), others)
        await svids.start()
        path = str(folder / "s")
        witness = KernelWitness(desk.clock)
        door = Door(svids, witness, witness.listen(path, shared=False))
        door.open()
        try:
            yield Socket(desk, authority, others, svids, door, path)
        finally:
            await door.close()
            await svids.stop()
