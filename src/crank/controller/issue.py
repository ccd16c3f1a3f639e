"""Issue: the one way to a certificate, whoever asks: a renewal, a node that joins, a workload, the node's own worker.

Steps, marked again in the code:
 1. check that the SPIFFE ID is not revoked
 2. let the authority issue
 3. in one transaction: check again, note what was issued, record it
Whether this asker may have this identity is decided before; a certificate that step 3 refuses leaves nobody's hands.
"""

from dataclasses import dataclass, field

from crank.controller.desk import Desk
from crank.domain.identity import SpiffeId
from crank.domain.ids import LOCAL_TENANT
from crank.domain.issued import IssuedIdentity
from crank.domain.json import JsonObject
from crank.domain.rules.standing import banned_refusal, revoked_refusal
from crank.domain.trust import Svid, Workload
from crank.domain.workload import WorkloadEntry
from crank.errors import NotAllowed, Unavailable
from crank.ports import Authority, Transaction

PURGE_AFTER_US = 86_400 * 1_000_000


@dataclass(frozen=True, slots=True)
class IdentityWanted:
    """What is to be issued.

    public_key  P-256, DER SubjectPublicKeyInfo; whoever asks has proved that the private key is theirs
    node        id of the node that it will live on, where one is known
    asked_by    who asked, for the record: a SPIFFE ID or a word such as `local`
    hosts       DNS names and addresses that it may serve under
    ttl_sec     at most this long; None: as long as the operator chose
    by          serial of the certificate on whose word it is issued, which must not have been taken back; None: on no such
    entry       the registration on which it is issued, which must still stand; None: on none
    """

    spiffe_id: SpiffeId
    workload: Workload
    public_key: bytes = field(repr=False)
    node: str | None
    asked_by: str
    hosts: tuple[str, ...] = ()
    ttl_sec: float | None = None
    by: str | None = None
    entry: WorkloadEntry | None = None


def authority_of(desk: Desk) -> Authority:
    """Return the authority. Raises Unavailable where this desk has none."""
    if desk.authority is None:
        raise Unavailable("This node issues no identities.", code="no_authority")
    return desk.authority


async def issue(desk: Desk, wanted: IdentityWanted) -> Svid:
    """Issue a certificate.

    Raises NotAllowed (`identity_revoked`, `no_identity`), InvalidRequest (`invalid_key`), Unavailable.
    """
    if desk.standing.is_banned(wanted.spiffe_id):  # 1
        raise _banned(wanted.spiffe_id)
    svid = authority_of(desk).issue(  # 2
        wanted.spiffe_id, wanted.workload, wanted.public_key, hosts=wanted.hosts, ttl_sec=wanted.ttl_sec
    )
    await desk.store.transact(lambda tx: _note(desk, tx, wanted, svid))  # 3
    desk.tally.issued[wanted.workload.kind] += 1
    return svid


async def note_issued(desk: Desk, svid: Svid, *, node: str | None, asked_by: str) -> bool:
    """Note a certificate that the authority put into a folder of this machine; tell whether it was not noted yet.

    Raises NotAllowed (`identity_revoked`), Unavailable.
    """
    if await desk.store.read(lambda tx: tx.identities.find(svid.serial)) is not None:
        return False
    wanted = IdentityWanted(svid.spiffe_id, svid.workload, b"", node=node, asked_by=asked_by)
    await desk.store.transact(lambda tx: _note(desk, tx, wanted, svid))
    desk.tally.issued[svid.workload.kind] += 1
    return True


def _banned(spiffe_id: SpiffeId) -> NotAllowed:
    refused = banned_refusal(spiffe_id)
    return NotAllowed(refused.message, code=refused.code, fix=refused.fix)


def _note(desk: Desk, tx: Transaction, wanted: IdentityWanted, svid: Svid) -> None:
    if tx.identities.is_banned(wanted.spiffe_id):
        raise _banned(wanted.spiffe_id)
    before = None if wanted.by is None else tx.identities.find(wanted.by)
    if before is not None and before.revoked_us is not None:
        refused = revoked_refusal(wanted.spiffe_id, before.serial)
        raise NotAllowed(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
    entry = wanted.entry
    if entry is not None and tx.workloads.find(entry.tenant, entry.entry_id) != entry:
        raise NotAllowed(f"{wanted.spiffe_id} was removed just now.", code="no_identity")
    workload, now_us = wanted.workload, desk.clock.now_us()
    tx.identities.purge(now_us - PURGE_AFTER_US)
    tx.identities.insert(
        IssuedIdentity(
            serial=svid.serial,
            spiffe_id=wanted.spiffe_id,
            kind=workload.kind,
            instance_id=workload.instance_id,
            attestation=workload.attestation,
            node=wanted.node,
            issued_us=now_us,
            not_after_us=svid.not_after_us,
            workload=None if entry is None else entry.entry_id,
        )
    )
    facts: JsonObject = {
        "spiffe_id": str(wanted.spiffe_id),
        "serial": svid.serial,
        "instance": workload.instance_id,
        "attestation": workload.attestation.label,
        "expires_us": svid.not_after_us,
    }
    tx.records.append(
        desk.record("identity.issued", tenant=LOCAL_TENANT, subject=wanted.asked_by, job_id=None, facts=facts)
    )
