"""Which key a request proves: by a DPoP proof in a header, or by the certificate of its connection."""

import base64
from dataclasses import dataclass

from starlette.requests import Request

from crank.api.address import asked_url
from crank.api.server import PEER_SESSION
from crank.controller.desk import Desk
from crank.controller.present import token_desk
from crank.domain.chain import point_of_jwk
from crank.domain.job import Refusal
from crank.domain.json import loads_strict
from crank.domain.rules.token import Proven, read_proof
from crank.domain.trust import Attestation, Peer
from crank.errors import NotAuthenticated

PROOF_HEADER = "dpop"


@dataclass(frozen=True, slots=True)
class Holder:
    """What a request proves of who sends it.

    jkt       thumbprint of the key; None: it proves none
    peer      SPIFFE ID of the connection's certificate, where one was shown; with no proof beside, that proves the key
    proof     what proves it otherwise; it has to be counted (`count`) once the token beside it was believed
    key       the key itself as a compressed point
    level     how well that certificate says that its holder was attested
    """

    jkt: str | None
    peer: str | None = None
    proof: Proven | None = None
    key: bytes | None = None
    level: Attestation | None = None


def proven(desk: Desk, request: Request, *, shown: str | None) -> Holder:
    """Return the key that a request proves, by a proof made for the token `shown` beside it. It is not counted yet.

    A certificate that was shown has to hold, whatever proves the key.
    Raises NotAuthenticated (`invalid_dpop_proof`), and as `peer_of`.
    """
    tokens = token_desk(desk)
    peer = peer_of(desk, request)
    proofs = request.headers.getlist(PROOF_HEADER)
    if not proofs:
        return Holder(None) if peer is None else Holder(peer.jkt, str(peer.spiffe_id), None, peer.key, level_of(desk, peer))
    if len(proofs) > 1:
        raise _unproven("A request carries one DPoP header.")
    claims, jkt = tokens.proofs.read(proofs[0])
    now_us = desk.clock.now_us()
    found = read_proof(claims, jkt, method=request.method, url=asked_url(request), token=shown, now_us=now_us)
    if isinstance(found, Refusal):
        raise NotAuthenticated(found.message, code=found.code, fix=found.fix)
    key = _key_of(proofs[0])
    return Holder(found.jkt, None if peer is None else str(peer.spiffe_id), found, key, level_of(desk, peer))


def level_of(desk: Desk, peer: Peer | None) -> Attestation | None:
    """Return how well a certificate says that its holder was attested: none, where another domain than ours says it."""
    if peer is None:
        return None
    ours = peer.spiffe_id.trust_domain == desk.policy.trust_domain
    return peer.workload.attestation if ours and peer.workload is not None else Attestation.NONE


def _key_of(proof: str) -> bytes | None:
    # Read by its signature already; only its key is wanted, once more.
    head = proof.partition(".")[0]
    header = loads_strict(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    return point_of_jwk(header["jwk"])


def count(desk: Desk, holder: Holder) -> None:
    """Let the proof of a request count, this once. Whoever is not known by then fills no memory with theirs.

    Raises NotAuthenticated (`invalid_dpop_proof`: it was used before), Unavailable (`too_many_proofs`).
    """
    if holder.proof is not None:
        token_desk(desk).seen.take(holder.proof, desk.clock.now_us())


def peer_of(desk: Desk, request: Request) -> Peer | None:
    """Return who the connection's certificate proves that asks, as things stand now; None where none was shown.

    Raises UntrustedPeer, NotAllowed (`identity_revoked`, `identity_expired`).
    """
    session = getattr(request.state, PEER_SESSION, None)
    identify = token_desk(desk).identify
    if session is None or identify is None or session.getpeercert(binary_form=True) is None:
        return None
    peer = identify(session)
    desk.standing.check(peer, desk.clock.now_us())
    return peer


def _unproven(cause: str) -> NotAuthenticated:
    return NotAuthenticated(cause, code="invalid_dpop_proof", fix="Send a fresh DPoP proof (RFC 9449).")
