"""SPIFFE's Workload API: five calls, each for the process that the kernel says it is."""

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any
from weakref import WeakKeyDictionary

from google.protobuf.struct_pb2 import Struct
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream

from crank.api.spiffe.messages import workload_pb2 as messages
from crank.api.spiffe.seat import Seat
from crank.api.spiffe.speech import Octets, hear_one, say, told
from crank.controller.svids import Picture
from crank.domain.json import JsonValue, dumps
from crank.domain.trust import TrustBundle

SERVICE = "SpiffeWorkloadAPI"
# What a browser, or a proxy that was talked into a request, would not send (Workload Endpoint standard, section 6).
HEADER = "workload.spiffe.io"
_SEEN: WeakKeyDictionary[Picture, Octets] = WeakKeyDictionary()


class WorkloadApi:
    """The service, for one connection."""

    def __init__(self, seat: Seat) -> None:
        self._seat = seat

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by their paths, as grpclib asks."""
        one, many = Cardinality.UNARY_UNARY, Cardinality.UNARY_STREAM
        calls = {
            "FetchX509SVID": (self.fetch_x509_svid, many, messages.X509SVIDRequest, messages.X509SVIDResponse),
            "FetchX509Bundles": (self.fetch_x509_bundles, many, messages.X509BundlesRequest, messages.X509BundlesResponse),
            "FetchJWTSVID": (self.fetch_jwt_svid, one, messages.JWTSVIDRequest, messages.JWTSVIDResponse),
            "FetchJWTBundles": (self.fetch_jwt_bundles, many, messages.JWTBundlesRequest, messages.JWTBundlesResponse),
            "ValidateJWTSVID": (
                self.validate_jwt_svid, one, messages.ValidateJWTSVIDRequest, messages.ValidateJWTSVIDResponse,
            ),
        }  # fmt: skip
        return {f"/{SERVICE}/{name}": Handler(*call) for name, call in calls.items()}

    async def fetch_x509_svid(self, stream: Stream[Any, Any]) -> None:
        """Send all certificates and bundles of the caller and what was revoked, and again whenever one of them changed."""
        with told(), self._seat.call():
            await _begin(stream)
            async with aclosing(self._seat.svids.watch(self._seat.marks)) as pictures:
                async for picture in pictures:
                    await say(stream, _written(picture))

    async def fetch_x509_bundles(self, stream: Stream[Any, Any]) -> None:
        """Send the certificates by which others are checked and what was revoked, and again when either changed."""
        with told(), self._seat.call():
            await _begin(stream)
            async with aclosing(self._seat.svids.watch_roots(self._seat.marks)) as changes:
                async for roots in changes:
                    answer = messages.X509BundlesResponse(crl=roots.revoked.all, bundles=_x509(roots.bundles))
                    await say(stream, answer)

    async def fetch_jwt_svid(self, stream: Stream[Any, Any]) -> None:
        """Send a token for each identity of the caller, or for the one that it names."""
        with told(), self._seat.call():
            request = await _begin(stream)
            entries = await self._seat.entries()
            tokens = await self._seat.svids.tokens(entries, list(request.audience), request.spiffe_id)
            svids = [
                messages.JWTSVID(spiffe_id=str(one.entry.spiffe_id), svid=one.token, hint=one.entry.hint)
                for one in tokens
            ]
            await say(stream, messages.JWTSVIDResponse(svids=svids))

    async def fetch_jwt_bundles(self, stream: Stream[Any, Any]) -> None:
        """Send the keys by which tokens are checked, and again when they changed."""
        with told(), self._seat.call():
            await _begin(stream)
            async with aclosing(self._seat.svids.watch_bundles(self._seat.marks)) as changes:
                async for bundles in changes:
                    sets = {_id(name): dumps(jwk_set(bundle)).encode() for name, bundle in bundles.items()}
                    await say(stream, messages.JWTBundlesResponse(bundles=sets))

    async def validate_jwt_svid(self, stream: Stream[Any, Any]) -> None:
        """Check a token that somebody showed to the caller, and send its claims."""
        with told(), self._seat.call():
            request = await _begin(stream)
            entries = await self._seat.entries()
            spiffe_id, claims = self._seat.svids.check_token(entries, request.svid, request.audience)
            document = Struct()
            document.update(claims)
            await say(stream, messages.ValidateJWTSVIDResponse(spiffe_id=str(spiffe_id), claims=document))


async def _begin(stream: Stream[Any, Any]) -> Any:
    """Return the request of a call that carries the mandatory header. Raises GRPCError (InvalidArgument)."""
    if stream.metadata is None or stream.metadata.getall(HEADER, []) != ["true"]:
        raise GRPCError(Status.INVALID_ARGUMENT, f"Every request carries the metadata '{HEADER}: true'.")
    return await hear_one(stream)


def _written(picture: Picture) -> Octets:
    """Return the message of a picture, written once for all who are sent it."""
    octets = _SEEN.get(picture)
    if octets is None:
        own = _x509(picture.bundles)
        svids = [
            messages.X509SVID(
                spiffe_id=str(held.entry.spiffe_id),
                x509_svid=b"".join(held.svid.chain),
                x509_svid_key=held.private_key,
                bundle=own[_id(held.entry.spiffe_id.trust_domain)],
                hint=held.entry.hint,
            )
            for held in picture.svids
        ]
        domain = picture.svids[0].entry.spiffe_id.trust_domain
        foreign = {name: bundle for name, bundle in own.items() if name != _id(domain)}
        message = messages.X509SVIDResponse(svids=svids, crl=picture.revoked.all, federated_bundles=foreign)
        octets = _SEEN[picture] = message.SerializeToString(deterministic=True)
    return octets


def _x509(bundles: Mapping[str, TrustBundle]) -> dict[str, bytes]:
    return {_id(name): b"".join(bundle.x509_authorities) for name, bundle in bundles.items()}


def _id(trust_domain: str) -> str:
    return f"spiffe://{trust_domain}"


def jwk_set(bundle: TrustBundle) -> JsonValue:
    """Return the JWK Set of a bundle's keys for tokens, and of nothing else."""
    return {"keys": [{**one.jwk, "kid": one.kid, "use": "jwt-svid"} for one in bundle.jwt_authorities]}
