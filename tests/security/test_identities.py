"""What a certificate is good for after TLS: its own renewal, until it ends or is taken back, and nothing more."""

import asyncio
import contextlib
import hashlib
import socket
import ssl
import subprocess
import time
from pathlib import Path

import httpx2
import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from websockets.asyncio.client import connect

from crank.adapters.authority import FileAuthority
from crank.adapters.controller_link import WebSocketConnector
from crank.adapters.own_identity import HeldIdentity
from crank.adapters.signed import sign_manifest
from crank.api import renewal
from crank.controller.cut_off import cut_off_all
from crank.controller.identities import load_standing
from crank.controller.issue import IdentityWanted, issue
from crank.domain.capability import capability_document
from crank.domain.enrolment import Manifest
from crank.domain.trust import Peer
from crank.errors import NotAllowed, Unavailable, UntrustedPeer
from crank.security import Verifier, client_context
from crank.testing.fakes import FakeClock
from crank.wire import (
    Beat,
    Hello,
    Lease,
    Open,
    Opened,
    Sessions,
    Started,
    Trust,
    Trusted,
    Welcome,
    decode,
    encode,
)
from tests.support.desk import SECRET, TRUST_DOMAIN, open_desk
from tests.support.listeners import authority, context_of, open_listeners
from tests.unit.api.conftest import CORE

MINUTE_US = 60_000_000


@pytest.fixture
async def desk(tmp_path):
    """Give a desk with an authority."""
    issuer = authority(tmp_path / "identities" / "authority")
    async with open_desk(tmp_path, issuer=issuer, controller_id=f"spiffe://{TRUST_DOMAIN}/controller/c1") as opened:
        yield opened


@pytest.fixture
async def node(desk, tmp_path):
    """Give both listeners over TLS."""
    async with open_listeners(desk, tmp_path / "identities", issuer=desk.authority) as listeners:
        yield listeners


@contextlib.asynccontextmanager
async def owner(node):
    """Give a client of the API that is the node's owner."""
    context = ssl.create_default_context(cafile=node.authority.ca_file)
    headers = {"Authorization": f"Bearer {SECRET}"}
    address = f"https://127.0.0.1:{node.api_port}"
    async with httpx2.AsyncClient(verify=context, headers=headers, base_url=address, timeout=60) as client:
        yield client


def hello_of(desk, identity, name: str = "w1") -> Hello:
    """Make the first message of a worker, which signs what it offers with the key of its certificate."""
    key = load_pem_private_key(identity.key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    leaf = x509.load_pem_x509_certificates(identity.certificate_file.read_bytes())[0]
    instance = desk.ids.uuid7()
    now_sec = desk.clock.now_us() // 1_000_000
    manifest = Manifest(desk.ids.uuid7(), name, instance, "n1", now_sec, (capability_document(CORE),))
    return Hello(2, 3, name, instance, "n1", "0", 1, [], [], False, sign_manifest(key, (leaf.public_bytes(Encoding.DER),), manifest))


@contextlib.asynccontextmanager
async def linked(desk, node, name: str = "w1"):
    """Give the link of a worker that is enrolled by version 3, after it acknowledged what it trusts."""
    identity = node.worker(name)
    async with connect(node.url, ssl=context_of(identity)) as link:
        await link.send(encode(hello_of(desk, identity, name)))
        assert isinstance(decode(await link.recv()), Welcome)
        trust = decode(await link.recv())
        assert isinstance(trust, Trust)
        await link.send(encode(Trusted(trust.sequence, trust.revision)))
        yield link


def request_for(name: str, *, key=None, domain: str = TRUST_DOMAIN, more=()) -> bytes:
    """Make a certificate request for a worker."""
    names = [x509.UniformResourceIdentifier(f"spiffe://{domain}/worker/{name}"), *more]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    return builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)


async def renew(node, identity, body: bytes) -> httpx2.Response:
    """Ask for the next certificate with this identity."""
    async with httpx2.AsyncClient(verify=context_of(identity)) as client:
        return await client.post(f"https://127.0.0.1:{node.workers_port}/v1/identity", content=body)


async def records(desk, kind: str) -> list:
    """Return the records of a kind."""
    rows = await desk.store.read(lambda tx: list(tx.records.page(job_id=None, after=0, limit=1000)))
    return [record for _, record in rows if record.kind == kind]


# --- renewal -------------------------------------------------------------------------------------------


async def test_a_worker_renews_its_own_identity(desk, node):
    """The answer is a chain for the same name, under a new serial, with seconds until the next renewal; it is noted."""
    identity = await node.known(desk)
    key = load_pem_private_key(identity.key_file.read_bytes(), None)
    answered = await renew(node, identity, request_for("w1", key=key))
    assert answered.status_code == 200
    told = answered.json()
    assert told["spiffe_id"] == f"spiffe://{TRUST_DOMAIN}/worker/w1"
    assert 0 < told["renew_in_sec"] < told["expires_in_sec"] <= 3600
    assert answered.headers["cache-control"] == "no-store"
    issued = await desk.store.read(lambda tx: tx.identities.find(told["serial"]))
    assert (issued.kind, issued.attestation.label, issued.node) == ("worker", "join", "n1")
    assert len(await records(desk, "identity.issued")) == 2


async def test_the_instance_is_that_of_the_link(desk, node):
    """A new instance is certified only after it enrolled by a link; without one the old instance stays."""
    identity = await node.known(desk)
    first = await renew(node, identity, request_for("w1"))
    before = await desk.store.read(lambda tx: tx.identities.find(first.json()["serial"]))
    async with linked(desk, node):
        instance = desk.roster.live()[0].known.instance_id
        assert instance != before.instance_id
        assert (await renew(node, identity, request_for("w1"))).json()["instance_id"] == instance


async def test_nobody_renews_for_somebody_else(desk, node):
    """A request that names another worker, by its own key or by one that was copied, is refused and leaves one record."""
    mine, other = await node.known(desk, "w1"), await node.known(desk, "w2")
    key = load_pem_private_key(other.key_file.read_bytes(), None)
    for body in (request_for("w2"), request_for("w2", key=key), request_for("w1", domain="evil.test")):
        refused = await renew(node, mine, body)
        assert (refused.status_code, refused.json()["code"]) == (403, "identity_mismatch")
    assert len(await records(desk, "identity.issued")) == 2
    (record,) = await records(desk, "identity.refused")
    assert record.facts["asked_for"] == f"spiffe://{TRUST_DOMAIN}/worker/w2"


async def test_only_a_sound_request_is_read(desk, node):
    """What is no request, is too large, asks for more, has another kind of key or a broken signature gets its code."""
    identity = await node.known(desk)
    good = request_for("w1")
    bad = [
        b"",
        b"x" * 9000,
        good[:-1] + bytes([good[-1] ^ 1]),
        request_for("w1", more=[x509.DNSName("localhost")]),
        request_for("w1", more=[x509.UniformResourceIdentifier(f"spiffe://{TRUST_DOMAIN}/worker/w2")]),
        request_for("w1", key=ec.generate_private_key(ec.SECP384R1())),
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n",
    ]
    for body in bad:
        refused = await renew(node, identity, body)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_csr"), body[:20]
    assert (await renew(node, identity, b"x" * 20_000)).status_code == 413
    pem = x509.load_der_x509_csr(good).public_bytes(Encoding.PEM)
    assert (await renew(node, identity, pem)).status_code == 200


async def test_renewals_are_bounded_for_each_identity(desk, node):
    """One that asks all the time is told when to come again; another is served meanwhile."""
    mine, other = await node.known(desk, "w1"), await node.known(desk, "w2")
    answers = [await renew(node, mine, request_for("w1")) for _ in range(7)]
    assert [answer.status_code for answer in answers[:5]] == [200] * 5
    assert (answers[-1].status_code, answers[-1].json()["code"]) == (429, "renewed_too_often")
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 4
    assert (await renew(node, other, request_for("w2"))).status_code == 200


async def test_a_certificate_that_was_never_noted_is_not_renewed(desk, node):
    """One that the authority's key signed behind the node's back is good for TLS, and for no successor."""
    refused = await renew(node, node.worker("ghost"), request_for("ghost"))
    assert (refused.status_code, refused.json()["code"]) == (403, "identity_unknown")


async def test_a_renewal_under_way_ends_with_its_certificate(desk, node):
    """A request that was begun before its certificate was revoked gets no other one when its body comes at last."""
    identity = await node.known(desk)
    serial = node.authority.read_local(identity.folder).serial
    body, begun, go_on = request_for("w1"), asyncio.Event(), asyncio.Event()

    async def slowly():
        yield body[:10]
        begun.set()
        await go_on.wait()
        yield body[10:]

    async with owner(node) as api, httpx2.AsyncClient(verify=context_of(identity)) as client:
        address = f"https://127.0.0.1:{node.workers_port}/v1/identity"
        asking = asyncio.create_task(client.post(address, content=slowly()))
        await asyncio.wait_for(begun.wait(), 10)
        assert (await api.post("/v1/identities/revoke", json={"identity": serial})).status_code == 200
        go_on.set()
        refused = await asyncio.wait_for(asking, 10)
    assert (refused.status_code, refused.json()["code"]) == (403, "identity_revoked")
    assert len(await records(desk, "identity.issued")) == 1


async def test_a_renewal_that_trickles_in_is_given_up(desk, node, monkeypatch):
    """Octet by octet a request would outlive its certificate: as a whole it has so long as any other body."""
    identity = await node.known(desk)
    monkeypatch.setattr(renewal, "BODY_SEC_MAX", 0.2)

    async def trickling():
        for octet in request_for("w1"):
            yield bytes([octet])
            await asyncio.sleep(0.01)

    async with httpx2.AsyncClient(verify=context_of(identity)) as client:
        asked = await client.post(f"https://127.0.0.1:{node.workers_port}/v1/identity", content=trickling())
    assert (asked.status_code, asked.json()["code"]) == (408, "slow_request")


async def test_a_revocation_is_not_outrun_by_a_successor(desk, node):
    """Both meet in the store: what is revoked there vouches for no other certificate, whatever is in memory yet."""
    identity = await node.known(desk)
    before = node.authority.read_local(identity.folder)
    await desk.store.transact(lambda tx: tx.identities.revoke(before.serial, 1, "stolen"))
    public = load_pem_private_key(identity.key_file.read_bytes(), None).public_key()
    key = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    wanted = IdentityWanted(before.spiffe_id, before.workload, key, node="n1", asked_by="w1", by=before.serial)
    with pytest.raises(NotAllowed) as refused:
        await issue(desk, wanted)
    assert refused.value.error_code == "identity_revoked"
    assert len(await records(desk, "identity.issued")) == 1


async def test_a_controller_renews_nothing_here(desk, node):
    """Only workers and nodes may: another kind that passes TLS is turned away."""
    refused = await renew(node, node.authority.issue_controller("c1"), request_for("w1"))
    assert (refused.status_code, refused.json()["code"]) == (403, "untrusted_peer")


# --- revocation ----------------------------------------------------------------------------------------


async def test_a_revoked_worker_is_cut_off_in_mid_connection(desk, node):
    """At once, not at the next look or renewal, its link ends with the reason, its job is decided, and nothing of it is served any more."""
    identity = await node.known(desk)
    name = f"spiffe://{TRUST_DOMAIN}/worker/w1"
    async with linked(desk, node) as link, owner(node) as api, httpx2.AsyncClient(verify=context_of(identity)) as kept:
        job_id = (await api.post("/v1/jobs", json={"code": "1", "effects": "pure"})).json()["job_id"]
        lease = decode(await link.recv())
        assert isinstance(lease, Lease)
        await link.send(encode(Started(lease.job_id, lease.epoch)))
        blob = f"https://127.0.0.1:{node.workers_port}/v1/blobs/{hashlib.sha256(b'x').hexdigest()}"
        assert (await kept.put(blob, content=b"x")).status_code == 201
        began = time.monotonic()
        revoked = await api.post("/v1/identities/revoke", json={"identity": name, "reason": "stolen"})
        assert revoked.status_code == 200
        with pytest.raises(websockets.ConnectionClosed):
            while True:
                await asyncio.wait_for(link.recv(), 10)
        # How soon exactly `make bench` says, on a machine that does nothing else.
        assert time.monotonic() - began < 10
        assert link.close_reason.startswith("identity_revoked: ")
        job = (await api.get(f"/v1/jobs/{job_id}")).json()
        assert (job["status"], job["attempts"]) == ("queued", 1)
        # The connection that stood before is believed no more than a new one.
        for method in ("PUT", "HEAD", "GET"):
            assert (await kept.request(method, blob, content=b"x" if method == "PUT" else None)).status_code == 403
        assert (await renew(node, identity, request_for("w1"))).json()["code"] == "identity_revoked"
        with pytest.raises(websockets.InvalidStatus) as caught:
            await connect(node.url, ssl=context_of(identity))
        assert caught.value.response.status_code == 403
        assert b"identity_revoked" in caught.value.response.body


async def test_a_download_under_way_breaks_off(desk, node):
    """A revoked worker gets no more of a file than what was on its way already."""
    identity = await node.known(desk)
    content = bytes(48 * 1024 * 1024)
    digest = hashlib.sha256(content).hexdigest()
    async with linked(desk, node) as link, owner(node) as api, httpx2.AsyncClient(verify=context_of(identity)) as kept:
        assert (await api.put(f"/v1/blobs/{digest}", content=content)).status_code == 201
        await api.post("/v1/jobs", json={"code": "1", "files": [{"path": "a", "sha256": digest}]})
        assert isinstance(decode(await asyncio.wait_for(link.recv(), 10)), Lease)
        got = 0
        with pytest.raises(httpx2.TransportError):
            async with kept.stream("GET", f"https://127.0.0.1:{node.workers_port}/v1/blobs/{digest}") as answer:
                assert answer.status_code == 200
                async for piece in answer.aiter_raw():
                    if got == 0:
                        named = f"spiffe://{TRUST_DOMAIN}/worker/w1"
                        await api.post("/v1/identities/revoke", json={"identity": named})
                    got += len(piece)
        assert 0 < got < len(content)


async def test_what_may_have_run_ends_truthfully(desk, node):
    """A job with outside effects whose worker was revoked is not run again, and its end says what is not known."""
    await node.known(desk)
    async with linked(desk, node) as link, owner(node) as api:
        job_id = (await api.post("/v1/jobs", json={"code": "1"})).json()["job_id"]
        lease = decode(await link.recv())
        assert isinstance(lease, Lease)
        await link.send(encode(Started(lease.job_id, lease.epoch)))
        await link.send(encode(Beat(0)))
        await api.post("/v1/identities/revoke", json={"identity": f"spiffe://{TRUST_DOMAIN}/worker/w1"})
        end = (await api.get(f"/v1/jobs/{job_id}")).json()["end"]
        assert (end["reason"], end["code"]) == ("outcome_unknown", "outcome_unknown")
        assert "revoked" in end["message"]


async def test_the_sessions_of_a_revoked_worker_end(desk, node):
    """An open session ends with the reason, so does the job that runs in it, and neither waits for the worker."""
    await node.known(desk)
    async with linked(desk, node) as link, owner(node) as api:
        await link.send(encode(Sessions([], [])))
        opening = asyncio.create_task(api.post("/v1/sessions", json={}))
        asked = decode(await asyncio.wait_for(link.recv(), 10))
        assert isinstance(asked, Open)
        await link.send(encode(Opened(asked.session_id, "none")))
        session_id = (await opening).json()["session_id"]
        job_id = (await api.post("/v1/jobs", json={"code": "1", "session": session_id, "effects": "pure"})).json()["job_id"]
        while not isinstance(lease := decode(await asyncio.wait_for(link.recv(), 10)), Lease):
            pass
        await link.send(encode(Started(lease.job_id, lease.epoch)))
        await api.post("/v1/identities/revoke", json={"identity": f"spiffe://{TRUST_DOMAIN}/worker/w1"})
        session = (await api.get(f"/v1/sessions/{session_id}")).json()
        assert (session["state"], session["end"]["code"]) == ("ended", "worker_revoked")
        job = (await api.get(f"/v1/jobs/{job_id}")).json()
        # What it found in the session is gone, so it is not run again, pure or not.
        assert (job["end"]["reason"], job["attempts"]) == ("outcome_unknown", 1)


async def test_every_other_worker_is_told_at_once(desk, node):
    """The others hear which identities and certificates are revoked, and what they acknowledged is known."""
    one = await node.known(desk, "w1")
    await node.known(desk, "w2")
    serial = node.authority.read_local(one.folder).serial
    async with linked(desk, node, "w2") as link, owner(node) as api:
        assert (await api.post("/v1/identities/revoke", json={"identity": serial})).status_code == 200
        told = decode(await asyncio.wait_for(link.recv(), 10))
        assert isinstance(told, Trust)
        assert told.revoked_serials == [serial]
        banned = f"spiffe://{TRUST_DOMAIN}/worker/w3"
        await api.post("/v1/identities/revoke", json={"identity": banned})
        told = decode(await asyncio.wait_for(link.recv(), 10))
        assert isinstance(told, Trust)
        assert told.revoked_ids == [banned]
        await link.send(encode(Trusted(told.sequence, told.revision)))
        async with asyncio.timeout(5):
            while desk.roster.live()[0].trusts != Trusted(told.sequence, told.revision):
                await asyncio.sleep(0.01)


async def test_a_revocation_outlives_a_restart_and_is_lifted(desk, node):
    """What the store says holds after a restart; once allowed, new certificates work and the old ones do not."""
    old = await node.known(desk)
    name = f"spiffe://{TRUST_DOMAIN}/worker/w1"
    async with owner(node) as api:
        await api.post("/v1/identities/revoke", json={"identity": name})
        desk.standing.load([], [])
        await load_standing(desk)
        assert (await renew(node, old, request_for("w1"))).status_code == 403
        listed = (await api.get("/v1/identities")).json()
        assert [ban["spiffe_id"] for ban in listed["revoked"]] == [name]
        assert (await api.post("/v1/identities/allow", json={"identity": name})).status_code == 200
        assert (await api.post("/v1/identities/allow", json={"identity": name})).status_code == 404
    assert (await renew(node, old, request_for("w1"))).json()["code"] == "identity_revoked"
    old.certificate_file.unlink()
    assert (await renew(node, await node.known(desk), request_for("w1"))).status_code == 200


async def test_only_the_owner_may_and_never_the_controller_itself(desk, node):
    """A key of less is refused with a record; the controller's own identity, strangers' and nonsense get their codes."""
    await node.known(desk)
    async with owner(node) as api:
        minted = (await api.post("/v1/keys", json={"name": "agent"})).json()
        weak = {"Authorization": f"Bearer {minted['secret']}"}
        for method, path, body in (
            ("GET", "/v1/identities", None),
            ("POST", "/v1/identities/revoke", {"identity": "ab"}),
            ("POST", "/v1/identities/allow", {"identity": f"spiffe://{TRUST_DOMAIN}/worker/w1"}),
        ):
            refused = await api.request(method, path, json=body, headers=weak)
            assert (refused.status_code, refused.json()["code"]) == (403, "owner_only")
        own = str(desk.policy.controller_id)
        for named, status, code in (
            (own, 409, "own_identity"),
            ("spiffe://elsewhere.test/worker/w1", 422, "foreign_identity"),
            ("spiffe://", 422, "invalid_spiffe_id"),
            ("abcdef", 404, "identity_not_found"),
            ("../../x", 404, "identity_not_found"),
        ):
            refused = await api.post("/v1/identities/revoke", json={"identity": named})
            assert (refused.status_code, refused.json()["code"]) == (status, code), named
        long = await api.post("/v1/identities/revoke", json={"identity": "ab", "reason": "x" * 201})
        assert long.json()["code"] == "invalid_reason"


# --- the list of revocations ---------------------------------------------------------------------------


async def test_openssl_reads_the_list_and_refuses_what_is_on_it(desk, node, tmp_path):
    """The list is signed by the authority, its number grows, caches are told, and `openssl verify` refuses the revoked."""
    identity = await node.known(desk)
    bundle = node.authority.bundle()
    async with owner(node) as api, httpx2.AsyncClient(verify=api._transport._pool._ssl_context) as anybody:
        address = f"https://127.0.0.1:{node.api_port}/v1/trust/crl"
        first = await anybody.get(address)
        assert (first.status_code, first.headers["content-type"]) == (200, "application/pkix-crl")
        again = await anybody.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304
        assert verify_with(tmp_path, first.content, identity, bundle) == ""
        await api.post("/v1/identities/revoke", json={"identity": f"spiffe://{TRUST_DOMAIN}/worker/w1"})
        second = await anybody.get(address, headers={"If-None-Match": first.headers["etag"]})
        assert second.status_code == 200
    numbers = [number_of(answer.content) for answer in (first, second)]
    assert numbers[0] < numbers[1]
    assert "certificate revoked" in verify_with(tmp_path, second.content, identity, bundle)


def number_of(der: bytes) -> int:
    """Return the number of a list."""
    return x509.load_der_x509_crl(der).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def verify_with(folder: Path, crl: bytes, identity, bundle) -> str:
    """Return what openssl finds wrong with a leaf when it looks at this list."""
    roots = b"".join(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in bundle.x509_authorities)
    (folder / "roots.pem").write_bytes(roots)
    (folder / "crl.pem").write_bytes(x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM))
    done = subprocess.run(
        ["openssl", "verify", "-CAfile", str(folder / "roots.pem"), "-untrusted", str(identity.certificate_file),
         "-CRLfile", str(folder / "crl.pem"), "-crl_check", str(identity.certificate_file)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


# --- time ----------------------------------------------------------------------------------------------


async def test_a_link_ends_with_its_certificate(desk, node):
    """A worker that did not renew is cut off when its certificate ends, and keeps its lease for when it is back."""
    await node.known(desk)
    async with linked(desk, node) as link:
        live = desk.roster.live()[0]
        live.peer = Peer(live.peer.spiffe_id, None, live.peer.serials, 0, desk.clock.now_us() - 1, live.peer.jkt)
        await cut_off_all(desk)
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(link.recv(), 10)
        assert link.close_reason.startswith("identity_expired: ")


@pytest.mark.must("Forgery 2")
async def test_nothing_outlives_the_certificate(desk, node, tmp_path):
    """No request on a kept connection and no resumed session is believed once the certificate has ended."""
    folder = tmp_path / "identities" / "authority"
    brief = FileAuthority(folder, trust_domain=TRUST_DOMAIN, clock=desk.clock, ids=desk.ids, leaf_ttl_sec=8)
    identity = brief.issue_worker("w1", tmp_path / "brief")
    svid = brief.read_local(identity.folder)
    assert svid is not None
    ends_sec = svid.not_after_us / 1e6
    blob = f"/v1/blobs/{'0' * 64}"
    async with httpx2.AsyncClient(verify=context_of(identity), base_url=f"https://127.0.0.1:{node.workers_port}") as kept:
        assert (await kept.get(blob)).status_code == 404
        context = context_of(identity)
        (accepted, session), tries = await asyncio.to_thread(head, node, context, None), 0
        assert accepted
        async with asyncio.timeout(40):
            while accepted:
                asked_sec = time.time()
                accepted, _ = await asyncio.to_thread(head, node, context, session)
                assert not accepted or asked_sec < ends_sec + 1
                tries += 1
                # A connection that rests is closed for that alone.
                await kept.get(blob)
                await asyncio.sleep(0.1)
        assert tries > 1
        refused = await kept.get(blob)
        assert (refused.status_code, refused.json()["code"]) == (403, "identity_expired")


def head(node, context: ssl.SSLContext, session) -> tuple[bool, ssl.SSLSession | None]:
    """Ask for a blob on a new connection, with a session to resume; tell whether there was an answer."""
    plain = socket.create_connection(("127.0.0.1", node.workers_port), timeout=10)
    with context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secured:
        assert not secured.session_reused
        secured.sendall(b"HEAD /v1/blobs/" + b"0" * 64 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return secured.recv(1024).startswith(b"HTTP/1.1 404"), secured.session
        except OSError:
            return False, None


def _connector(node, identity) -> tuple[WebSocketConnector, HeldIdentity]:
    clock = FakeClock(now_us=time.time_ns() // 1000)
    own = HeldIdentity(identity.folder, TRUST_DOMAIN, make_context=client_context, now_us=clock.now_us)
    verifier = Verifier(own.bundle, now_us=clock.now_us, revoked=own.is_revoked)
    connector = WebSocketConnector(node.url, own.context, TRUST_DOMAIN, identify=verifier.peer)
    own.through(connector.ask_identity)
    return connector, own


@pytest.mark.must("Forgery 7")
@pytest.mark.parametrize("minutes", [5, -70])
async def test_a_worker_with_a_wrong_time_is_told_so(desk, node, tmp_path, minutes):
    """A certificate from five minutes ahead, or from so far behind that it has ended, is refused with that reason."""
    skewed = FakeClock(now_us=desk.clock.now_us() + minutes * MINUTE_US)
    identity = authority(tmp_path / "identities" / "authority", clock=skewed).issue_worker("w1", tmp_path / "skewed")
    connector, _ = _connector(node, identity)
    with pytest.raises(Unavailable) as refused:
        await connector.connect()
    assert refused.value.error_code == "identity_not_accepted"
    assert "expired or is not valid yet by its clock" in refused.value.message
    assert "clocks" in refused.value.fix


@pytest.mark.must("Forgery 7")
@pytest.mark.parametrize(("minutes", "code"), [(5, "identity_not_yet_valid"), (-70, "identity_expired")])
async def test_a_controller_with_a_wrong_time_is_told_so(desk, tmp_path, minutes, code):
    """A worker that finds the controller's certificate not valid yet, or ended, says so and what to compare."""
    skewed = FakeClock(now_us=desk.clock.now_us() + minutes * MINUTE_US)
    folder = tmp_path / "identities"
    serving = authority(folder / "authority", clock=skewed)
    async with open_listeners(desk, folder, issuer=desk.authority, serving_as=serving) as node:
        connector, own = _connector(node, node.worker())
        with pytest.raises(UntrustedPeer) as refused:
            await connector.connect()
        assert (refused.value.error_code, "clocks" in refused.value.fix) == (code, True)
        with pytest.raises(UntrustedPeer):
            await own.renew()


# --- the worker's own end --------------------------------------------------------------------------------


async def test_a_worker_keeps_its_next_certificate_in_memory(desk, node):
    """It renews for the same key, shows the new certificate on the next connection, and writes no file."""
    identity = await node.known(desk)
    before = {file.name: file.read_bytes() for file in identity.folder.iterdir()}
    connector, own = _connector(node, identity)
    due_in_sec = await own.renew()
    assert 0 < due_in_sec <= 1800
    link = await connector.connect()
    await link.send(hello_of(desk, identity))
    assert isinstance(await anext(link.messages()), Welcome)
    shown = desk.roster.live()[0].peer.serials[0]
    assert shown != node.authority.read_local(identity.folder).serial
    assert {file.name: file.read_bytes() for file in identity.folder.iterdir()} == before
    await link.close()


async def test_a_revoked_worker_learns_the_reason(desk, node):
    """On its link, at its next connection and at its renewal it hears that it was revoked, by a code."""
    identity = await node.known(desk)
    connector, own = _connector(node, identity)
    link = await connector.connect()
    await link.send(hello_of(desk, identity))
    stream = link.messages()
    await anext(stream)
    async with owner(node) as api:
        await api.post("/v1/identities/revoke", json={"identity": f"spiffe://{TRUST_DOMAIN}/worker/w1"})
    with pytest.raises(Unavailable) as ended:
        async for _ in stream:
            pass
    assert ended.value.error_code == "identity_revoked"
    for asking in (connector.connect, own.renew):
        with pytest.raises(NotAllowed) as refused:
            await asking()
        assert refused.value.error_code == "identity_revoked"
    await link.close()


async def test_a_worker_refuses_a_controller_that_was_revoked(desk, node):
    """What a worker was told of its controller's certificate holds at its next connection."""
    connector, own = _connector(node, await node.known(desk))
    serial = node.authority.read_local(node.authority.issue_controller("c1").folder).serial
    async with linked(desk, node, "w2") as link, owner(node) as api:
        await api.post("/v1/identities/revoke", json={"identity": f"spiffe://{TRUST_DOMAIN}/worker/w9"})
        told = decode(await asyncio.wait_for(link.recv(), 10))
        assert isinstance(told, Trust)
    own.believe(Trust(told.sequence, told.roots, 9, [], [serial]))
    with pytest.raises(UntrustedPeer):
        await connector.connect()
