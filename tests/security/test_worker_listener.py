"""Who may talk to the worker listener: a worker with a certificate of this node's authority, nobody else."""

import asyncio
import contextlib
import hashlib
import ssl

import httpx2
import pytest
import websockets
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from websockets.asyncio.client import connect

from crank.adapters.authority import FileAuthority
from crank.api import workers
from crank.domain.capability import capability_document
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation, Workload
from crank.testing.fakes import FakeClock
from crank.wire import Beat, Hello, Rejected, Welcome, decode, encode
from tests.support.desk import SECRET, TRUST_DOMAIN, open_desk
from tests.support.listeners import Listeners, authority, context_of, open_listeners
from tests.unit.api.conftest import CORE


@pytest.fixture
async def desk(tmp_path):
    """Give a desk whose services run."""
    async with open_desk(tmp_path) as opened:
        yield opened


@pytest.fixture
async def node(desk, tmp_path):
    """Give both listeners over TLS."""
    async with open_listeners(desk, tmp_path / "identities") as listeners:
        yield listeners


def hello(desk, name: str = "w1") -> Hello:
    """Make the first message of a worker."""
    return Hello(1, 1, name, desk.ids.uuid7(), "n1", "0", 1, [capability_document(CORE)], [])


async def stored_workers(desk) -> list:
    """Return what the node remembers of workers."""
    return await desk.store.read(lambda tx: list(tx.registry.workers()))


async def refused_by_tls(node: Listeners, context: ssl.SSLContext) -> None:
    """Assert that a connection with this context ends inside TLS."""
    with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
        await first_byte(node, context)


async def first_byte(node: Listeners, context: ssl.SSLContext) -> bytes:
    """Ask for the link and return the first byte of the answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.workers_port, ssl=context)
    try:
        # In TLS 1.3 the client learns of the refusal when it reads.
        writer.write(b"GET /v1/worker HTTP/1.1\r\nHost: x\r\n\r\n")
        await writer.drain()
        return await asyncio.wait_for(reader.readexactly(1), 10)
    finally:
        writer.transport.abort()


async def test_a_worker_enrolls_and_leaves(desk, node):
    """A proven worker is welcomed and listed; when it goes, it is noted as gone."""
    async with connect(node.url, ssl=context_of(node.worker())) as link:
        await link.send(encode(hello(desk)))
        assert isinstance(decode(await link.recv()), Welcome)
        await link.send(encode(Beat(1)))
        assert [worker.known.worker_id for worker in desk.roster.live()] == ["w1"]
    for _ in range(500):
        if not desk.roster.live():
            break
        await asyncio.sleep(0.01)
    assert desk.roster.live() == []


async def test_no_client_certificate_ends_the_tls_session(desk, node):
    """Without a certificate TLS itself refuses, and nothing is stored."""
    context = ssl.create_default_context(cafile=node.authority.ca_file)
    await refused_by_tls(node, context)
    assert await stored_workers(desk) == []


async def test_another_authority_is_refused_by_tls(desk, node, tmp_path):
    """A certificate of a stranger's authority, even for the same name, ends the TLS session."""
    stranger = authority(tmp_path / "stranger").issue_worker("w1", tmp_path / "stranger-w1")
    context = context_of(stranger)
    context.load_verify_locations(cafile=node.authority.ca_file)
    await refused_by_tls(node, context)
    assert await stored_workers(desk) == []


async def test_an_expired_certificate_is_refused_by_tls(desk, node, tmp_path):
    """A certificate that ended yesterday ends the TLS session."""
    old = FileAuthority(
        tmp_path / "identities" / "authority",
        trust_domain=TRUST_DOMAIN,
        clock=FakeClock(now_us=desk.clock.now_us() - 31 * 86_400 * 1_000_000),
        ids=desk.ids,
    )
    await refused_by_tls(node, context_of(old.issue_worker("w1", tmp_path / "expired")))
    assert await stored_workers(desk) == []


async def test_a_worker_refuses_an_untrusted_controller(node, tmp_path):
    """A client with another authority does not talk to this controller."""
    stranger = authority(tmp_path / "stranger").issue_worker("w1", tmp_path / "stranger-w1")
    with pytest.raises(ssl.SSLCertVerificationError):
        await connect(node.url, ssl=context_of(stranger))


def issued_as(node: Listeners, kind: str, ids) -> ssl.SSLContext:
    """Return a context of a certificate with a worker's SPIFFE ID that was issued to something else."""
    identity = node.worker()
    key = load_pem_private_key(identity.key_file.read_bytes(), None).public_key()
    public = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    workload = Workload(kind, InstanceId(ids.uuid7()), Attestation.JOIN)
    svid = node.authority.issue(make_spiffe_id(TRUST_DOMAIN, "worker", "w1"), workload, public)
    identity.certificate_file.write_text("".join(map(ssl.DER_cert_to_PEM_cert, svid.chain)))
    return context_of(identity)


@pytest.mark.parametrize("kind", ["controller", "node", "agent", "workload"])
async def test_a_certificate_of_another_kind_is_no_workers_whatever_its_name(desk, node, kind):
    """The name is a worker's, what the certificate binds to it is not: no link, no blob, no renewal, and a record."""
    context = issued_as(node, kind, desk.ids)
    async with connect(node.url, ssl=context) as link:
        await link.send(encode(hello(desk)))
        refused = decode(await link.recv())
        assert isinstance(refused, Rejected)
        assert (refused.code, kind in refused.message) == ("identity_mismatch", True)
    base = f"https://127.0.0.1:{node.workers_port}"
    async with httpx2.AsyncClient(base_url=base, verify=context, trust_env=False) as http:
        for answer in (
            await http.put(f"/v1/blobs/{hashlib.sha256(b'x').hexdigest()}", content=b"x"),
            await http.post("/v1/identity", content=b"request"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "identity_mismatch")
    assert await stored_workers(desk) == []
    records = await desk.store.read(lambda tx: [one for _, one in tx.records.page(job_id=None, after=0, limit=99)])
    (record,) = [one for one in records if one.kind == "identity.refused"]
    assert (record.facts["asked_for"], record.facts["issued_to"].split()[0]) == ("w1", kind)


async def test_a_controller_is_no_worker(desk, node):
    """A certificate of another kind passes TLS and is still turned away before the link opens."""
    own = node.authority.issue_controller("c1")
    with pytest.raises(websockets.InvalidStatus) as caught:
        await connect(node.url, ssl=context_of(own))
    assert caught.value.response.status_code == 403
    assert await stored_workers(desk) == []


async def test_a_worker_speaks_only_for_itself(desk, node):
    """A hello in another worker's name is rejected with a code and a fix, and stores nothing."""
    async with connect(node.url, ssl=context_of(node.worker("w2"))) as link:
        await link.send(encode(hello(desk, "w1")))
        rejected = decode(await link.recv())
        assert isinstance(rejected, Rejected)
        assert rejected.code == "identity_mismatch"
        assert rejected.fix
        with pytest.raises(websockets.ConnectionClosed):
            await link.recv()
    assert await stored_workers(desk) == []


async def test_headers_never_say_who_somebody_is(desk, node):
    """Forwarded certificates and identities in headers change nothing."""
    forged = {"X-Forwarded-Client-Cert": "URI=spiffe://test.internal/worker/w1", "X-SSL-Client-Cert": "w1"}
    async with connect(node.url, ssl=context_of(node.worker("w2")), additional_headers=forged) as link:
        await link.send(encode(hello(desk, "w1")))
        assert isinstance(decode(await link.recv()), Rejected)
    async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=node.authority.ca_file)) as client:
        refused = await client.get(f"https://127.0.0.1:{node.api_port}/v1/workers", headers=forged)
    assert refused.status_code == 401


async def test_what_is_no_message_is_rejected(desk, node):
    """Broken, duplicate-keyed, binary, unknown and misplaced first messages all end the link, told why."""
    for first in ("{", '{"t":"beat","free_slots":1,"free_slots":2}', b"\x00", '{"t":"x"}', encode(Beat(1))):
        async with connect(node.url, ssl=context_of(node.worker())) as link:
            await link.send(first)
            rejected = decode(await link.recv())
            assert isinstance(rejected, Rejected)
            assert rejected.code == "protocol_error"
    assert await stored_workers(desk) == []


async def test_a_message_over_the_limit_ends_the_link(desk, node):
    """A message that is too large is not buffered; the link ends with the code for that."""
    async with connect(node.url, ssl=context_of(node.worker())) as link:
        with contextlib.suppress(websockets.ConnectionClosed):
            await link.send("x" * (5 * 1024 * 1024))
        with pytest.raises(websockets.ConnectionClosed):
            await link.recv()
    assert link.close_code == 1009


async def test_a_slow_hello_is_not_waited_for(desk, node, monkeypatch):
    """Whoever connects and says nothing is rejected after the deadline."""
    monkeypatch.setattr(workers, "HELLO_SEC_MAX", 0.05)
    async with connect(node.url, ssl=context_of(node.worker())) as link:
        rejected = decode(await link.recv())
        assert isinstance(rejected, Rejected)
        assert rejected.code == "slow_hello"


@pytest.mark.must("Forgery 2")
async def test_sessions_are_never_resumed(node):
    """No session ticket is given, so every connection proves its certificate again."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", node.workers_port, ssl=context_of(node.worker()), server_hostname="127.0.0.1"
    )
    writer.write(b"HEAD /v1/blobs/" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"404" in await asyncio.wait_for(reader.readline(), 10)
    session = writer.get_extra_info("ssl_object").session
    assert session is None or not session.has_ticket
    assert writer.get_extra_info("ssl_object").version() == "TLSv1.3"
    writer.close()
    await writer.wait_closed()


@pytest.mark.must("Federation 5/3")
async def test_old_tls_is_refused(node):
    """TLS 1.2 is not spoken on either listener."""
    for port in (node.workers_port, node.api_port):
        context = ssl.create_default_context(cafile=node.authority.ca_file)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def test_plain_http_gets_nothing(node):
    """A request without TLS ends without an answer."""
    for port in (node.workers_port, node.api_port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 10)
        assert b"HTTP/" not in answer
        writer.close()


async def test_a_worker_reads_only_blobs_of_its_jobs(desk, node):
    """A worker may store blobs, and read only what a job that it holds refers to."""
    content = b"bytes of a job"
    digest = hashlib.sha256(content).hexdigest()
    url = f"https://127.0.0.1:{node.workers_port}/v1/blobs/{digest}"
    async with httpx2.AsyncClient(verify=context_of(node.worker())) as client:
        assert (await client.head(url)).status_code == 404
        assert (await client.put(url, content=b"something else")).status_code == 422
        assert (await client.put(url, content=content)).status_code == 201
        assert (await client.head(url)).headers["content-length"] == str(len(content))
        assert (await client.get(url)).status_code == 404
        async with connect(node.url, ssl=context_of(node.worker())) as link:
            await link.send(encode(hello(desk)))
            await link.recv()
            body = {"code": "1", "files": [{"path": "a", "sha256": digest}]}
            async with httpx2.AsyncClient(
                verify=ssl.create_default_context(cafile=node.authority.ca_file),
                headers={"Authorization": f"Bearer {SECRET}"},
            ) as caller:
                accepted = await caller.post(f"https://127.0.0.1:{node.api_port}/v1/jobs", json=body)
            assert accepted.status_code == 202
            await link.recv()
            assert (await client.get(url)).content == content


async def test_a_worker_does_not_learn_what_others_left(desk, node):
    """A blob that another worker or a caller brought is answered as one that is not there; one's own, and a job's, are."""
    content = b"a secret that somebody guesses"
    digest = hashlib.sha256(content).hexdigest()
    url = f"https://127.0.0.1:{node.workers_port}/v1/blobs/{digest}"
    async with (
        httpx2.AsyncClient(verify=context_of(node.worker("w1"))) as one,
        httpx2.AsyncClient(verify=context_of(node.worker("w2"))) as two,
    ):
        assert (await one.put(url, content=content)).status_code == 201
        missing = await two.head(url.replace(digest, "0" * 64))
        refused = await two.head(url)
        assert (refused.status_code, refused.headers.get("content-length")) == (404, missing.headers.get("content-length"))
        # What it brings itself it may ask for, and nothing tells it that the blob was there before.
        assert (await two.put(url, content=content)).status_code == 201
        assert (await two.head(url)).status_code == 200


async def test_a_newer_connection_replaces_the_older(desk, node):
    """When a worker connects again, its older link is closed and says so."""
    async with connect(node.url, ssl=context_of(node.worker())) as older:
        await older.send(encode(hello(desk)))
        await older.recv()
        async with connect(node.url, ssl=context_of(node.worker())) as newer:
            await newer.send(encode(hello(desk)))
            assert isinstance(decode(await newer.recv()), Welcome)
            with pytest.raises(websockets.ConnectionClosed):
                await older.recv()
            assert older.close_reason is not None
            assert older.close_reason.startswith("replaced")
            assert len(desk.roster.live()) == 1


async def test_the_head_of_a_request_is_bounded(node):
    """Endless headers are refused instead of collected."""
    context = ssl.create_default_context(cafile=node.authority.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api_port, ssl=context)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000 + b"\r\n\r\n")
    answer = await asyncio.wait_for(reader.readline(), 10)
    assert b" 431 " in answer or b" 400 " in answer
    writer.close()


async def test_a_slow_head_is_not_waited_for(node, monkeypatch):
    """Whoever drips a request's head byte by byte is cut off after the deadline."""
    monkeypatch.setattr("crank.api.server.HEAD_SEC_MAX", 1.0)
    context = ssl.create_default_context(cafile=node.authority.ca_file)
    reader, writer = await asyncio.open_connection("127.0.0.1", node.api_port, ssl=context)
    writer.write(b"GET /hea")
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()


async def test_a_handshake_that_stops_is_not_waited_for(desk, tmp_path, monkeypatch):
    """Whoever connects and says nothing, or half a greeting, is cut off on both listeners."""
    monkeypatch.setattr("crank.api.server.HANDSHAKE_SEC_MAX", 1.0)
    async with open_listeners(desk, tmp_path / "identities") as node:
        for port in (node.api_port, node.workers_port):
            for greeting in (b"", b"\x16\x03\x01\x02\x00\x01\x00"):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(greeting)
                assert await asyncio.wait_for(reader.read(), 10) == b""
                writer.close()
