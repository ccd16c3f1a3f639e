"""Join: a node proves itself, by a token or by its certificate, and gets its identities.

Steps, marked again in the code:
 1. count the try: each source has few
 2. check every signature of the evidence; what is damaged learns that it is, whatever the token
 3. in one transaction: find the enrolment, decide (pure), use the token up, record
 4. issue both identities, after the commit: whoever lost the answer sends the same keys again
Whatever is refused in step 3 is refused in the same words.
"""

import hashlib
from dataclasses import dataclass, replace

from crank.controller.desk import Desk
from crank.controller.issue import IdentityWanted, authority_of, issue
from crank.controller.keys import hash_of
from crank.controller.nodes import facts_of, roots_of
from crank.domain.enrolment import Enrolment, Evidence
from crank.domain.identity import make_spiffe_id
from crank.domain.ids import LOCAL_TENANT, Digest, InstanceId
from crank.domain.json import JsonObject, canonical
from crank.domain.rules import enrolment as rules
from crank.domain.trust import Attestation, Svid, TrustBundle, Workload
from crank.errors import InvalidRequest, NotAllowed, Unavailable
from crank.ports import Appraiser, Transaction

TOKEN_CHARS_MAX = 256
MACHINE_BYTES_MAX = 4096
_MACHINE_TEXT_CHARS_MAX = 256


@dataclass(frozen=True, slots=True)
class Joined:
    """What a node is answered: the attestation result, its identities, and by what it checks its peers."""

    enrolment: Enrolment
    node: Svid
    worker: Svid
    bundle: TrustBundle


async def join(desk: Desk, *, source: str, token: str | None, signed: str) -> Joined:
    """Let a node in, by its token or (None) by its certificate.

    source  the address that it calls from
    Raises Unavailable (`join_too_often`), InvalidRequest (`invalid_evidence`), NotAllowed (`join_refused`).
    """
    desk.arrivals.admit(source, desk.clock.monotonic_sec())  # 1
    evidence = _appraiser_of(desk).read_evidence(signed)  # 2
    _check_machine(evidence.machine)
    keys = _digest_of_keys(evidence)

    def commit(tx: Transaction) -> Enrolment | None:  # 3
        found = _admitted(desk, tx, token, evidence, keys)
        if found is None:
            return None
        joined = _as_joined(found, evidence, keys, desk.clock.now_us(), by_token=token is not None)
        tx.enrolments.update(joined)
        facts: JsonObject = {
            **facts_of(joined), "attestation": joined.attestation.label, "keys": keys,
            "thumbprint": evidence.thumbprint, "source": source[:64], "again": found.keys == keys,
        }  # fmt: skip
        record = desk.record("node.joined", tenant=LOCAL_TENANT, subject=joined.node_id, job_id=None, facts=facts)
        tx.records.append(record)
        return joined

    joined = await desk.store.transact(commit)
    desk.failpoints.reach("join.committed")
    if joined is None:
        await _record_refusal(desk, source)
        raise _refused()
    return await _issue(desk, joined, evidence)  # 4


def _appraiser_of(desk: Desk) -> Appraiser:
    if desk.appraiser is None:
        raise Unavailable("This controller checks no evidence.", code="no_authority")
    return desk.appraiser


def _admitted(desk: Desk, tx: Transaction, token: str | None, evidence: Evidence, keys: Digest) -> Enrolment | None:
    if not set(evidence.audience) & set(roots_of(authority_of(desk))):
        # Made for the controller of another trust domain, which may have passed it on.
        return None
    if token is None:
        found = tx.enrolments.by_thumbprint(evidence.thumbprint)
        return found if rules.may_return(found, evidence.thumbprint) else None
    found = tx.enrolments.by_token(hash_of(token))
    if not rules.may_join(found, keys, desk.clock.now_us()):
        return None
    if found is not None and found.pins:
        other = tx.enrolments.by_thumbprint(evidence.thumbprint)
        if other is not None and other.node_id != found.node_id:
            return None
    return found


def _as_joined(found: Enrolment, evidence: Evidence, keys: Digest, now_us: int, *, by_token: bool) -> Enrolment:
    return replace(
        found,
        attestation=Attestation.JOIN if by_token else Attestation.THUMBPRINT,
        keys=keys,
        joined_us=now_us,
        machine=evidence.machine,
        thumbprint=evidence.thumbprint if found.pins else found.thumbprint,
    )


def _refused() -> NotAllowed:
    """Return the one refusal for a token or certificate that is unknown, expired, used or withdrawn."""
    return NotAllowed(
        "This node may not join.",
        code="join_refused",
        fix="Ask the controller's owner for a new invite: crank node invite. Each is good once, for a short time.",
    )


async def _record_refusal(desk: Desk, source: str) -> None:
    count = desk.arrivals.refusals_to_record(desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"source": source[:64], "count": count}
        controller = desk.policy.controller_id
        record = desk.record("node.join_refused", tenant=LOCAL_TENANT, subject=controller, job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))


def _check_machine(machine: JsonObject) -> None:
    """Take facts of a machine that are flat and short, or nothing. Raises InvalidRequest."""
    short = all(
        isinstance(value, int | float | bool) or (isinstance(value, str) and len(value) <= _MACHINE_TEXT_CHARS_MAX)
        for value in machine.values()
    )
    if not short or len(canonical(machine)) > MACHINE_BYTES_MAX:
        raise InvalidRequest(
            "What the evidence says of the machine is too much, or not flat.", code="invalid_evidence", field="evidence"
        )


def _digest_of_keys(evidence: Evidence) -> Digest:
    return Digest(hashlib.sha256(evidence.node_key + evidence.worker_key).hexdigest())


async def _issue(desk: Desk, enrolment: Enrolment, evidence: Evidence) -> Joined:
    async def svid(kind: str, name: str, key: bytes) -> Svid:
        workload = Workload(kind, InstanceId(desk.ids.uuid7()), enrolment.attestation)
        spiffe_id = make_spiffe_id(desk.policy.trust_domain, kind, name)
        return await issue(
            desk, IdentityWanted(spiffe_id, workload, key, node=enrolment.node_id, asked_by=enrolment.node_id)
        )

    node = await svid("node", enrolment.node_id, evidence.node_key)
    worker = await svid("worker", enrolment.worker_id, evidence.worker_key)
    return Joined(enrolment, node, worker, authority_of(desk).bundle())
