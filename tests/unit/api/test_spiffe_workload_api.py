"""The Workload API as its standard says: what is answered, to whom, and what is pushed when."""

import asyncio
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from crank.adapters.clock import SystemClock
from crank.api.spiffe.messages import workload_pb2
from crank.controller.identities import allow_identity, revoke_identity
from crank.errors import Unavailable
from crank.sandbox.link import allow_descriptors
from tests.support.authority import CountedAuthority
from tests.support.spiffe_socket import next_of, open_socket

SOON_SEC = 10


async def status_of(call: Any) -> Status:
    """Return how a call ended."""
    try:
        async with asyncio.timeout(SOON_SEC):
            await call
    except GRPCError as fault:
        return fault.status
    return Status.OK


def certificates_in(octets: bytes) -> list[x509.Certificate]:
    """Return certificates that stand one after another, as DER allows."""
    found = []
    while octets:
        # Each is longer than 255 bytes, so its length stands in the two octets after 0x30 0x82.
        end = 4 + int.from_bytes(octets[2:4], "big")
        found.append(x509.load_der_x509_certificate(octets[:end]))
        octets = octets[end:]
    return found


async def test_a_certificate_with_its_key_and_its_roots(tmp_path: Path) -> None:
    """The first message comes at once: DER, leaf first, a PKCS#8 key that fits, the roots, the hint."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        await socket.register("agent/ci", hint="main", dns_names=("ci.internal",))
        (svid,) = (await client.fetch_x509()).svids
        assert (svid.spiffe_id, svid.hint) == ("spiffe://test.internal/agent/ci", "main")
        chain = certificates_in(svid.x509_svid)
        leaf = chain[0]
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [svid.spiffe_id]
        assert names.get_values_for_type(x509.DNSName) == ["ci.internal"]
        key: Any = serialization.load_der_private_key(svid.x509_svid_key, None)
        assert key.public_key() == leaf.public_key()
        for lower, upper in pairwise([*chain, *certificates_in(svid.bundle)]):
            lower.verify_directly_issued_by(upper)


async def test_every_registered_identity_in_one_message(tmp_path: Path) -> None:
    """A process that bears the marks of several entries gets them all, oldest first, and none that it does not bear."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        for name in ("b", "a"):
            await socket.register(f"agent/{name}", hint=name)
        await socket.register("agent/other", "unix:uid:4294967290")
        await socket.register("agent/both", "unix:uid:0", "unix:path:/no/such/program")
        assert [svid.hint for svid in (await client.fetch_x509()).svids] == ["b", "a"]


async def test_nobody_without_an_entry(tmp_path: Path) -> None:
    """A process without an identity is told PermissionDenied by every call."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        assert await status_of(client.fetch_x509()) is Status.PERMISSION_DENIED
        assert await status_of(client.tokens("a")) is Status.PERMISSION_DENIED
        for name in ("X509Bundles", "JWTBundles"):
            request, answer = (getattr(workload_pb2, f"{name}{end}") for end in ("Request", "Response"))
            async with client.watch(f"Fetch{name}", request(), answer) as stream:
                assert await status_of(next_of(stream)) is Status.PERMISSION_DENIED
        request = workload_pb2.ValidateJWTSVIDRequest(audience="a", svid="x")
        call = client.ask("ValidateJWTSVID", request, workload_pb2.ValidateJWTSVIDResponse)
        assert await status_of(call) is Status.PERMISSION_DENIED


@pytest.mark.must("Workload Endpoint 3/4", "Workload Endpoint 6/1")
@pytest.mark.parametrize("metadata", [{"x": "y"}, {"workload.spiffe.io": "false"}, {"workload.spiffe.io": "True"}])
async def test_the_header_is_mandatory(tmp_path: Path, metadata: dict[str, str]) -> None:
    """A request without `workload.spiffe.io: true` is refused with InvalidArgument, whoever makes it."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        await socket.register("agent/ci")
        request = workload_pb2.JWTSVIDRequest(audience=["a"])
        call = client.ask("FetchJWTSVID", request, workload_pb2.JWTSVIDResponse, **metadata)
        assert await status_of(call) is Status.INVALID_ARGUMENT
        async with client.watch(
            "FetchX509SVID", workload_pb2.X509SVIDRequest(), workload_pb2.X509SVIDResponse, **metadata
        ) as stream:
            assert await status_of(next_of(stream)) is Status.INVALID_ARGUMENT


@pytest.mark.must("SPIFFE-ID 3.3/1")
async def test_what_is_not_served_is_unimplemented(tmp_path: Path) -> None:
    """An unknown call, such as that for WIT-SVIDs, says so."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        call = client.ask("FetchWITSVID", workload_pb2.JWTSVIDRequest(), workload_pb2.JWTSVIDResponse)
        assert await status_of(call) is Status.UNIMPLEMENTED


async def test_a_watcher_is_told_of_every_change(tmp_path: Path) -> None:
    """A new entry, a rotated root, and the end of an identity reach an open stream, each as the full state."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        first = await socket.register("agent/a")
        async with client.watch_x509() as stream:
            assert [svid.spiffe_id[-1] for svid in (await next_of(stream)).svids] == ["a"]
            second = await socket.register("agent/b")
            both = await next_of(stream)
            assert [svid.spiffe_id[-1] for svid in both.svids] == ["a", "b"]
            # A root that comes is told; one that goes takes with it what it signed.
            socket.authority.change_root()
            prepared = await next_of(stream)
            assert len(prepared.svids[0].bundle) > len(both.svids[0].bundle)
            assert prepared.svids[0].x509_svid == both.svids[0].x509_svid
            socket.authority.change_root(keep_old=False)
            rotated = await next_of(stream)
            assert len(certificates_in(rotated.svids[0].bundle)) == 1
            assert rotated.svids[0].x509_svid != both.svids[0].x509_svid
            assert rotated.svids[0].x509_svid_key == both.svids[0].x509_svid_key
            await socket.remove(second)
            assert [svid.spiffe_id[-1] for svid in (await next_of(stream)).svids] == ["a"]
            began = asyncio.get_running_loop().time()
            await socket.remove(first)
            assert await status_of(next_of(stream)) is Status.PERMISSION_DENIED
            # Not at the next renewal, which is minutes away.
            assert asyncio.get_running_loop().time() - began < 30


async def test_renewed_at_half_life(tmp_path: Path) -> None:
    """A certificate of two seconds is followed by another one, for the same key, before it ends."""
    async with open_socket(tmp_path, life_sec=2) as socket, socket.client() as client:
        await socket.register("agent/a")
        async with client.watch_x509() as stream:
            given = [(await next_of(stream)).svids[0] for _ in range(3)]
            assert len({one.x509_svid for one in given}) == 3
            assert len({one.x509_svid_key for one in given}) == 1


@pytest.mark.must("Federation 5.1/2")
async def test_bundles_alone(tmp_path: Path) -> None:
    """Roots and token keys are streamed by trust domain, and again only when they changed, not with each certificate."""
    other = CountedAuthority("other.example", SystemClock()).bundle()
    third = CountedAuthority("third.example", SystemClock()).bundle()
    async with open_socket(tmp_path, life_sec=1, federated=(other, third)) as socket, socket.client() as client:
        await socket.register("agent/a", federates_with=("other.example", "unknown.example"))
        asked = (workload_pb2.X509BundlesRequest(), workload_pb2.X509BundlesResponse)
        async with (
            client.watch("FetchX509Bundles", *asked) as stream,
            client.watch("FetchJWTBundles", workload_pb2.JWTBundlesRequest(), workload_pb2.JWTBundlesResponse) as tokens,
            client.watch_x509() as certificates,
        ):
            bundles = (await next_of(stream)).bundles
            assert dict(bundles) == {
                "spiffe://test.internal": socket.authority.bundle().x509_authorities[0],
                "spiffe://other.example": other.x509_authorities[0],
            }
            sets = (await next_of(tokens)).bundles
            (key,) = json.loads(sets["spiffe://other.example"])["keys"]
            assert (key["use"], key["kid"], "d" in key) == ("jwt-svid", other.jwt_authorities[0].kid, False)
            await next_of(certificates)
            message = await next_of(certificates)
            assert dict(message.federated_bundles) == {"spiffe://other.example": other.x509_authorities[0]}
            # Certificates were renewed meanwhile; the next word here is about the root, nevertheless.
            socket.authority.change_root(keep_old=False)
            changed = (await next_of(stream)).bundles
            assert changed["spiffe://test.internal"] == socket.authority.bundle().x509_authorities[0]
            assert changed["spiffe://test.internal"] != bundles["spiffe://test.internal"]
            # A federation that ended is taken from who had its bundle, at once.
            socket.others.drop("other.example")
            assert list((await next_of(stream)).bundles) == ["spiffe://test.internal"]


@pytest.mark.must("JWT-SVID 3.2/2", "JWT-SVID 3.1/1")
async def test_tokens_are_made_and_checked(tmp_path: Path) -> None:
    """A JWT-SVID is for its audience, names its identity and is valid to others; anything else about it is refused."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        await socket.register("agent/a", hint="one")
        await socket.register("tenant/t/b", ttl_sec=10)
        both = await client.tokens("db", "cache")
        assert [(svid.spiffe_id, svid.hint) for svid in both.svids] == [
            ("spiffe://test.internal/agent/a", "one"), ("spiffe://test.internal/tenant/t/b", ""),
        ]  # fmt: skip
        (one,) = (await client.tokens("db", spiffe_id="spiffe://test.internal/tenant/t/b")).svids
        assert await status_of(client.tokens("db", spiffe_id="spiffe://test.internal/agent/x")) is Status.PERMISSION_DENIED
        assert await status_of(client.tokens()) is Status.INVALID_ARGUMENT
        assert await status_of(client.tokens("a" * 5000)) is Status.INVALID_ARGUMENT

        async def validate(token: str, audience: str) -> Any:
            request = workload_pb2.ValidateJWTSVIDRequest(audience=audience, svid=token)
            return await client.ask("ValidateJWTSVID", request, workload_pb2.ValidateJWTSVIDResponse)

        answer = await validate(one.svid, "db")
        assert answer.spiffe_id == one.spiffe_id
        assert answer.claims["exp"] - answer.claims["iat"] == 10
        for token, audience in (
            (one.svid, "other"), (one.svid, ""), (one.svid[:-4] + "AAAA", "db"), ("", "db"), ("a.b.c", "db"),
        ):  # fmt: skip
            assert await status_of(validate(token, audience)) is Status.INVALID_ARGUMENT, token


async def test_an_authority_that_cannot_sign_costs_nobody_what_they_have(tmp_path: Path) -> None:
    """Who comes new is told Unavailable; who watches keeps a stream, and gets the next certificate once there is one."""
    async with open_socket(tmp_path) as socket, socket.client() as client, socket.client() as late:
        await socket.register("agent/a")
        async with client.watch_x509() as stream:
            before = await next_of(stream)
            socket.authority.fault = Unavailable("The key store is away.")
            await socket.register("agent/b", f"unix:uid:{os.getuid()}")
            assert await status_of(late.fetch_x509()) is Status.UNAVAILABLE
            socket.authority.fault = None
            assert (await next_of(stream)).svids[0].spiffe_id == before.svids[0].spiffe_id


async def test_five_hundred_watchers_share_the_work(tmp_path: Path) -> None:
    """A rotation reaches 500 open streams of one workload at the cost of one signature."""
    # As the controller does where it serves the socket; here both ends are in one process.
    allow_descriptors(4096)
    async with open_socket(tmp_path) as socket, asyncio.TaskGroup() as group:
        await socket.register("agent/a")
        seen: list[set[bytes]] = [set() for _ in range(500)]
        first, done = asyncio.Semaphore(0), asyncio.Semaphore(0)

        async def one(given: set[bytes]) -> None:
            async with socket.client() as client, client.watch_x509() as stream:
                given.add((await next_of(stream)).svids[0].x509_svid)
                first.release()
                given.add((await next_of(stream)).svids[0].x509_svid)
                done.release()

        for given in seen:
            group.create_task(one(given))
        for _ in seen:
            await first.acquire()
        socket.authority.change_root(keep_old=False)
        for _ in seen:
            await done.acquire()
        assert socket.authority.issued == 2
        assert len(set().union(*seen)) == 2


async def test_a_revoked_identity_ends_at_once_and_a_revoked_certificate_is_replaced(tmp_path: Path) -> None:
    """A revoked serial brings another certificate to who watches; a revoked SPIFFE ID ends it long before its renewal; then it may come back."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        entry = await socket.register("agent/a")
        async with client.watch_x509() as stream:
            first = (await next_of(stream)).svids[0]
            serial = f"{certificates_in(first.x509_svid)[0].serial_number:x}"
            await revoke_identity(socket.desk, serial, reason="leaked", subject="local")
            second = (await next_of(stream)).svids[0]
            assert second.x509_svid_key != first.x509_svid_key
            began = asyncio.get_running_loop().time()
            await revoke_identity(socket.desk, str(entry.spiffe_id), reason="", subject="local")
            assert await status_of(next_of(stream)) is Status.PERMISSION_DENIED
            # Not at the next renewal, which is minutes away.
            assert asyncio.get_running_loop().time() - began < 30
        assert await status_of(client.tokens("db")) is Status.PERMISSION_DENIED
        await allow_identity(socket.desk, str(entry.spiffe_id), subject="local")
        assert (await client.fetch_x509()).svids


async def test_what_is_issued_is_recorded(tmp_path: Path) -> None:
    """Certificates and tokens leave a record each with whose they are, and no key; what is shared leaves one."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        entry = await socket.register("agent/a")
        for _ in range(2):
            await client.fetch_x509()
            await client.tokens("db")
        await socket.remove(entry)
        records = await socket.desk.store.read(lambda tx: tx.records.page(job_id=None, after=0, limit=100))
        told = [(record.kind, record.facts) for _, record in records if "spiffe_id" in record.facts]
        assert [kind for kind, _ in told] == [
            "workload.registered", "identity.issued", "jwt_svid.issued", "workload.removed", "identity.revoked",
        ]  # fmt: skip
        assert all(facts["spiffe_id"] == str(entry.spiffe_id) for _, facts in told)


@pytest.mark.must("Workload Endpoint 7/1", "Workload Endpoint 7/2")
async def test_reflection_names_the_service(tmp_path: Path) -> None:
    """A tool that knows nothing can ask what is spoken here: the service of the standard, with its five calls and no other."""
    from google.protobuf.descriptor_pb2 import FileDescriptorProto
    from grpclib.reflection.v1.reflection_grpc import ServerReflectionStub
    from grpclib.reflection.v1.reflection_pb2 import ServerReflectionRequest

    async with open_socket(tmp_path) as socket, socket.client() as client:
        ask = ServerReflectionStub(client.channel).ServerReflectionInfo
        named, described = await ask(
            [ServerReflectionRequest(list_services=""), ServerReflectionRequest(file_containing_symbol="SpiffeWorkloadAPI")]
        )
        assert [one.name for one in named.list_services_response.service] == ["SpiffeWorkloadAPI"]
        (octets,) = described.file_descriptor_response.file_descriptor_proto
        (service,) = FileDescriptorProto.FromString(octets).service
        calls = {"FetchX509SVID", "FetchX509Bundles", "FetchJWTSVID", "FetchJWTBundles", "ValidateJWTSVID"}
        assert (service.name, {call.name for call in service.method}) == ("SpiffeWorkloadAPI", calls)


async def test_a_revocation_is_pushed_to_every_stream_that_checks_others(tmp_path: Path) -> None:
    """Both streams carry the lists, one a field; a revocation of somebody else comes at once, and token keys are not said again."""
    async with open_socket(tmp_path) as socket, socket.client() as client, asyncio.timeout(SOON_SEC):
        await socket.register("agent/a")
        other = await socket.register("agent/other", "unix:uid:4294967290")
        lost = (await socket.svids.picture([other])).svids[0].svid
        number = int(lost.serial, 16)
        asked = (workload_pb2.X509BundlesRequest(), workload_pb2.X509BundlesResponse)
        tokens = (workload_pb2.JWTBundlesRequest(), workload_pb2.JWTBundlesResponse)
        async with (
            client.watch_x509() as stream,
            client.watch("FetchX509Bundles", *asked) as bundles,
            client.watch("FetchJWTBundles", *tokens) as keys,
        ):
            await next_of(keys)
            first = [await next_of(one) for one in (stream, bundles)]
            assert not any(revoked_in(one.crl, number) for one in first)
            await revoke_identity(socket.desk, lost.serial, reason="lost", subject="local")
            # Nothing else would be said for minutes.
            second = [await next_of(one) for one in (stream, bundles)]
            assert all(revoked_in(one.crl, number) for one in second)
            assert second[0].svids == first[0].svids
            assert second[0].crl == second[1].crl
            # The next word here is about keys, nevertheless.
            socket.authority.change_keys()
            sets = (await next_of(keys)).bundles
            assert len(json.loads(sets["spiffe://test.internal"])["keys"]) == 2
        # By every issuer of the chain.
        issuers = {one.issuer for one in (*certificates_in(first[0].svids[0].x509_svid), *certificates_in(first[0].svids[0].bundle))}
        assert {x509.load_der_x509_crl(der).issuer for der in second[0].crl} == issuers


def revoked_in(lists: Any, number: int) -> bool:
    """Tell whether one of the lists names this serial number."""
    found = [x509.load_der_x509_crl(der).get_revoked_certificate_by_serial_number(number) for der in lists]
    return any(one is not None for one in found)
