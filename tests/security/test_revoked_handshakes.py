"""A revoked worker's next handshake fails, it still learns why, and no list that is missing or old locks anybody out."""

import asyncio
import dataclasses
import ssl

import httpx2
import pytest
from structlog.testing import capture_logs

from crank.adapters.clock import SystemClock
from crank.adapters.controller_link import WebSocketConnector
from crank.adapters.own_identity import HeldIdentity
from crank.bootstrap import authority as wired
from crank.bootstrap.authority import ListeningTls, keep_renewed
from crank.bootstrap.files import make_home
from crank.bootstrap.own_identities import OwnIdentities
from crank.config import load
from crank.controller.identities import allow_identity, revoke_identity
from crank.controller.revocation_list import NEXT_UPDATE_SEC, RevocationLists
from crank.domain.trust import RotationStep
from crank.errors import NotAllowed, Unavailable
from crank.security import Verifier, client_context
from crank.testing.fakes import FakeClock
from tests.support.desk import TRUST_DOMAIN, open_desk
from tests.support.listeners import authority, context_of, open_listeners

NAME = f"spiffe://{TRUST_DOMAIN}/worker/w1"


@pytest.fixture
async def desk(tmp_path):
    """Give a desk with an authority, by the clock that TLS has."""
    issuer = authority(tmp_path / "identities" / "authority")
    async with open_desk(tmp_path, issuer=issuer, controller_id=f"spiffe://{TRUST_DOMAIN}/controller/c1") as opened:
        yield opened


@pytest.fixture
def clock():
    """Give the clock by which the listener judges the age of lists."""
    return FakeClock(now_us=SystemClock().now_us())


@pytest.fixture
def tls(desk, clock):
    """Give what the listeners show and believe."""
    return ListeningTls(desk.authority.issue_controller("c1"), clock)


@pytest.fixture
async def node(desk, tls, tmp_path):
    """Give both listeners over TLS, as the controller opens them."""
    folder = tmp_path / "identities"
    async with open_listeners(desk, folder, issuer=desk.authority, workers_tls=tls.workers()) as listeners:
        yield listeners


async def shaken(node, identity):
    """Make a connection, and hear on it whether the other side took it: in TLS 1.3 that comes after the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.workers_port, ssl=context_of(identity))
    try:
        writer.write(b"HEAD /v1/identity HTTP/1.1\r\nHost: x\r\n\r\n")
        return int((await asyncio.wait_for(reader.readline(), 10)).split()[1])
    finally:
        writer.transport.abort()


def connector_of(node, identity):
    """Give what a worker reaches its controller by, and its identity."""
    own = HeldIdentity(identity.folder, TRUST_DOMAIN, make_context=client_context, now_us=SystemClock().now_us)
    verifier = Verifier(own.bundle, now_us=SystemClock().now_us, revoked=own.is_revoked)
    connector = WebSocketConnector(node.url, own.context, TRUST_DOMAIN, identify=verifier.peer)
    own.through(connector.ask_identity)
    return connector, own


async def refused_by_tls(node, identity):
    """Return the alert by which a handshake was refused."""
    with pytest.raises(ssl.SSLError) as refused:
        await shaken(node, identity)
    return refused.value.reason


async def revoke(desk):
    """Take the first worker back."""
    await revoke_identity(desk, NAME, reason="stolen", subject="owner")


async def test_the_handshake_of_a_revoked_certificate_fails_and_others_go_on(desk, node, tls):
    """The alert says that it was revoked; a worker beside it is served, and so is the same one with a new certificate."""
    lists = RevocationLists()
    identity, other = await node.known(desk), await node.known(desk, "w2")
    tls.renew(await lists.current(desk))
    assert {await shaken(node, each) for each in (identity, other)} == {405}
    await revoke(desk)
    assert tls.renew(await lists.current(desk))
    assert (await refused_by_tls(node, identity)).endswith("ALERT_CERTIFICATE_REVOKED")
    assert await shaken(node, other) == 405
    await allow_identity(desk, NAME, subject="owner")
    tls.renew(await lists.current(desk))
    assert (await refused_by_tls(node, identity)).endswith("ALERT_CERTIFICATE_REVOKED")
    (identity.folder / "cert.pem").unlink()
    assert await shaken(node, await node.known(desk)) == 405


async def test_a_worker_whose_handshake_fails_learns_the_reason(desk, node, tls):
    """At its next connection and at its renewal it hears of the revocation by the code that it gets in words otherwise."""
    connector, own = connector_of(node, await node.known(desk))
    await revoke(desk)
    tls.renew(await RevocationLists().current(desk))
    for asking in (connector.connect, own.renew):
        with pytest.raises(NotAllowed) as refused:
            await asking()
        assert refused.value.error_code == "identity_revoked"
        assert "ALERT" in str(refused.value.detail)


async def test_an_alert_of_nobody_proven_is_not_a_revocation(desk, node, tmp_path):
    """Whoever stands between can say that a certificate was revoked; before the controller is proven it is not believed."""

    async def alerting(reader, writer):
        await reader.read(1)
        # A fatal alert in the clear: certificate_revoked (RFC 8446, section 6).
        writer.write(bytes([21, 3, 3, 0, 2, 2, 44]))
        await writer.drain()
        writer.close()

    between = await asyncio.start_server(alerting, "127.0.0.1", 0)
    async with between:
        port = between.sockets[0].getsockname()[1]
        connector, _ = connector_of(dataclasses.replace(node, workers_port=port), await node.known(desk))
        with pytest.raises(Unavailable) as refused:
            await connector.connect()
    assert refused.value.error_code == "unavailable"


async def test_lists_that_age_lock_nobody_out(desk, node, tls, clock):
    """Once they may not be believed any more, honest workers are served, the log says so, and each request is looked at."""
    identity, other = await node.known(desk), await node.known(desk, "w2")
    await revoke(desk)
    current = await RevocationLists().current(desk)
    tls.renew(current)
    assert await refused_by_tls(node, identity)
    clock.advance(NEXT_UPDATE_SEC)
    with capture_logs() as logs:
        assert [await shaken(node, each) for each in (identity, other)] == [405, 405]
        assert await asked(node, identity) == (403, "identity_revoked")
    assert [entry["event"] for entry in logs].count("handshakes_without_lists") == 1
    # The same lists, made anew.
    tls.renew(dataclasses.replace(current, made_us=clock.now_us(), number=current.number + 1))
    assert await refused_by_tls(node, identity)


async def test_lists_that_ended_by_the_clock_of_tls_are_not_asked_for(desk, node, tls, tmp_path):
    """Lists of two hours ago, by which TLS would believe nobody, leave every honest worker served."""
    identity = await node.known(desk)
    then = FakeClock(now_us=SystemClock().now_us() - 7200 * 1_000_000)
    past = authority(tmp_path / "identities" / "authority", clock=then)
    old = past.sign_revocations([], number=1, next_update_sec=NEXT_UPDATE_SEC)
    current = await RevocationLists().current(desk)
    tls.renew(dataclasses.replace(current, lists=old, made_us=then.now_us()))
    assert await shaken(node, identity) == 405


@pytest.mark.parametrize("fault", ["long", "unwritable", "none"])
async def test_lists_that_cannot_be_kept_lock_nobody_out(desk, node, tls, monkeypatch, fault):
    """Lists that are too long, that the disk has no room for, or that were not signed: handshakes go on without."""
    identity, other = await node.known(desk), await node.known(desk, "w2")
    lists = RevocationLists()
    tls.renew(await lists.current(desk))
    await revoke(desk)

    def full(*_words, **_more):
        raise OSError("No space left on device")

    monkeypatch.setattr(wired, "LISTS_BYTES_MAX" if fault == "long" else "write_whole", 10 if fault == "long" else full)
    with capture_logs() as logs:
        tls.renew(None if fault == "none" else await lists.current(desk))
        assert await shaken(node, other) == 405
        assert await asked(node, identity) == (403, "identity_revoked")
    assert ("handshakes_without_lists" in [entry["event"] for entry in logs]) == (fault != "none")


async def test_a_change_of_root_locks_nobody_out(desk, node, tls):
    """While two roots are believed each authority has its list: the revoked of both are refused, and nobody else is."""
    lists = RevocationLists()
    old, old_revoked = await node.known(desk, "w2"), await node.known(desk)

    async def take_up():
        desk.authority.issue_controller("c1")
        tls.renew(await lists.current(desk))

    await take_up()
    desk.authority.turn_root(RotationStep.PREPARE)
    await take_up()
    for each in (old, old_revoked):
        # They heard of the new root.
        each.ca_file.write_bytes(desk.authority.ca_file.read_bytes())
    assert {await shaken(node, each) for each in (old, old_revoked)} == {405}
    desk.authority.turn_root(RotationStep.ACTIVATE)
    await take_up()
    new = await node.known(desk, "w3")
    assert {await shaken(node, each) for each in (old, old_revoked, new)} == {405}
    await revoke(desk)
    await take_up()
    assert (await refused_by_tls(node, old_revoked)).endswith("ALERT_CERTIFICATE_REVOKED")
    assert {await shaken(node, each) for each in (old, new)} == {405}
    await revoke_identity(desk, f"spiffe://{TRUST_DOMAIN}/worker/w3", reason="", subject="owner")
    await take_up()
    assert (await refused_by_tls(node, new)).endswith("ALERT_CERTIFICATE_REVOKED")
    assert await shaken(node, old) == 405


async def test_who_does_not_hang_up_on_an_alert_is_ended(desk, node, tls):
    """A peer that goes on to send after its handshake failed is cut off, with what it sent thrown away."""
    identity = await node.known(desk)
    await revoke(desk)
    tls.renew(await RevocationLists().current(desk))
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context_of(identity).wrap_bio(into, out, server_hostname="127.0.0.1")
    reader, writer = await asyncio.open_connection("127.0.0.1", node.workers_port)
    while True:
        try:
            session.do_handshake()
            break
        except ssl.SSLWantReadError:
            writer.write(out.read())
            into.write(await asyncio.wait_for(reader.read(65536), 10))
    writer.write(out.read())
    assert await asyncio.wait_for(reader.read(65536), 10), "the alert"
    sent_bytes = 0
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            writer.write(bytes(65536))
            await writer.drain()
            await asyncio.sleep(0)
            sent_bytes += 65536
    # Four reads, and what the kernel held for both sides.
    assert sent_bytes < 32 * 1024 * 1024
    writer.transport.abort()


async def test_the_running_controller_takes_a_revocation_up(desk, node, tls, tmp_path, monkeypatch):
    """By itself it hands what was revoked to the listener and to the folder of its own worker."""
    monkeypatch.setattr(wired, "RENEW_LOOK_SEC", 0.05)
    settings = load({"home": str(tmp_path / "home")}, environment={"CRANK_TRUST_DOMAIN": TRUST_DOMAIN})
    make_home(settings)
    own, lists = OwnIdentities(settings, desk, desk.authority), RevocationLists()
    heard: asyncio.Queue[int] = asyncio.Queue()
    publish, loop = own.publish, asyncio.get_running_loop()

    def told(current):
        publish(current)
        loop.call_soon_threadsafe(heard.put_nowait, current.revision)

    monkeypatch.setattr(own, "publish", told)
    identity, other = await node.known(desk), await node.known(desk, "w2")
    running = asyncio.create_task(keep_renewed(desk, desk.authority, own, tls, None, lists))
    try:
        before = await asyncio.wait_for(heard.get(), 20)
        assert {await shaken(node, each) for each in (identity, other)} == {405}
        await revoke(desk)
        while await asyncio.wait_for(heard.get(), 20) == before:
            pass
        assert (await refused_by_tls(node, identity)).endswith("ALERT_CERTIFICATE_REVOKED")
        assert await shaken(node, other) == 405
        assert (settings.identity_dir / "crl.pem").read_bytes() == (await lists.current(desk)).pem
    finally:
        running.cancel()


async def asked(node, identity):
    """Return what a request for the next certificate is answered with."""
    async with httpx2.AsyncClient(verify=context_of(identity)) as client:
        answer = await client.post(f"https://127.0.0.1:{node.workers_port}/v1/identity", content=b"x")
    return answer.status_code, answer.json()["code"]
