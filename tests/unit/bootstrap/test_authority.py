"""What the controller's listeners show and believe: swapped while they run, and open connections stay."""

import asyncio
import contextlib
import ssl
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import capture_logs

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import NoFailpoints
from crank.api.public_name import PublicName
from crank.bootstrap.authority import ListeningTls, open_authority, start_authority
from crank.config import load
from crank.domain.trust import RotationStep
from crank.errors import ConfigurationError
from crank.security import client_context, peer_identity
from crank.testing.contracts_authority import DOMAIN
from crank.testing.fakes import FakeClock
from tests.support.certificates import Authority as Stranger
from tests.support.hsm import open_hsm


@pytest.fixture
def authority(tmp_path):
    """Give a node's authority."""
    made = FileAuthority(
        tmp_path / "authority", trust_domain=DOMAIN, clock=SystemClock(), ids=SystemIdSource(), leaf_ttl_sec=60.0
    )
    made.ensure()
    return made


def worker_of(authority, folder):
    """Give a worker's context with what is in its folder now."""
    identity = authority.issue_worker("w1", folder)
    return client_context(
        certificate_file=identity.certificate_file, key_file=identity.key_file, ca_file=identity.ca_file
    )


class Echo:
    """A server on loopback that says back what is said; it and all connections end with the test."""

    def __init__(self, tls):
        self.tls = tls
        self.opened = []
        self.served = set()
        self.peers = []

    async def connect(self, context, host="127.0.0.1"):
        """Open a connection and hear an echo on it; return both ends of the stream."""
        name = None if host == "127.0.0.1" else host
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        self.opened.append(writer)
        await said(reader, writer)
        return reader, writer

    async def _serve(self, reader, writer):
        self.served.add(asyncio.current_task())
        self.peers.append(writer.get_extra_info("ssl_object").getpeercert(binary_form=True))
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                writer.write(line)
                await writer.drain()
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        for writer in self.opened:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        self.server.close()
        if self.served:
            await asyncio.wait(self.served, timeout=10)
        await self.server.wait_closed()


async def said(reader, writer):
    """Say something and hear it again. Raises ConnectionError, ssl.SSLError when the other side let go."""
    writer.write(b"still here\n")
    await writer.drain()
    if await asyncio.wait_for(reader.readline(), 10) != b"still here\n":
        raise ConnectionResetError("ended")


async def test_a_root_is_added_and_removed_while_connections_stay(authority, tmp_path):
    """After a change of root a worker of the old one is refused, one of the new one served, and an open link goes on."""
    own = authority.issue_controller("c1")
    tls = ListeningTls(own)
    async with Echo(tls.workers()) as echo:
        old = worker_of(authority, tmp_path / "old")
        open_one = await echo.connect(old)
        authority.turn_root(RotationStep.PREPARE)
        authority.turn_root(RotationStep.ACTIVATE)
        authority.issue_controller("c1")
        assert tls.renew()
        # Between the steps both are let in; the old one has heard of the new root by then.
        both = worker_of(authority, tmp_path / "new")
        await echo.connect(both)
        authority.turn_root(RotationStep.RETIRE, force=True)
        authority.issue_controller("c1")
        assert tls.renew()
        assert not tls.renew()
        new = worker_of(authority, tmp_path / "new")
        await echo.connect(new)
        old.load_verify_locations(cafile=authority.ca_file)
        # It trusts the controller by now, so the one who refuses is the listener.
        with pytest.raises((ConnectionError, ssl.SSLError)):
            await echo.connect(old)
        await said(*open_one)


async def test_who_knows_the_old_root_alone_is_not_fooled(authority, tmp_path):
    """A worker that never heard of the new root refuses the controller, not the other way round."""
    tls = ListeningTls(authority.issue_controller("c1"))
    old = worker_of(authority, tmp_path / "old")
    authority.turn_root(RotationStep.PREPARE)
    authority.turn_root(RotationStep.ACTIVATE)
    authority.issue_controller("c1")
    tls.renew()
    async with Echo(tls.workers()) as echo:
        with pytest.raises(ssl.SSLCertVerificationError):
            await echo.connect(old)


async def test_a_renewed_certificate_is_shown_from_now_on(authority, tmp_path):
    """The API's listener shows the new certificate to the next caller; the open connection keeps the old one."""
    own = authority.issue_controller("c1")
    tls = ListeningTls(own)
    async with Echo(tls.api()) as echo:
        trust = ssl.create_default_context(cafile=authority.ca_file)
        first = await echo.connect(trust)
        own.certificate_file.unlink()
        authority.issue_controller("c1")
        assert tls.renew()
        second = await echo.connect(trust)
        await said(*first)
        shown = [each[1].get_extra_info("ssl_object").getpeercert(binary_form=True) for each in (first, second)]
        assert shown[0] != shown[1]
        assert peer_identity(shown[0]) == peer_identity(shown[1])


async def test_damage_keeps_what_stood(authority):
    """A certificate that cannot be read is refused, and the listener goes on with the one it had."""
    own = authority.issue_controller("c1")
    tls = ListeningTls(own)
    async with Echo(tls.workers()) as echo:
        mine = worker_of(authority, own.folder.parent / "w1")
        own.certificate_file.write_bytes(b"noise")
        with pytest.raises(ConfigurationError):
            tls.renew()
        await echo.connect(mine)


async def test_a_name_of_the_operators_own_goes_on_beside_it(authority, tmp_path):
    """Who asks for the public name is shown that certificate; everybody else the node's newest."""
    own = authority.issue_controller("c1")
    tls = ListeningTls(own)
    listening = tls.api()
    stranger = Stranger(tmp_path, "public")
    PublicName(*stranger.server_files("node.example.org")).join(listening)
    async with Echo(listening) as echo:
        outside = ssl.create_default_context(cafile=stranger.file)
        await echo.connect(outside, "node.example.org")
        own.certificate_file.unlink()
        authority.issue_controller("c1")
        tls.renew()
        await echo.connect(ssl.create_default_context(cafile=authority.ca_file))


async def test_a_certificate_is_shown_at_the_public_name_as_at_the_others(authority, tmp_path):
    """One of the node's roots is seen there, one of strangers is refused, and none is asked for."""
    own = authority.issue_controller("c1")
    listening = ListeningTls(own).api(asks=True)
    stranger = Stranger(tmp_path, "public")
    PublicName(*stranger.server_files("node.example.org"), own.ca_file).join(listening)
    mine, theirs = authority.issue_worker("w1", tmp_path / "w1"), Stranger(tmp_path, "others").server_files("x")
    async with Echo(listening) as echo:
        for files in (None, (mine.certificate_file, mine.key_file)):
            outside = ssl.create_default_context(cafile=stranger.file)
            if files is not None:
                outside.load_cert_chain(*files)
            await echo.connect(outside, "node.example.org")
        shown = x509.load_pem_x509_certificate(mine.certificate_file.read_bytes()).public_bytes(Encoding.DER)
        assert echo.peers == [None, shown]
        outside = ssl.create_default_context(cafile=stranger.file)
        outside.load_cert_chain(*theirs)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await echo.connect(outside, "node.example.org")


def test_no_resumption(authority):
    """Both contexts hand out no ticket: a resumed session would outlive its certificate."""
    tls = ListeningTls(authority.issue_controller("c1"))
    assert {each.num_tickets for each in (tls.api(), tls.workers())} == {0}


def test_settings_put_the_key_into_the_hsm(tmp_path):
    """With the three settings the controller's authority is made with its key in the token."""
    for hsm in open_hsm(tmp_path):
        named = {name: value for name, value in hsm.settings().items() if name.startswith("CRANK_")}
        settings = load({"home": str(tmp_path / "home")}, environment=named)
        start_authority(settings, SystemClock(), SystemIdSource(), NoFailpoints())
        assert not list(settings.authority_dir.glob("*/authority-key.pem"))
        opened = open_authority(settings, SystemClock(), SystemIdSource())
        assert "crank test" in {each.tier: each.key_place for each in opened.status().certificates}["authority"]


def test_an_hsm_without_its_library_says_what_to_install(tmp_path, monkeypatch):
    """Whoever names an HSM and lacks the extra is told the one command."""
    monkeypatch.setitem(sys.modules, "crank.adapters.authority.hsm", None)
    named = {"CRANK_HSM_MODULE": "/m.so", "CRANK_HSM_TOKEN": "t", "CRANK_HSM_PIN_FILE": "/pin"}
    settings = load({"home": str(tmp_path / "home")}, environment=named)
    with pytest.raises(ConfigurationError) as caught:
        open_authority(settings, SystemClock(), SystemIdSource())
    assert "crank[hsm]" in caught.value.fix


def test_a_short_life_and_a_near_end_are_warned_of(tmp_path):
    """The log names a life below ten minutes, and an authority that ends in less than 90 days."""
    settings = load({"home": str(tmp_path / "home")}, environment={"CRANK_LEAF_TTL_SEC": "30"})
    clock = FakeClock(now_us=SystemClock().now_us())
    with capture_logs() as first:
        start_authority(settings, clock, SystemIdSource(), NoFailpoints())
    assert [entry["event"] for entry in first] == ["leaf_ttl_short"]
    clock.advance((730 - 89) * 86_400)
    with capture_logs() as later:
        start_authority(settings, clock, SystemIdSource(), NoFailpoints())
    assert ("authority_ends_soon", "authority") in [(each["event"], each.get("tier")) for each in later]
