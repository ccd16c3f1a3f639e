"""An identity as files: written whole, told to who uses it, and kept while it is watched."""

import asyncio
import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from crank.adapters.clock import SystemClock
from crank.bootstrap import fetch_identity
from crank.bootstrap.fetch_identity import Fetched, Wish, keep, parse_signal, socket_path
from crank.controller.identities import revoke_identity
from crank.errors import (
    ConfigurationError,
    CrankError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ProtocolError,
    Unavailable,
)
from tests.support.authority import CountedAuthority
from tests.support.spiffe_socket import open_socket

SOON_SEC = 20


async def written(address: str, wish: Wish) -> Fetched:
    """Fetch once."""
    found: list[Fetched] = []
    async with asyncio.timeout(SOON_SEC):
        await keep(address, wish, watch=False, told=found.append)
    (fetched,) = found
    return fetched


@pytest.mark.must("Workload Endpoint 3/1", "Workload Endpoint 3/3", "Workload Endpoint 3.1/1", "Workload Endpoint 5/1", "Workload Endpoint 5/2")
async def test_key_certificate_and_bundles(tmp_path: Path) -> None:
    """The files fit each other, are nobody else's to read, and foreign domains have files of their own."""
    other = CountedAuthority("other.example", SystemClock()).bundle()
    async with open_socket(tmp_path, federated=(other,)) as at:
        await at.register("agent/a")
        await at.register("agent/b", hint="second", federates_with=("other.example",))
        folder = tmp_path / "new" / "id"
        fetched = await written(f"unix://{at.path}", Wish(folder, hint="second"))
    assert fetched.spiffe_id == "spiffe://test.internal/agent/b"
    assert sorted(path.name for path in fetched.files) == [
        "bundle.other.example.pem", "bundle.pem", "cert.pem", "crl.pem", "key.pem",
    ]  # fmt: skip
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.name != "crl.pem"} == {0o600}
    assert (folder / "crl.pem").stat().st_mode & 0o777 == 0o644
    assert folder.stat().st_mode & 0o777 == 0o700
    chain = x509.load_pem_x509_certificates((folder / "cert.pem").read_bytes())
    key: Any = serialization.load_pem_private_key((folder / "key.pem").read_bytes(), None)
    assert key.public_key() == chain[0].public_key()
    (root,) = x509.load_pem_x509_certificates((folder / "bundle.pem").read_bytes())
    chain[-1].verify_directly_issued_by(root)
    (foreign,) = x509.load_pem_x509_certificates((folder / "bundle.other.example.pem").read_bytes())
    assert foreign.public_bytes(serialization.Encoding.DER) == other.x509_authorities[0]


async def test_a_domain_that_is_believed_no_more_leaves_no_file(tmp_path: Path) -> None:
    """When a federation ends, its bundle goes from the folder: a program that reads it there would believe on."""
    other = CountedAuthority("other.example", SystemClock()).bundle()
    async with open_socket(tmp_path, federated=(other,)) as at, asyncio.timeout(SOON_SEC):
        await at.register("agent/a", federates_with=("other.example",))
        heard: asyncio.Queue[Fetched] = asyncio.Queue()
        keeping = asyncio.create_task(keep(f"unix://{at.path}", Wish(tmp_path / "id"), watch=True, told=heard.put_nowait))
        await heard.get()
        assert (tmp_path / "id" / "bundle.other.example.pem").exists()
        at.others.drop("other.example")
        await heard.get()
        keeping.cancel()
    assert sorted(path.name for path in (tmp_path / "id").iterdir()) == ["bundle.pem", "cert.pem", "crl.pem", "key.pem"]


async def test_a_watch_writes_anew_and_tells(tmp_path: Path) -> None:
    """After each change the files are new, the command has run and the process has its signal; the identity's end is an end."""
    program = "import signal, sys\nprint('ready', flush=True)\nwhile True:\n    print(signal.sigwait([signal.SIGHUP]).name, flush=True)"
    block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP]);"
    with (
        subprocess.Popen([sys.executable, "-c", f"{block}\n{program}"], stdout=subprocess.PIPE, text=True) as server,
        contextlib.ExitStack() as ending,
    ):
        # Whatever fails below: nobody would end it, and all would wait for it.
        ending.callback(server.kill)
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        (tmp_path / "pid").write_text(f"{server.pid}\n/var/lib/data\n5432\n")
        wish = Wish(
            tmp_path / "id", None, f"{sys.executable} -c \"open('{tmp_path}/ran', 'a').write('x')\"", signal.SIGHUP, tmp_path / "pid",
        )  # fmt: skip
        heard: asyncio.Queue[Fetched] = asyncio.Queue()
        async with open_socket(tmp_path) as at, asyncio.timeout(SOON_SEC):
            entry = await at.register("agent/a")
            keeping = asyncio.create_task(keep(f"unix://{at.path}", wish, watch=True, told=heard.put_nowait))
            await heard.get()
            first = {name: (tmp_path / "id" / name).read_bytes() for name in ("cert.pem", "bundle.pem")}
            at.authority.change_root(keep_old=False)
            await heard.get()
            assert all((tmp_path / "id" / name).read_bytes() != before for name, before in first.items())
            assert (tmp_path / "ran").read_text() == "xx"
            assert [server.stdout.readline() for _ in range(2)] == ["SIGHUP\n"] * 2
            await at.remove(entry)
            with pytest.raises(NotAllowed):
                await keeping


async def test_what_was_revoked_is_written_and_told(tmp_path: Path) -> None:
    """While it is watched a revocation comes into crl.pem and the program is told; openssl refuses the revoked by these files alone."""
    ran = tmp_path / "ran"
    wish = Wish(tmp_path / "id", None, f"{sys.executable} -c \"open('{ran}', 'a').write('x')\"")
    heard: asyncio.Queue[Fetched] = asyncio.Queue()
    async with open_socket(tmp_path) as at, asyncio.timeout(SOON_SEC):
        await at.register("agent/a")
        await at.register("agent/lost", hint="lost")
        lost = await written(f"unix://{at.path}", Wish(tmp_path / "lost", hint="lost"))
        keeping = asyncio.create_task(keep(f"unix://{at.path}", wish, watch=True, told=heard.put_nowait))
        assert tmp_path / "id" / "crl.pem" in (await heard.get()).files
        assert _checked(tmp_path / "id", tmp_path / "lost" / "cert.pem") == ""
        own = (tmp_path / "id" / "cert.pem").read_bytes()
        await revoke_identity(at.desk, lost.spiffe_id, reason="", subject="local")
        await heard.get()
        keeping.cancel()
    assert "certificate revoked" in _checked(tmp_path / "id", tmp_path / "lost" / "cert.pem")
    assert (tmp_path / "id" / "cert.pem").read_bytes() == own
    assert _checked(tmp_path / "id", tmp_path / "id" / "cert.pem") == ""
    assert ran.read_text() == "xx"


def _checked(folder: Path, certificate: Path) -> str:
    """Return what openssl finds wrong with a chain by the files of a folder, lists of all issuers included."""
    done = subprocess.run(
        ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "bundle.pem"), "-CRLfile", str(folder / "crl.pem"),
         "-crl_check_all", "-untrusted", str(certificate), str(certificate)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return "" if done.returncode == 0 else done.stdout + done.stderr


async def test_a_node_that_comes_back_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch outlives the socket: it goes on with the next one, as the node's restart makes it."""
    monkeypatch.setattr(fetch_identity, "RETRY_SEC_MIN", 0.05)
    heard: asyncio.Queue[Fetched] = asyncio.Queue()
    wish = Wish(tmp_path / "id")
    keeping: asyncio.Task[None] | None = None
    async with asyncio.timeout(SOON_SEC):
        for _ in range(2):
            async with open_socket(tmp_path) as at:
                with contextlib.suppress(CrankError):
                    await at.register("agent/a")
                if keeping is None:
                    keeping = asyncio.create_task(keep(f"unix://{at.path}", wish, watch=True, told=heard.put_nowait))
                await heard.get()
        assert keeping is not None
        assert not keeping.done()
        keeping.cancel()


@pytest.mark.parametrize(
    ("wish", "kind", "code"),
    [
        ({"hint": "none"}, NotFound, "hint_not_found"),
        ({"command": "/no/such/program"}, ConfigurationError, "identity_not_told"),
        ({"command": "false"}, ConfigurationError, "identity_not_told"),
        ({"signal": signal.SIGHUP, "pid_file": Path("/no/such/file")}, ConfigurationError, "identity_not_told"),
    ],
    ids=["no such hint", "no such program", "a program that fails", "no such process"],
)
async def test_what_cannot_be_done_is_told(tmp_path: Path, wish: dict[str, Any], kind: type[CrankError], code: str) -> None:
    """A wrong hint, command or process number ends with a code, and the files that could be written are."""
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        with pytest.raises(kind) as caught:
            await written(f"unix://{at.path}", Wish(tmp_path / "id", **wish))
    assert caught.value.error_code == code
    assert (tmp_path / "id" / "key.pem").exists() is (code != "hint_not_found")


@pytest.mark.parametrize("number", ["0", "-1", "1", "x", ""])
async def test_no_group_and_no_first_process_is_signalled(tmp_path: Path, number: str) -> None:
    """A file that names a whole group, everything, or init is no process to tell."""
    (tmp_path / "pid").write_text(number)
    with pytest.raises(ConfigurationError):
        fetch_identity._send(signal.SIGURG, tmp_path / "pid")


async def test_without_a_node_or_an_identity(tmp_path: Path) -> None:
    """No socket is Unavailable, no entry is NotAllowed; nothing is written."""
    with pytest.raises(Unavailable):
        await written(f"unix://{tmp_path}/none", Wish(tmp_path / "id"))
    async with open_socket(tmp_path) as at:
        with pytest.raises(NotAllowed):
            await written(f"unix://{at.path}", Wish(tmp_path / "id"))
    assert not (tmp_path / "id").exists()


@pytest.mark.parametrize(
    "address", ["", "/run/s", "unix:run/s", "unix://host/run/s", "tcp://127.0.0.1:1", "unix:///s?x=1", "unix:///s#a"]
)
def test_addresses_that_are_no_socket(address: str) -> None:
    """Only `unix:///absolute/path` is one."""
    with pytest.raises(ConfigurationError):
        socket_path(address)


def test_addresses_and_signals() -> None:
    """A path may hold what a URL writes in percent; signals are named with and without SIG."""
    assert socket_path("unix:///run/a%20b/s") == "/run/a b/s"
    assert socket_path("unix:/run/s") == "/run/s"
    assert parse_signal("hup") is parse_signal("SIGHUP") is signal.SIGHUP
    for name in ("", "9", "SIG", "NONE"):
        with pytest.raises(InvalidRequest):
            parse_signal(name)


@pytest.mark.parametrize("octets", [b"x", b"\x30", b"\x30\x82", b"\x30\x05\x01", b"\x30\x82\xff\xff" + bytes(range(200, 209)), b"\x30\x00"])
def test_certificates_that_are_cut_off(octets: bytes) -> None:
    """What is no row of whole certificates is refused, without end or index errors."""
    with pytest.raises(ProtocolError):
        list(fetch_identity._apart(octets))
