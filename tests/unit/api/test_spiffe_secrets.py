"""Envoy's secret discovery as Envoy expects it: names, versions, what is accepted and what is not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from grpclib.client import UnaryUnaryMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from crank.adapters.clock import SystemClock
from crank.api.spiffe.messages import secrets_pb2 as messages
from crank.api.spiffe.secrets import SERVICE
from crank.controller.identities import revoke_identity
from crank.domain.trust import SignedLists
from tests.support.authority import CountedAuthority
from tests.support.spiffe_socket import Socket, end_of, next_of, open_socket

QUIET_SEC = 0.3


@contextlib.asynccontextmanager
async def watching(folder: Path, **more: Any) -> AsyncIterator[tuple[Socket, Any]]:
    """Give a socket at which this process is a workload, and a stream of secrets."""
    async with open_socket(folder, **more) as socket:
        await socket.register("agent/a")
        async with socket.client() as client, client.secrets() as stream:
            yield socket, stream


def asking(*names: str, **more: Any) -> messages.DiscoveryRequest:
    """Return a request for secrets."""
    return messages.DiscoveryRequest(resource_names=names, **more)


def secrets_in(answer: messages.DiscoveryResponse) -> dict[str, messages.Secret]:
    """Return the secrets of an answer by their names."""
    found = [messages.Secret.FromString(one.value) for one in answer.resources]
    assert {one.type_url for one in answer.resources} == {answer.type_url}
    return {one.name: one for one in found}


def domains_in(secret: messages.Secret) -> dict[str, int]:
    """Return how many authorities a validation secret holds, by trust domain."""
    config = secret.validation_context.custom_validator_config
    assert config.name == "envoy.tls.cert_validator.spiffe"
    assert not secret.validation_context.HasField("trusted_ca")
    read = messages.SPIFFECertValidatorConfig.FromString(config.typed_config.value)
    return {one.name: len(x509.load_pem_x509_certificates(one.trust_bundle.inline_bytes)) for one in read.trust_domains}


async def test_every_name_that_envoy_may_say(tmp_path: Path) -> None:
    """Certificates by `default` and by SPIFFE ID, authorities by `ROOTCA`, `ALL` and trust domain, each domain apart."""
    other = CountedAuthority("other.example", SystemClock()).bundle()
    async with open_socket(tmp_path, federated=(other,)) as socket, socket.client() as client:
        await socket.register("agent/a", federates_with=("other.example",))
        await socket.register("agent/b")
        names = (
            "default", "ROOTCA", "ALL", "spiffe://test.internal/agent/b", "spiffe://test.internal", "spiffe://other.example",
        )  # fmt: skip
        async with client.secrets() as stream:
            await stream.send_message(asking(*names))
            found = secrets_in(await next_of(stream))
        assert list(found) == list(names)
        for name, whose in (("default", "a"), (names[3], "b")):
            certificate = found[name].tls_certificate
            chain = x509.load_pem_x509_certificates(certificate.certificate_chain.inline_bytes)
            key: Any = serialization.load_pem_private_key(certificate.private_key.inline_bytes, None)
            assert key.public_key() == chain[0].public_key()
            names_in = chain[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names_in.get_values_for_type(x509.UniformResourceIdentifier) == [f"spiffe://test.internal/agent/{whose}"]
        assert domains_in(found["ROOTCA"]) == domains_in(found["spiffe://test.internal"]) == {"test.internal": 1}
        assert domains_in(found["ALL"]) == {"test.internal": 1, "other.example": 1}
        assert domains_in(found["spiffe://other.example"]) == {"other.example": 1}


async def test_versions_acknowledgements_and_changes(tmp_path: Path) -> None:
    """An accepted answer is followed by silence until something changes; a refused one is not repeated either."""
    async with watching(tmp_path) as (socket, stream):
        await stream.send_message(asking("default"))
        first = await next_of(stream)
        said = {"version_info": first.version_info, "response_nonce": first.nonce}
        await stream.send_message(asking("default", **said))
        await _silence(stream)
        socket.authority.change_root(keep_old=False)
        second = await next_of(stream)
        assert int(second.version_info) > int(first.version_info)
        assert second.nonce != first.nonce
        # Refused, and about an answer that was replaced: neither changes anything.
        await stream.send_message(asking("ALL", response_nonce=first.nonce))
        refused = messages.Status(code=3, message="no")
        await stream.send_message(asking("default", response_nonce=second.nonce, error_detail=refused, version_info=first.version_info))
        await _silence(stream)
        await stream.send_message(asking("ROOTCA", response_nonce=second.nonce, version_info=second.version_info))
        assert list(secrets_in(await next_of(stream))) == ["ROOTCA"]


async def _silence(stream: Any) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(QUIET_SEC):
            await next_of(stream)
    # The library's buffer survives a reader that gave up before anything came.


async def test_authorities_are_not_said_again_with_each_certificate(tmp_path: Path) -> None:
    """Who asked for authorities alone hears nothing of renewed certificates."""
    async with watching(tmp_path, life_sec=1) as (socket, stream):
        await stream.send_message(asking("ROOTCA"))
        assert domains_in(secrets_in(await next_of(stream))["ROOTCA"]) == {"test.internal": 1}
        before = socket.authority.issued
        async with asyncio.timeout(10):
            while socket.authority.issued < before + 2:
                await asyncio.sleep(0.01)
        socket.authority.change_root()
        assert domains_in(secrets_in(await next_of(stream))["ROOTCA"]) == {"test.internal": 2}


async def test_an_identity_that_ends_ends_the_stream(tmp_path: Path) -> None:
    """A removed workload's Envoy is told PermissionDenied at once."""
    async with watching(tmp_path) as (socket, stream):
        await stream.send_message(asking("default"))
        await next_of(stream)
        (entry,) = await socket.desk.store.read(lambda tx: tx.workloads.all())
        await socket.remove(entry)
        assert await end_of(stream) is Status.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (asking("spiffe://test.internal/agent/b"), Status.PERMISSION_DENIED),
        (asking("spiffe://other.example"), Status.PERMISSION_DENIED),
        (asking("nonsense"), Status.PERMISSION_DENIED),
        (asking(*(f"n{number}" for number in range(65))), Status.RESOURCE_EXHAUSTED),
        (asking("default", type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"), Status.INVALID_ARGUMENT),
    ],
    ids=["another's", "a stranger's", "nonsense", "too many", "no secret"],
)
async def test_what_is_not_the_callers_is_refused(
    tmp_path: Path, request_: messages.DiscoveryRequest, status: Status
) -> None:
    """A name that is not this process's, too many names, and other kinds of resources are refused, by stream and by call."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        await socket.register("agent/a")
        async with client.secrets() as stream:
            await stream.send_message(request_)
            assert await end_of(stream) is status
        assert await _status(_fetch(client, request_)) is status


async def test_one_call_for_all_that_there_is(tmp_path: Path) -> None:
    """FetchSecrets without names answers with every certificate and the own authorities; without identity with none."""
    async with open_socket(tmp_path) as socket, socket.client() as client:
        assert await _status(_fetch(client, asking())) is Status.PERMISSION_DENIED
        await socket.register("agent/a")
        assert list(secrets_in(await _fetch(client, asking()))) == ["spiffe://test.internal/agent/a", "ROOTCA"]


async def _fetch(client: Any, request: messages.DiscoveryRequest) -> Any:
    kinds = (messages.DiscoveryRequest, messages.DiscoveryResponse)
    method: Any = UnaryUnaryMethod(client.channel, f"/{SERVICE}/FetchSecrets", *kinds)
    return await method(request)


async def _status(call: Any) -> Status:
    try:
        async with asyncio.timeout(10):
            await call
    except GRPCError as fault:
        return fault.status
    return Status.OK


def lists_in(secret: messages.Secret) -> dict[str, int]:
    """Return how many lists of revocations stand beside the authorities, by trust domain."""
    config = secret.validation_context.custom_validator_config
    read = messages.SPIFFECertValidatorConfig.FromString(config.typed_config.value)
    return {one.name: one.trust_bundle.inline_bytes.count(b"-----BEGIN X509 CRL-----") for one in read.trust_domains}


async def test_what_is_revoked_stands_beside_the_authorities_of_the_own_domain(tmp_path: Path) -> None:
    """That is where Envoy's validator reads it: one list of each issuer, none for another domain, and anew when one is revoked."""
    other = CountedAuthority("other.example", SystemClock()).bundle()
    async with open_socket(tmp_path, federated=(other,)) as socket, socket.client() as client, asyncio.timeout(10):
        await socket.register("agent/a", federates_with=("other.example",))
        lost = await socket.register("agent/lost", "unix:uid:4294967290")
        serial = (await socket.svids.picture([lost])).svids[0].svid.serial
        async with client.secrets() as stream:
            await stream.send_message(asking("ALL", "ROOTCA"))
            first = secrets_in(await next_of(stream))
            assert lists_in(first["ALL"]) == {"test.internal": 2, "other.example": 0}
            assert lists_in(first["ROOTCA"]) == {"test.internal": 2}
            await revoke_identity(socket.desk, serial, reason="", subject="local")
            second = secrets_in(await next_of(stream))
            assert lists_in(second["ALL"]) == lists_in(first["ALL"])
            assert second != first


async def test_envoy_is_given_every_list_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a list of one issuer alone Envoy believes nobody; where a root has none, it goes without, as before."""
    whole = CountedAuthority.sign_revocations

    def partly(*words: Any, **more: Any) -> SignedLists:
        return replace(whole(*words, **more), by_roots=(), is_whole=False)

    monkeypatch.setattr(CountedAuthority, "sign_revocations", partly)
    async with watching(tmp_path) as (_, stream):
        await stream.send_message(asking("ROOTCA"))
        assert lists_in(secrets_in(await next_of(stream))["ROOTCA"]) == {"test.internal": 0}
