"""Steps of features/mutual_trust.feature: strangers at the listener for workers of a real node."""

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.controller_link import WebSocketConnector
from crank.errors import UntrustedPeer
from crank.security import client_context
from tests.support.node import Node, running_node

scenarios("mutual_trust.feature")

ANSWER_SEC = 10
TRUST_DOMAIN = "crank.internal"


def _knock(node: Node, context: ssl.SSLContext) -> bytes | ssl.SSLError | ConnectionError:
    """Ask the workers' listener for anything; return what came back."""
    address = urlsplit(node.info()["workers_api"])
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port), timeout=ANSWER_SEC) as plain:
        try:
            # In TLS 1.3 the refusal of a client certificate arrives with the first read.
            with context.wrap_socket(plain, server_hostname=address.hostname) as secured:
                secured.sendall(b"GET /v1/worker HTTP/1.1\r\nHost: node\r\n\r\n")
                return secured.recv(1024)
        except (ssl.SSLError, ConnectionError) as fault:
            return fault


def _trusting(node: Node) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=node.info()["ca_file"])
    # The worker judges by SPIFFE ID; a stranger does not judge at all.
    context.check_hostname = False
    return context


def _workers(node: Node) -> list[str]:
    return sorted(worker["worker_id"] for worker in node.client().http.get("/v1/workers").json()["workers"])


@pytest.fixture
def known(node: Node) -> list[str]:
    """Tell which workers the node knew before."""
    return _workers(node)


@when("a stranger without a certificate connects to the listener for workers", target_fixture="answer")
def _(running: Node, known: list[str]) -> Any:
    return _knock(running, _trusting(running))


@when(
    "a stranger with a certificate of its own authority connects to the listener for workers", target_fixture="answer"
)
def _(running: Node, known: list[str], folder: Path) -> Any:
    other = FileAuthority(folder / "ca", trust_domain=TRUST_DOMAIN, clock=SystemClock(), ids=SystemIdSource())
    other.ensure()
    identity = other.issue_worker("stranger", folder / "identity")
    context = _trusting(running)
    context.load_cert_chain(identity.certificate_file, identity.key_file)
    return _knock(running, context)


@then("the TLS session ends before any answer")
def _(answer: Any) -> None:
    assert isinstance(answer, ssl.SSLError | ConnectionError) or answer == b"", answer


@then("no worker was stored")
def _(running: Node, known: list[str]) -> None:
    assert _workers(running) == known


@pytest.fixture
def second_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node whose authority the first has never seen."""
    with running_node(tmp_path_factory.mktemp("second") / "home") as started:
        yield started


@given("a second node with an authority of its own", target_fixture="second")
def _(second_node: Node) -> Node:
    return second_node


@when("a worker of the first node is pointed at the second", target_fixture="refusal")
def _(running: Node, second: Node, known: list[str]) -> UntrustedPeer:
    folder = running.home / "worker" / "main" / "identity"
    tls = client_context(certificate_file=folder / "cert.pem", key_file=folder / "key.pem", ca_file=folder / "ca.pem")
    connector = WebSocketConnector(f"{second.info()['workers_api']}/v1/worker", tls, TRUST_DOMAIN, identify=_never)
    with pytest.raises(UntrustedPeer) as caught:
        asyncio.run(connector.connect())
    return caught.value


def _never(_tls: Any) -> Any:
    raise AssertionError("TLS ends before anybody is asked who it is")


@then(parsers.parse('it refuses with "{code}"'))
def _(refusal: UntrustedPeer, code: str) -> None:
    assert refusal.error_code == code
    assert "authority" in refusal.message
    assert refusal.fix


@then("the second node stored no worker of the first")
def _(running: Node, second: Node) -> None:
    assert not set(_workers(second)) & set(_workers(running))
