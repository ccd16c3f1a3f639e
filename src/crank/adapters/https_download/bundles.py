"""Asks the publishers of trust bundles (SPIFFE Federation, section 5.2): by the web's certificates, or by SPIFFE ID.

The URL is the owner's, and a publisher may still be somebody else's machine: a name is resolved once, only public
addresses are asked unless the owner said otherwise, redirects are few, temporary, and judged like the first URL.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import h11

from crank.adapters.https_download.addresses import FETCHES_MAX, Resolve, is_near, is_public, resolve
from crank.adapters.https_download.exchange import Streams, exchange
from crank.domain.identity import SpiffeId
from crank.domain.rules.federation import REDIRECTS_MAX, Place, parse_bundle_url
from crank.domain.trust import Peer, TrustBundle
from crank.errors import InvalidRequest, NotAllowed, TooLarge, Unavailable, UntrustedPeer

CONNECT_SEC = 5.0
FETCH_SEC = 20.0
BUNDLE_BYTES_MAX = 512 * 1024
_ADDRESSES_TRIED_MAX = 3
# Who answered proved to be, by this bundle and no other. Raises UntrustedPeer.
Prove = Callable[[TrustBundle, Any], Peer]
Expected = tuple[SpiffeId, TrustBundle]


@dataclass(frozen=True, slots=True)
class _Trust:
    """How a publisher proves itself: TLS checks its name, or `expected` its SPIFFE ID."""

    tls: ssl.SSLContext
    expected: Expected | None


class _Redirect(Exception):
    """The publisher says where to ask instead."""

    def __init__(self, location: str) -> None:
        super().__init__(location)
        self.location = location


class HttpsPublishers:
    """Keeps the promises of `ports.BundlePublishers`."""

    def __init__(self, prove: Prove, *, resolve: Resolve = resolve, allows: Callable[[str], bool] = is_public) -> None:
        """Take what proves SPIFFE IDs, and what a test replaces: how names are found, which addresses are public."""
        self._prove = prove
        self._resolve = resolve
        self._allows = allows
        self._gate = asyncio.Semaphore(FETCHES_MAX)

    async def fetch(
        self, url: str, *, private: bool, ca_pem: str | None = None, expected: Expected | None = None
    ) -> bytes:
        """Return what a publisher shows now, unread. See the port for what it raises."""
        trust = await asyncio.to_thread(_trust, ca_pem, expected)
        try:
            async with self._gate, asyncio.timeout(FETCH_SEC):
                for _ in range(REDIRECTS_MAX + 1):
                    try:
                        return await self._ask(parse_bundle_url(url), private, trust)
                    except _Redirect as redirect:
                        url = _joined(url, redirect.location)
        except TimeoutError as fault:
            raise _failed(f"it took longer than {FETCH_SEC:g} s", fault) from fault
        raise _refused(f"it redirects more than {REDIRECTS_MAX} times")

    async def _ask(self, place: Place, private: bool, trust: _Trust) -> bytes:
        try:
            streams = await self._connected(place, private, trust)
        except ssl.SSLCertVerificationError as fault:
            raise UntrustedPeer(
                f"The publisher cannot prove who it is: {fault.verify_message}.", fix=_FIX_TRUST
            ) from fault
        except (OSError, UnicodeError) as fault:
            raise _failed("it cannot be reached, or ends the TLS session", fault) from fault
        try:
            if trust.expected is not None:
                self._check(streams[1], trust.expected)
            # An address of version 6 stands in brackets, and a port that is not the usual one beside the name.
            host = f"[{place.host}]" if ":" in place.host else place.host
            return await exchange(
                streams, host if place.port == 443 else f"{host}:{place.port}", place.target,
                bytes_max=BUNDLE_BYTES_MAX, check=_check_head, too_large=_too_large, accept="application/json",
            )  # fmt: skip
        except (OSError, h11.RemoteProtocolError, EOFError) as fault:
            raise _failed("the answer broke off", fault) from fault
        finally:
            streams[1].transport.abort()

    async def _connected(self, place: Place, private: bool, trust: _Trust) -> Streams:
        last: OSError | None = None
        for address in await self._addresses(place, private):
            try:
                async with asyncio.timeout(CONNECT_SEC):
                    return await asyncio.open_connection(
                        address, place.port, ssl=trust.tls, server_hostname=place.host
                    )
            except ssl.SSLCertVerificationError:
                raise
            except TimeoutError as fault:
                last = OSError(f"{address} did not answer for {CONNECT_SEC:g} s: {fault}")
            except OSError as fault:
                last = fault
        raise last or OSError("the name has no address")

    async def _addresses(self, place: Place, private: bool) -> Sequence[str]:
        addresses = list(dict.fromkeys(await self._resolve(place.host)))
        if not all(self._allows(address) or (private and is_near(address)) for address in addresses):
            raise _refused("its address is not public")
        return addresses[:_ADDRESSES_TRIED_MAX]

    def _check(self, writer: asyncio.StreamWriter, expected: Expected) -> None:
        identity, bundle = expected
        found = self._prove(bundle, writer.get_extra_info("ssl_object")).spiffe_id
        if found != identity:
            raise UntrustedPeer(f"The publisher is {found}, not {identity}.", fix=_FIX_TRUST)


_FIX_TRUST = "Ask whoever runs that trust domain how its bundle endpoint proves itself, then add the federation again."


def _trust(ca_pem: str | None, expected: Expected | None) -> _Trust:
    if ca_pem is None and expected is None:
        return _Trust(ssl.create_default_context(), None)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    anchors: str | bytes = ca_pem or ""
    if expected is not None:
        # Known by its SPIFFE ID, which is looked at once TLS stands; the name in the URL proves nothing.
        context.check_hostname = False
        anchors = b"".join(expected[1].x509_authorities)
    try:
        context.load_verify_locations(cadata=anchors)
    except (ssl.SSLError, ValueError, TypeError) as fault:
        if expected is not None:
            raise UntrustedPeer("The bundle that should prove the publisher holds no authority.", fix=_FIX_TRUST) from fault
        raise InvalidRequest(
            "The file of authorities cannot be read.",
            code="invalid_federation",
            field="ca_pem",
            fix="Hand over one or more PEM certificates.",
        ) from fault
    return _Trust(context, expected)


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        # No reader agrees about what this is; judging it says so.
        return location


def _check_head(answer: h11.Response) -> None:
    headers = {name: value for name, value in answer.headers}  # noqa: C416 - h11 gives its own kind of sequence
    if answer.status_code in (302, 303, 307):
        raise _Redirect(headers.get(b"location", b"").decode("latin-1"))
    if 300 <= answer.status_code < 400:
        raise _refused("it has moved for good, and only its owner may follow")
    if answer.status_code != 200:
        raise _failed(f"it answered {answer.status_code}", None)
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise _failed("it sends the bundle packed", None)
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and int(length[:20]) > BUNDLE_BYTES_MAX:
        raise _too_large()


def _too_large() -> TooLarge:
    return TooLarge(f"The publisher shows more than {BUNDLE_BYTES_MAX} bytes.", code="bundle_too_large")


def _refused(cause: str) -> NotAllowed:
    return NotAllowed(
        f"The publisher of the bundle is not asked: {cause}.",
        code="bundle_url_refused",
        field="url",
        fix="Name the address that really serves it; --private allows this machine and private networks.",
    )


def _failed(cause: str, fault: BaseException | None) -> Unavailable:
    return Unavailable(
        f"The bundle could not be fetched: {cause}.", code="bundle_fetch_failed", detail=str(fault) if fault else None
    )
