"""Renew: a peer whose certificate still holds gets the next one, for itself and for nobody else.

Steps, marked again in the code:
 1. check that the peer is believed still, whose request may have taken its time, and that it names its own SPIFFE ID
 2. check that it does not come too often
 3. find what was issued before: how it was attested is carried over, never raised
 4. find the instance: the one that its link enrolled, else the one before
 5. issue, and say when the next renewal is due
"""

from dataclasses import dataclass

from crank.controller.desk import Desk
from crank.controller.issue import IdentityWanted, authority_of, issue
from crank.controller.pace import too_often
from crank.domain.ids import LOCAL_TENANT, InstanceId, WorkerId
from crank.domain.issued import CertificateRequest, IssuedIdentity
from crank.domain.json import JsonObject
from crank.domain.trust import Peer, Svid, TrustBundle, Workload
from crank.errors import CrankError, NotAllowed

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Renewed:
    """A new certificate, what peers are checked by, and when to come again: seconds from now, whatever the clocks say."""

    svid: Svid
    bundle: TrustBundle
    renew_in_sec: float
    expires_in_sec: float


async def renew(desk: Desk, *, peer: Peer, request: CertificateRequest) -> Renewed:
    """Issue the peer's next certificate. The key may be another, or the same: tokens are bound to it.

    Raises NotAllowed (`identity_mismatch`, `identity_unknown`, `identity_revoked`), Unavailable (`renewed_too_often`).
    """
    try:
        renewed = await _renew(desk, peer, request)
    except CrankError as fault:
        desk.tally.renewals[fault.error_code] += 1
        raise
    desk.tally.renewals["renewed"] += 1
    return renewed


async def _renew(desk: Desk, peer: Peer, request: CertificateRequest) -> Renewed:
    desk.standing.check(peer, desk.clock.now_us())  # 1
    if request.spiffe_id != peer.spiffe_id:
        await _note_mismatch(desk, peer, request)
        raise NotAllowed(
            f"{peer.spiffe_id} may renew its own identity alone.",
            code="identity_mismatch",
            fix="Send a request that names the SPIFFE ID of the certificate that you show.",
        )
    wait_sec = desk.renewal_pace.take(str(peer.spiffe_id), desk.clock.monotonic_sec())  # 2
    if wait_sec is not None:
        raise too_often(wait_sec)
    before = await desk.store.read(lambda tx: tx.identities.find(peer.serials[0]))  # 3
    if before is None or before.spiffe_id != peer.spiffe_id:
        raise NotAllowed(
            f"The certificate {peer.serials[0]} is not among those that this node issued.",
            code="identity_unknown",
            fix="Let the worker join again: crank node invite.",
        )
    workload = Workload(before.kind, _instance(desk, before), before.attestation)  # 4
    wanted = IdentityWanted(
        peer.spiffe_id, workload, request.public_key, node=before.node, asked_by=str(peer.spiffe_id), by=before.serial
    )
    svid = await issue(desk, wanted)  # 5
    left_sec = (svid.not_after_us - desk.clock.now_us()) / _US
    return Renewed(svid, authority_of(desk).bundle(), renew_in_sec=left_sec / 2, expires_in_sec=left_sec)


def _instance(desk: Desk, before: IssuedIdentity) -> InstanceId:
    if before.kind != "worker":
        return before.instance_id
    worker = desk.roster.find(WorkerId(before.spiffe_id.name))
    return before.instance_id if worker is None else worker.known.instance_id


async def _note_mismatch(desk: Desk, peer: Peer, request: CertificateRequest) -> None:
    # One record in a while says as much as thousands.
    count = desk.keyring.refusals_to_record(str(peer.spiffe_id), "identity.renew", desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"asked_for": str(request.spiffe_id), "count": count}
        record = desk.record(
            "identity.refused", tenant=LOCAL_TENANT, subject=str(peer.spiffe_id), job_id=None, facts=facts
        )
        await desk.store.transact(lambda tx: tx.records.append(record))
