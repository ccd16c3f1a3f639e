"""A machine that joins tells its token to the right controller alone, and only its owner's machine gets in."""

import asyncio
import base64
import contextlib
import dataclasses
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from crank.adapters.clock import SystemClock
from crank.bootstrap.joining import JoinWanted, join
from crank.bootstrap.member import as_member, expires_us, read_member
from crank.bootstrap.member_keeper import (
    MemberFiles,
    _joined,
    come_back,
    place_of,
    run_member,
    thumbprint,
)
from crank.config import Settings, load
from crank.controller import identities
from crank.controller.nodes import Invited, NodeWanted, forget, invite, list_nodes, register
from crank.controller.scope import desk_for_grant
from crank.domain.grant import Right
from crank.domain.ids import LOCAL_TENANT, CredentialId, Digest
from crank.domain.trust import Attestation
from crank.errors import (
    ConfigurationError,
    Conflict,
    CrankError,
    NotAllowed,
    ProtocolError,
    TooLarge,
    Unavailable,
    UntrustedPeer,
)
from crank.testing.samples import sample_grant
from tests.support.desk import TRUST_DOMAIN, open_desk
from tests.support.listeners import Listeners, authority, open_listeners


@pytest.fixture
async def desk(tmp_path: Path):
    """Give a desk that issues with the authority of its listeners."""
    async with open_desk(tmp_path) as opened:
        issuer = authority(tmp_path / "identities" / "authority")
        issuer.ensure()
        yield dataclasses.replace(opened, authority=issuer)


@pytest.fixture
async def node(desk, tmp_path: Path):
    """Give both listeners over TLS."""
    async with open_listeners(desk, tmp_path / "identities") as listeners:
        yield listeners


def settings_of(home: Path) -> Settings:
    """Return the settings of a machine with this home."""
    home.mkdir(parents=True, exist_ok=True)
    return load({"home": home}, environment={})


async def invited(desk, **wanted: Any) -> Invited:
    """Invite a machine."""
    return await invite(desk, tenant=LOCAL_TENANT, subject="local", wanted=NodeWanted(**wanted))


def command(node: Listeners, expected: Invited, *, port: int | None = None, host: str = "127.0.0.1") -> JoinWanted:
    """Return what the pasted command says, perhaps with another address."""
    api = f"https://{host}:{port or node.api_port}"
    return JoinWanted(api, f"127.0.0.1:{node.workers_port}", expected.roots, expected.token)


async def joins(settings: Settings, wanted: JoinWanted) -> Any:
    """Join, in a thread as the command does, beside the loop that serves."""
    return await asyncio.to_thread(join, settings, wanted, SystemClock())


class Impostor:
    """Answers on loopback with what it was given, and counts what it was sent."""

    def __init__(self, context: ssl.SSLContext, answer: bytes) -> None:
        self.asked: list[tuple[str, bytes]] = []
        outer = self

        class Answering(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append((self.command, self.rfile.read(int(self.headers.get("content-length") or 0))))
                self.send_response(200)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_POST = do_GET  # noqa: N815 - the library's own word

            def log_message(self, *_: Any) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Answering)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]

    @contextlib.contextmanager
    def serving(self) -> Iterator["Impostor"]:
        """Answer while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


def server_of(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a context that serves with this identity."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def told(*roots: bytes) -> bytes:
    """Return what a controller tells of its roots."""
    shown = [base64.b64encode(root).decode() for root in roots]
    return json.dumps({"trust_domain": TRUST_DOMAIN, "x509_authorities": shown}).encode()


async def test_the_pasted_command_joins(desk, node: Listeners, tmp_path: Path) -> None:
    """Identities lie in files of 0600 where they are secret; the place of its worker is what it was told."""
    settings = settings_of(tmp_path / "m")
    expected = await invited(desk, name="box", capabilities=("python.run.*",))
    member = await joins(settings, command(node, expected))
    assert (member.node_id, member.trust_domain, member.attestation) == (
        expected.enrolment.node_id, TRUST_DOMAIN, "join",
    )  # fmt: skip
    assert read_member(settings) == member
    place = place_of(settings)
    assert (place.worker_id, place.node_id, place.allowed) == (member.worker_id, member.node_id, ("python.run.*",))
    assert str(place.mounts_register) == "/dev/null"
    identity = as_member(settings).identity_dir
    for secret in (identity / "key.pem", settings.home / "member" / "key.pem", settings.home / "member" / "member.json"):
        assert secret.stat().st_mode & 0o077 == 0
    assert not (settings.home / "member" / "worker-key.pem").exists()
    assert expires_us(settings) > SystemClock().now_us()


async def test_a_controller_is_known_by_its_identity_not_its_name(desk, node: Listeners, tmp_path: Path) -> None:
    """Reached by an address that its certificate does not hold, it is still the right one."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", node.api_port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while octets := await source.read(65_536):
                target.write(octets)
            target.close()

        await asyncio.gather(copy(reader, there[1]), copy(there[0], writer), return_exceptions=True)

    front = await asyncio.start_server(pass_on, "127.0.0.7", 0)
    async with front:
        port = front.sockets[0].getsockname()[1]
        wanted = command(node, await invited(desk), port=port, host="127.0.0.7")
        assert (await joins(settings_of(tmp_path / "m"), wanted)).trust_domain == TRUST_DOMAIN


async def test_another_root_hears_nothing(desk, node: Listeners, tmp_path: Path) -> None:
    """Whoever stands between with roots of their own is told nothing, not even who asks."""
    other = authority(tmp_path / "other")
    own = other.issue_controller("c1")
    expected = await invited(desk)
    impostor = Impostor(server_of(own.certificate_file, own.key_file), told(*other.bundle().x509_authorities))
    with impostor.serving(), pytest.raises(UntrustedPeer) as caught:
        await joins(settings_of(tmp_path / "m"), command(node, expected, port=impostor.port))
    assert caught.value.error_code == "root_mismatch"
    assert impostor.asked == [("GET", b"")]


async def test_whoever_only_repeats_the_right_roots_hears_nothing(desk, node: Listeners, tmp_path: Path) -> None:
    """The roots are no secret: repeating them proves nothing, and the token stays where it is."""
    other = authority(tmp_path / "other")
    own = other.issue_controller("c1")
    expected = await invited(desk)
    right = desk.authority.bundle().x509_authorities
    impostor = Impostor(server_of(own.certificate_file, own.key_file), told(*right, *other.bundle().x509_authorities))
    with impostor.serving(), pytest.raises(UntrustedPeer):
        await joins(settings_of(tmp_path / "m"), command(node, expected, port=impostor.port))
    assert impostor.asked == [("GET", b"")]
    assert (await joins(settings_of(tmp_path / "m"), command(node, expected))).attestation == "join"


async def test_a_worker_of_the_same_domain_is_no_controller(desk, node: Listeners, tmp_path: Path) -> None:
    """A certificate of the right authority is not enough: it must be a controller's."""
    worker = node.worker("w1")
    expected = await invited(desk)
    right = told(*desk.authority.bundle().x509_authorities)
    impostor = Impostor(server_of(worker.certificate_file, worker.key_file), right)
    with impostor.serving(), pytest.raises(UntrustedPeer, match="not a controller"):
        await joins(settings_of(tmp_path / "m"), command(node, expected, port=impostor.port))
    assert impostor.asked == [("GET", b"")]


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b"<html>", b'{"x509_authorities":["AAAA"]}', b"x" * 300_000])
async def test_noise_in_place_of_roots_is_refused(desk, node: Listeners, tmp_path: Path, answer: bytes) -> None:
    """Whatever answers, one of our own faults comes of it, and nothing is sent."""
    worker = node.worker("w1")
    expected = await invited(desk)
    impostor = Impostor(server_of(worker.certificate_file, worker.key_file), answer)
    with impostor.serving(), pytest.raises((ProtocolError, UntrustedPeer, Unavailable)):
        await joins(settings_of(tmp_path / "m"), command(node, expected, port=impostor.port))
    assert {method for method, _ in impostor.asked} == {"GET"}


@pytest.mark.must("Forgery 6")
async def test_a_used_token_is_worth_nothing_elsewhere(desk, node: Listeners, tmp_path: Path) -> None:
    """A stolen token is refused on another machine once its owner's has joined; there it may be pasted again."""
    expected = await invited(desk)
    wanted = command(node, expected)
    await joins(settings_of(tmp_path / "m"), wanted)
    with pytest.raises(NotAllowed) as caught:
        await joins(settings_of(tmp_path / "thief"), wanted)
    assert caught.value.error_code == "join_refused"
    assert read_member(settings_of(tmp_path / "thief")) is None


async def test_a_machine_that_lost_the_answer_asks_again(
    desk, node: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off after the token was used up, the same command goes on with the same keys."""
    settings, wanted = settings_of(tmp_path / "m"), command(node, await invited(desk))

    def lost(*_: Any) -> Any:
        raise Unavailable("cut")

    with monkeypatch.context() as patched, pytest.raises(Unavailable):
        patched.setattr("crank.bootstrap.joining._read_answer", lost)
        await joins(settings, wanted)
    assert read_member(settings) is None
    assert (await joins(settings, wanted)).attestation == "join"


async def test_a_registered_machine_joins_without_a_secret_and_returns(desk, node: Listeners, tmp_path: Path) -> None:
    """By the certificate whose thumbprint it printed; forgotten, it does not come back."""
    settings = settings_of(tmp_path / "m")
    mark = await asyncio.to_thread(thumbprint, settings)
    assert mark == await asyncio.to_thread(thumbprint, settings)
    expected = await register(
        desk, tenant=LOCAL_TENANT, subject="local", wanted=NodeWanted("box"), thumbprint=mark
    )
    member = await joins(settings, command(node, expected))
    assert (member.attestation, member.returns) == ("thumbprint", True)
    again = await asyncio.to_thread(come_back, settings, member)
    assert again == member
    with pytest.raises(NotAllowed):
        await joins(settings_of(tmp_path / "other"), command(node, expected))
    await forget(desk, tenant=LOCAL_TENANT, subject="local", node="box")
    with pytest.raises(NotAllowed):
        await asyncio.to_thread(come_back, settings, member)


async def test_a_node_is_forgotten_with_its_identities_or_not_at_all(
    desk, node: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing more can be revoked it stays what it was; whoever may forget it needs no right to revoke others."""
    member = await joins(settings_of(tmp_path / "m"), command(node, await invited(desk, name="box")))
    names = {f"spiffe://{TRUST_DOMAIN}/{path}" for path in (f"worker/{member.worker_id}", f"node/{member.node_id}")}
    monkeypatch.setattr(identities, "BANS_MAX", 1)
    with pytest.raises(TooLarge):
        await forget(desk, tenant=LOCAL_TENANT, subject="local", node="box")
    (found,) = await list_nodes(desk)
    assert found.forgotten_us is None
    assert desk.standing.bans == [] == list(await desk.store.read(lambda tx: tx.identities.bans()))
    monkeypatch.undo()
    grant = replace(sample_grant("g"), rights=(Right("node.nodes.change"),), actors=(), expires_us=1 << 60, space=CredentialId("g-1"))
    (owner,) = await desk.store.read(lambda tx: list(tx.credentials.all(LOCAL_TENANT)))
    grant = replace(grant, credential_id=owner.credential_id)
    await desk.store.transact(lambda tx: tx.grants.insert(grant))
    await forget(desk_for_grant(desk, owner, grant), tenant=LOCAL_TENANT, subject="local", node="box")
    assert {str(ban.spiffe_id) for ban in desk.standing.bans} == names


async def test_one_that_may_not_return_is_told_what_to_do(desk, node: Listeners, tmp_path: Path) -> None:
    """An identity that ended needs a new invite, unless the owner pinned the machine's certificate."""
    settings = settings_of(tmp_path / "m")
    member = await joins(settings, command(node, await invited(desk)))
    with pytest.raises(ConfigurationError) as caught:
        come_back(settings, member)
    assert caught.value.error_code == "joined_identity_ended"
    assert "crank node invite" in caught.value.fix
    pinned = settings_of(tmp_path / "p")
    member = await joins(pinned, command(node, await invited(desk, pins=True)))
    assert (await asyncio.to_thread(come_back, pinned, member)).attestation == "thumbprint"


async def test_a_machine_whose_identity_ended_starts_as_far_as_it_may(
    desk, node: Listeners, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pinned, it comes back by itself; else a fresh invite lets it in with another key, and nothing but that does."""
    pinned, plain = settings_of(tmp_path / "p"), settings_of(tmp_path / "m")
    await joins(pinned, command(node, await invited(desk, pins=True)))
    used = command(node, await invited(desk))
    await joins(plain, used)
    key = (as_member(plain).identity_dir / "key.pem").read_bytes()
    monkeypatch.setattr("crank.bootstrap.member_keeper.expires_us", lambda _: 0)
    back = await asyncio.to_thread(_joined, pinned, None, print)
    assert back.attestation == "thumbprint"
    with pytest.raises(ConfigurationError):
        await asyncio.to_thread(_joined, plain, None, print)
    with pytest.raises(NotAllowed):
        await asyncio.to_thread(_joined, plain, used, print)
    fresh = command(node, await invited(desk))
    again = await asyncio.to_thread(_joined, plain, fresh, print)
    assert again.attestation == "join"
    assert (as_member(plain).identity_dir / "key.pem").read_bytes() != key


async def test_one_home_works_for_one_controller(desk, node: Listeners, tmp_path: Path) -> None:
    """A command of another controller is refused, and without one there must be something that was joined."""
    settings = settings_of(tmp_path / "m")
    with pytest.raises(ConfigurationError) as missing:
        await asyncio.to_thread(run_member, settings, None, print)
    assert missing.value.error_code == "not_joined"
    wanted = command(node, await invited(desk))
    await joins(settings, wanted)
    foreign = dataclasses.replace(wanted, roots=(Digest("a" * 64),))
    with pytest.raises(Conflict) as caught:
        await asyncio.to_thread(run_member, settings, foreign, print)
    assert caught.value.error_code == "joined_elsewhere"


async def test_damaged_files_are_named(desk, node: Listeners, tmp_path: Path) -> None:
    """Keys that others may read, or that are none, stop it before anything is sent."""
    settings = settings_of(tmp_path / "m")
    await asyncio.to_thread(thumbprint, settings)
    key = settings.home / "member" / "key.pem"
    wanted = command(node, await invited(desk))
    for spoil in (lambda: key.chmod(0o644), lambda: key.write_text("x")):
        spoil()
        with pytest.raises(CrankError) as caught:
            await joins(settings, wanted)
        assert caught.value.error_code == "identity_damaged"


async def test_nobody_there_is_told_as_such(desk, node: Listeners, tmp_path: Path) -> None:
    """With what to look at."""
    wanted = dataclasses.replace(command(node, await invited(desk)), api="https://127.0.0.1:1")
    with pytest.raises(Unavailable, match="does not answer"):
        await joins(settings_of(tmp_path / "m"), wanted)


async def test_files_are_renewed_for_the_worker_that_starts_next(desk, node: Listeners, tmp_path: Path) -> None:
    """Once half of its life is over, what lies in the home is replaced over the workers' listener, for the same keys."""
    settings = settings_of(tmp_path / "m")
    member = await joins(settings, command(node, await invited(desk)))
    joined = as_member(settings, member.trust_domain)
    folders = (joined.identity_dir, settings.home / "member")
    before = [(folder / "cert.pem").read_bytes() for folder in folders]
    files = MemberFiles(joined)
    held = [files._held(folder) for folder in folders]
    for folder, own in zip(folders, held, strict=True):
        await own.renew()
        await asyncio.to_thread(files._write, folder, own)
    after = [(folder / "cert.pem").read_bytes() for folder in folders]
    assert not set(before) & set(after)
    assert expires_us(settings) > SystemClock().now_us()
    again = await joins_again(desk, joined)
    assert again == []


async def joins_again(desk, joined: Settings) -> list[str]:
    """Return what is wrong with the files by which a worker would start next."""
    wrong = []
    for folder in (joined.identity_dir, joined.home / "member"):
        own = MemberFiles(joined)._held(folder)
        serial = f"{x509.load_pem_x509_certificate((folder / 'cert.pem').read_bytes()).serial_number:x}"
        found = await desk.store.read(lambda tx, serial=serial: tx.identities.find(serial))
        if found is None or own.due_in_sec() <= 0 or found.attestation is not Attestation.JOIN:
            wrong.append(str(folder))
    return wrong
