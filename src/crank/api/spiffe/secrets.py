"""Envoy's secret discovery: the same identities to the same callers, under the names that Envoy's configuration says.

`default` is the caller's certificate, `ROOTCA` its own trust domain's authorities, `ALL` those of every domain that it may
know, each for its own domain alone; a SPIFFE ID is that certificate, a trust domain's ID that domain's authorities.

What is revoked stands beside the authorities of the own domain: that is where Envoy's validator for SPIFFE looks, and it
passes over the field `crl`. With one list it asks for one of every issuer, so there are all of them or none.
"""

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message as ProtoMessage
from grpclib.const import Cardinality, Handler
from grpclib.server import Stream

from crank.api.spiffe.messages import secrets_pb2 as messages
from crank.api.spiffe.seat import Seat
from crank.api.spiffe.speech import hear, hear_one, say, told
from crank.controller.svids import HeldSvid, Picture
from crank.domain.trust import TrustBundle
from crank.errors import InvalidRequest, NotAllowed, TooLarge

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
_TYPE_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
_VALIDATOR = "envoy.tls.cert_validator.spiffe"
_VALIDATOR_URL = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig"
NAMES_MAX = 64
OWN, OWN_ROOTS, ALL_ROOTS = "default", "ROOTCA", "ALL"
_log = structlog.get_logger(__name__)


class SecretDiscovery:
    """The service, for one connection."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by their paths, as grpclib asks; incremental discovery is not among them."""
        kinds = (messages.DiscoveryRequest, messages.DiscoveryResponse)
        return {
            f"/{SERVICE}/StreamSecrets": Handler(self.stream_secrets, Cardinality.STREAM_STREAM, *kinds),
            f"/{SERVICE}/FetchSecrets": Handler(self.fetch_secrets, Cardinality.UNARY_UNARY, *kinds),
        }

    async def fetch_secrets(self, stream: Stream[Any, Any]) -> None:
        """Answer with the named secrets as they are now."""
        with told(), self._seat.call():
            names = _names(await hear_one(stream))
            picture = await self._seat.svids.picture(await self._seat.entries())
            await say(stream, _answer(picture, names, version=1))

    async def stream_secrets(self, stream: Stream[Any, Any]) -> None:
        """Answer with the named secrets, and again when they changed or others are named; heed what was not accepted."""
        with told(), self._seat.call():
            talk = _Talk(stream, self._seat)
            listening = asyncio.create_task(talk.listen())
            showing = asyncio.create_task(talk.show())
            try:
                done, _ = await asyncio.wait({listening, showing}, return_when=asyncio.FIRST_COMPLETED)
                for ended in done:
                    ended.result()
            finally:
                for each in (listening, showing):
                    each.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await each


class _Talk:
    """One stream: which names are subscribed to, and what was said about them last."""

    def __init__(self, stream: Stream[Any, Any], seat: Seat) -> None:
        self._stream = stream
        self._seat = seat
        self._names: tuple[str, ...] | None = None
        self._picture: Picture | None = None
        self._version = 0
        self._nonce = ""
        self._refused = ""
        self._said: tuple[tuple[str, ...], list[AnyMessage]] | None = None
        self._sending = asyncio.Lock()

    async def listen(self) -> None:
        """Follow what is subscribed to, until the caller says no more."""
        while (request := await hear(self._stream)) is not None:
            if request.response_nonce and request.response_nonce != self._nonce:
                # About an answer that a newer one has replaced.
                continue
            if request.HasField("error_detail"):
                # Refused; sending the same again would be refused again, so the next change is awaited.
                if self._refused != self._nonce:
                    self._refused = self._nonce
                    _log.warning("sds_refused", code=request.error_detail.code, version=self._version)
                continue
            names = _names(request)
            if names != self._names:
                self._names = names
                await self._send()

    async def show(self) -> None:
        """Follow what the caller is."""
        async with aclosing(self._seat.svids.watch(self._seat.marks)) as pictures:
            async for picture in pictures:
                self._picture = picture
                await self._send()

    async def _send(self) -> None:
        async with self._sending:
            if self._names is None or self._picture is None:
                return
            answer = _answer(self._picture, self._names, version=self._version + 1)
            said = (self._names, list(answer.resources))
            if said == self._said:
                # A new certificate is no news to who asked for authorities alone.
                return
            self._said = said
            self._version += 1
            self._nonce = answer.nonce
            await say(self._stream, answer)


def _names(request: Any) -> tuple[str, ...]:
    if request.type_url not in ("", _TYPE_URL):
        raise InvalidRequest("Only secrets are served here.", code="invalid_type_url", field="type_url")
    if len(request.resource_names) > NAMES_MAX:
        raise TooLarge(f"At most {NAMES_MAX} secrets are asked for at once.", field="resource_names")
    return tuple(dict.fromkeys(request.resource_names))


def _answer(picture: Picture, names: Sequence[str], *, version: int) -> messages.DiscoveryResponse:
    """Return the secrets of these names. Raises NotAllowed for one that is not this caller's to have."""
    # None named means all that there is.
    wanted = names or (*(str(held.entry.spiffe_id) for held in picture.svids), OWN_ROOTS)
    return messages.DiscoveryResponse(
        version_info=str(version),
        nonce=str(version),
        type_url=_TYPE_URL,
        resources=[_packed(_TYPE_URL, _secret(picture, name)) for name in wanted],
    )


def _secret(picture: Picture, name: str) -> messages.Secret:
    own = picture.svids[0].entry.spiffe_id.trust_domain
    if name == ALL_ROOTS:
        return messages.Secret(name=name, validation_context=_roots(picture, *picture.bundles.values()))
    domain = own if name == OWN_ROOTS else name.removeprefix("spiffe://")
    if name == OWN_ROOTS or (name.startswith("spiffe://") and domain in picture.bundles):
        return messages.Secret(name=name, validation_context=_roots(picture, picture.bundles[domain]))
    for held in picture.svids:
        if name in (OWN, str(held.entry.spiffe_id)):
            return messages.Secret(name=name, tls_certificate=_certificate(held))
    raise NotAllowed(f"There is no secret {name[:200]!r} for this process.", code="no_identity", field="resource_names")


def _certificate(held: HeldSvid) -> messages.TlsCertificate:
    chain = b"".join(_pem("CERTIFICATE", one) for one in held.svid.chain)
    key = _pem("PRIVATE KEY", held.private_key)
    return messages.TlsCertificate(
        certificate_chain=messages.DataSource(inline_bytes=chain), private_key=messages.DataSource(inline_bytes=key)
    )


def _roots(picture: Picture, *bundles: TrustBundle) -> messages.CertificateValidationContext:
    """Return what Envoy checks peers by: for each trust domain its own authorities, never one heap of all."""
    own = picture.svids[0].entry.spiffe_id.trust_domain
    config = messages.SPIFFECertValidatorConfig(
        trust_domains=[
            messages.SPIFFECertValidatorConfig.TrustDomain(
                name=bundle.trust_domain,
                trust_bundle=messages.DataSource(
                    inline_bytes=b"".join(_pem("CERTIFICATE", one) for one in bundle.x509_authorities)
                    + (_revoked(picture) if bundle.trust_domain == own else b"")
                ),
            )
            for bundle in bundles
        ]
    )
    return messages.CertificateValidationContext(
        custom_validator_config=messages.TypedExtensionConfig(
            name=_VALIDATOR, typed_config=_packed(_VALIDATOR_URL, config)
        )
    )


def _revoked(picture: Picture) -> bytes:
    if not picture.revoked.is_whole:
        # Envoy would believe nobody at all.
        return b""
    return b"".join(_pem("X509 CRL", one) for one in picture.revoked.all)


def _packed(url: str, message: ProtoMessage) -> AnyMessage:
    return AnyMessage(type_url=url, value=message.SerializeToString(deterministic=True))


def _pem(label: str, octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())
