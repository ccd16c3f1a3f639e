"""Whether an identity may still be believed: TLS proved it once, expiry and revocation may come after."""

from collections.abc import Collection

from crank.domain.identity import SpiffeId
from crank.domain.job import Refusal
from crank.domain.trust import Peer

IDENTITY_REVOKED = "identity_revoked"
IDENTITY_EXPIRED = "identity_expired"
# What a worker makes of a controller that hangs up on its certificate without a word.
IDENTITY_NOT_ACCEPTED = "identity_not_accepted"


def refusal(peer: Peer, *, banned: Collection[SpiffeId], revoked: Collection[str], now_us: int) -> Refusal | None:
    """Return why this peer is not to be believed any more, or None.

    banned   SPIFFE IDs that are revoked as a whole
    revoked  serials of revoked certificates
    """
    if peer.spiffe_id in banned:
        return banned_refusal(peer.spiffe_id)
    if any(serial in revoked for serial in peer.serials):
        return revoked_refusal(peer.spiffe_id, peer.serials[0])
    if now_us >= peer.not_after_us:
        return Refusal(
            IDENTITY_EXPIRED,
            f"The certificate of {peer.spiffe_id} has expired since the connection began.",
            "Renew it, and compare the clocks of both machines: 'timedatectl' shows whether one is wrong.",
            "not_after",
        )
    return None


def revoked_refusal(spiffe_id: SpiffeId, serial: str) -> Refusal:
    """Return what is told whoever shows a certificate that was revoked alone."""
    return Refusal(
        IDENTITY_REVOKED,
        f"The certificate {serial} of {spiffe_id} was revoked.",
        "Start it with a certificate that was issued since; 'crank identity list' shows them.",
        "serial",
    )


def banned_refusal(spiffe_id: SpiffeId) -> Refusal:
    """Return what a revoked SPIFFE ID is told, whatever it asks for."""
    return Refusal(
        IDENTITY_REVOKED,
        f"The identity {spiffe_id} was revoked by the owner of the node.",
        f"If that was a mistake, its owner lifts it: crank identity allow {spiffe_id}",
        "spiffe_id",
    )


def is_due(not_before_us: int, not_after_us: int, now_us: int, chance: float) -> bool:
    """Tell whether a certificate is to be renewed: about half of its life is over.

    chance  from 0 to 1, one for each certificate: spreads the moment by a tenth of its life, so that
            many that were issued at once do not all return at once
    """
    life_us = not_after_us - not_before_us
    return now_us - not_before_us >= life_us * (0.45 + 0.1 * chance)
