"""A node's socket before foreign judges: the PyPI client of SPIFFE's Workload API, and Envoy by SDS, both unmodified."""

import contextlib
import datetime as dt
import http.client
import http.server
import ipaddress
import json
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.judges.envoy.config import configuration
from tests.support.certificates import Authority
from tests.support.node import Node, running_node, until
from tests.support.publisher import pem_of, shows, tls_of
from tests.support.svids import Issuer, Wish, root

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("workload-identity")]

JUDGES = Path(__file__).resolve().parent
OWN_UID = f"unix:uid:{os.geteuid()}"
# The shortest that there is: renewed after four to five seconds.
SHORT_SEC = 10
PATIENCE_SEC = 60.0


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node."""
    with running_node(tmp_path_factory.mktemp("identity") / "home") as started:
        yield started


def register(node: Node, path: str, **more: Any) -> dict[str, Any]:
    """Register a workload of this account."""
    body = {"path": path, "selectors": [OWN_UID], "ttl_sec": SHORT_SEC, **more}
    answer = node.client().http.post("/v1/workloads", json=body)
    assert answer.status_code == 201, answer.text
    entry: dict[str, Any] = answer.json()
    return entry


class Visitor:
    """The judge's program while it runs."""

    def __init__(self, python: Path, mode: str, *places: str) -> None:
        program = str(JUDGES / "spiffe" / "visit.py")
        self.process = subprocess.Popen(
            [str(python), program, mode, *places], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._killing = threading.Timer(PATIENCE_SEC, self.process.kill)
        self._killing.start()

    def next(self) -> dict[str, Any]:
        """Return the next line that it tells."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1][-3000:])
        told: dict[str, Any] = json.loads(line)
        return told

    def close(self) -> None:
        """See that it ended well."""
        _, complaint = self.process.communicate()
        self._killing.cancel()
        assert self.process.returncode == 0, complaint[-3000:]


def test_the_client_of_pypi(node: Node, judge: Callable[[str], Path]) -> None:
    """It is refused without an identity; with one it fetches, validates, is pushed a rotation, and loses it at once.

    After the rotation its key is the same, and a token that was bound to that key is good with the next certificate.
    """
    info = node.info()
    address = info["spiffe_socket"]
    python = judge("spiffe")
    stranger = Visitor(python, "denied", address)
    refusals = stranger.next()
    stranger.close()
    assert all("PERMISSION_DENIED" in text for text in refusals.values()), refusals
    entries = [register(node, path) for path in ("agent/judge", "tenant/local/judge")]
    names = [entry["spiffe_id"] for entry in entries]
    visitor = Visitor(python, "whole", address, info["api"], info["ca_file"], info["token_file"])
    seen = visitor.next()
    assert (seen["ids"], seen["token"], seen["validated"]) == (names, names[0], names[0]), seen
    assert seen["chain"] >= 1, seen
    assert seen["roots"] >= 1, seen
    assert seen["signed_by_bundle"], seen
    assert "INVALID_ARGUMENT" in seen["wrong_audience"], seen
    assert "PERMISSION_DENIED" in seen["not_mine"], seen
    assert visitor.next() == {"watching": names[0]}
    assert visitor.next() == {"rotated": names[0], "same_key": True, "token": 200}
    assert visitor.next() == {"streaming": True}
    for entry in entries:
        assert node.client().http.delete(f"/v1/workloads/{entry['workload_id']}").status_code == 200
    removed_sec = time.monotonic()
    last = visitor.next()
    assert time.monotonic() - removed_sec < 4
    assert "PERMISSION_DENIED" in last["ended"], last
    assert "PERMISSION_DENIED" in last["again"], last
    visitor.close()


# --- Envoy -------------------------------------------------------------------------------------


class Envoy:
    """An Envoy that runs."""

    def __init__(self, folder: Path, program: Path, node: Node) -> None:
        self.inward, self.outward, self.onward, self.upstream_port = _free_ports(4)
        info = node.info()
        self.upstream = info["spiffe_id"].partition("/controller/")[0] + "/agent/upstream"
        settings = configuration(
            socket=info["spiffe_socket"].removeprefix("unix://"),
            inward=self.inward,
            outward=self.outward,
            workers_port=int(info["workers_api"].rpartition(":")[2]),
            controller=info["spiffe_id"],
            onward=self.onward,
            upstream_port=self.upstream_port,
            upstream=self.upstream,
        )
        self._log = (folder / "envoy.log").open("wb")
        (folder / "envoy.json").write_text(json.dumps(settings))
        command = [
            str(program), "--config-path", str(folder / "envoy.json"), "--disable-hot-restart", "--concurrency", "1",
            "--log-level", "warning",
        ]  # fmt: skip
        self.log = folder / "envoy.log"
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(20)
        self._log.close()


def _free_ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


@pytest.fixture(scope="module")
def identity(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with this account's own identity, as files."""
    register(node, "agent/envoy")
    folder = tmp_path_factory.mktemp("own") / "id"
    done = node.crank("identity", "fetch", "--dir", str(folder))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def envoy(node: Node, identity: Path, judge: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Envoy]:
    """Give a running Envoy that got its identity from the node."""
    program = next(judge("envoy").parents[1].glob("lib/python*/site-packages/envoy/_bin/envoy"))
    started = Envoy(tmp_path_factory.mktemp("envoy"), program, node)
    try:
        until(lambda: _served(started, _own(identity)), what=f"Envoy to serve; {started.log}", deadline_sec=30)
        yield started
    finally:
        started.stop()


def _own(identity: Path) -> ssl.SSLContext:
    # The names of these servers are SPIFFE IDs, which this TLS library does not look for; the chain is what counts here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(identity / "bundle.pem")
    context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
    return context


def _served(envoy: Envoy, context: ssl.SSLContext) -> tuple[int, str, int] | None:
    """Return the status, whom Envoy met, and the serial number of what it showed; None while it does not answer."""
    connection = http.client.HTTPSConnection("127.0.0.1", envoy.inward, context=context, timeout=10)
    try:
        connection.connect()
        shown = x509.load_der_x509_certificate(connection.sock.getpeercert(True) or b"").serial_number
        connection.request("GET", "/")
        answer = connection.getresponse()
        return answer.status, answer.headers["x-peer"], shown
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def test_envoy_lets_our_identity_in_and_a_forged_one_not(node: Node, identity: Path, envoy: Envoy, tmp_path: Path) -> None:
    """With `ALL`, Envoy accepts our own certificate and names it; one for the same name by another authority is refused."""
    assert node.crank("identity", "fetch", "--dir", str(identity)).returncode == 0
    name = node.info()["spiffe_id"].partition("/controller/")[0] + "/agent/envoy"
    answer = _served(envoy, _own(identity))
    assert answer is not None
    assert answer[:2] == (200, name)
    for uri in (name, "spiffe://foreign.example/agent/envoy"):
        forged = Authority(tmp_path, f"foreign-{len(uri)}").context(uri, server=False)
        forged.check_hostname = False
        forged.verify_mode = ssl.CERT_NONE
        assert _served(envoy, forged) is None, uri
    nameless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    nameless.check_hostname = False
    nameless.verify_mode = ssl.CERT_NONE
    assert _served(envoy, nameless) is None


def test_envoy_refuses_who_was_revoked(node: Node, identity: Path, envoy: Envoy, tmp_path: Path) -> None:
    """Its certificate would live for an hour; from the revocation on Envoy refuses it, and lets the others in as before."""
    entry = register(node, "agent/lost", ttl_sec=3600, hint="lost")
    fetched = node.crank("identity", "fetch", "--dir", str(tmp_path / "lost"), "--hint", "lost")
    assert fetched.returncode == 0, fetched.stderr
    lost = _own(tmp_path / "lost")
    answer = until(lambda: _served(envoy, lost), what="Envoy to let it in")
    assert answer[:2] == (200, entry["spiffe_id"])
    session = _talk(envoy, lost, None)
    done = node.client().http.post("/v1/identities/revoke", json={"identity": entry["spiffe_id"]})
    assert done.status_code == 200, done.text
    until(lambda: _served(envoy, lost) is None, what="Envoy to refuse it", deadline_sec=10)
    assert node.crank("identity", "fetch", "--dir", str(identity)).returncode == 0
    answer = _served(envoy, _own(identity))
    assert answer is not None
    assert answer[0] == 200
    assert _served(envoy, lost) is None
    # Nor by what is left of an earlier session.
    with pytest.raises((ssl.SSLError, ConnectionError)):
        _talk(envoy, lost, session)


def _talk(envoy: Envoy, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Be answered by Envoy, if it lets an earlier session go on by that; return this one's. Raises OSError."""
    plain = socket.create_connection(("127.0.0.1", envoy.inward), timeout=10)
    with context.wrap_socket(plain, session=session) as tls:
        tls.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        if not tls.recv(1000):
            raise ConnectionResetError("It hung up.")
        return tls.session


THEIRS = "two.test"


@contextlib.contextmanager
def _published(issuer: Issuer, folder: Path) -> Iterator[str]:
    """Publish a foreign domain's bundle on loopback; give its address."""
    lives: dict[str, Any] = {"begins": issuer.certificate.not_valid_before_utc, "ends": issuer.certificate.not_valid_after_utc}
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])

    class Publisher(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Show it."""
            self.wfile.write(shows(issuer.bundle(THEIRS)))

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's word
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as server:
        tls = tls_of(issuer.issue(Wish(uris=(), more=[(address, False)], **lives)), folder)
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield f"https://127.0.0.1:{server.server_address[1]}/bundle"
        finally:
            server.shutdown()


def test_a_federated_authority_does_not_speak_for_our_names(
    node: Node, identity: Path, envoy: Envoy, tmp_path: Path
) -> None:
    """Envoy lets an identity of a federated domain in, and refuses what the same authority signed with a name of ours."""
    now = dt.datetime.now(dt.UTC)
    lives: dict[str, Any] = {"begins": now - dt.timedelta(hours=1), "ends": now + dt.timedelta(days=1)}
    authority = root(THEIRS, **lives)
    api = node.client().http
    with _published(authority, tmp_path) as url:
        wanted = {"trust_domain": THEIRS, "url": url, "ca_pem": pem_of(authority), "private": True}
        added = api.post("/v1/federation", json=wanted)
        assert added.status_code == 201, added.text
    register(node, "agent/friend", federates_with=[THEIRS])
    ours = node.info()["spiffe_id"].partition("/controller/")[0] + "/agent/envoy"

    def shown(name: str) -> ssl.SSLContext:
        context = tls_of(authority.issue(Wish(uris=(name,), **lives)), tmp_path / "leaves", side=ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context

    theirs = shown(f"spiffe://{THEIRS}/agent/a")
    answer = until(lambda: _served(envoy, theirs), what="Envoy to know the other domain")
    assert answer[:2] == (200, f"spiffe://{THEIRS}/agent/a")
    for name in (ours, ours.replace("envoy", "stranger")):
        assert _served(envoy, shown(name)) is None, name
    assert _served(envoy, theirs) is not None
    assert node.crank("identity", "fetch", "--dir", str(identity)).returncode == 0
    assert _served(envoy, _own(identity)) is not None


def test_envoy_is_given_new_certificates_while_it_runs(node: Node, identity: Path, envoy: Envoy) -> None:
    """What Envoy shows is another certificate after half a life, in the same process."""
    def shown() -> int | None:
        answer = _served(envoy, _own(identity))
        if answer is None:
            # Our own has run out meanwhile: it lives as short.
            assert node.crank("identity", "fetch", "--dir", str(identity)).returncode == 0
            return None
        return answer[2]

    first = until(shown, what="an answer")
    until(lambda: shown() not in (None, first), what="another certificate")
    assert envoy.process.poll() is None


def test_envoy_speaks_mtls_to_the_controller(node: Node, envoy: Envoy) -> None:
    """TLS with Envoy's identity is accepted at the port for workers, and the gate answers that this is no worker."""
    connection = http.client.HTTPConnection("127.0.0.1", envoy.outward, timeout=10)
    connection.request("GET", f"/v1/blobs/{'0' * 64}")
    answer = connection.getresponse()
    problem = json.loads(answer.read())
    assert (answer.status, problem["code"]) == (403, "untrusted_peer"), problem
    assert "/agent/envoy is not a worker" in problem["detail"]
    connection.close()


@contextlib.contextmanager
def _upstream(port: int, tls: ssl.SSLContext) -> Iterator[list[str]]:
    """Serve where Envoy looks for its upstream, with this certificate; give the paths that it was asked for."""
    asked: list[str] = []

    class Upstream(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer, and note it."""
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's word
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Upstream) as server:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever).start()
        try:
            yield asked
        finally:
            server.shutdown()


def _through(envoy: Envoy) -> tuple[int, str]:
    """Ask Envoy for what its upstream has; return the status, and why TLS with it failed."""
    connection = http.client.HTTPConnection("127.0.0.1", envoy.onward, timeout=10)
    try:
        connection.request("GET", "/secret")
        answer = connection.getresponse()
        return answer.status, answer.headers.get("x-failure", "")
    finally:
        connection.close()


def test_envoy_refuses_an_upstream_that_is_somebody_else(node: Node, envoy: Envoy, tmp_path: Path) -> None:
    """Envoy sends a request to the expected identity of our authority, and none to the same name by another or to another of ours."""

    def ours(name: str) -> ssl.SSLContext:
        register(node, f"agent/{name}", ttl_sec=3600, hint=name)
        fetched = node.crank("identity", "fetch", "--dir", str(tmp_path / name), "--hint", name)
        assert fetched.returncode == 0, fetched.stderr
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / name / "cert.pem", tmp_path / name / "key.pem")
        return context

    forged = Authority(tmp_path, "impostor").context(envoy.upstream, server=True)
    forged.verify_mode = ssl.CERT_NONE
    expected = ours("upstream")
    for impostor in (forged, ours("impostor")):
        # The one that is expected is served before each: it is the certificate that is refused, and nothing else.
        with _upstream(envoy.upstream_port, expected) as asked:
            assert _through(envoy)[0] == 200
            assert asked == ["/secret"]
        with _upstream(envoy.upstream_port, impostor) as asked:
            status, cause = _through(envoy)
            assert (status, asked) == (503, []), cause
            assert "CERTIFICATE_VERIFY_FAILED" in cause
    assert envoy.process.poll() is None
