"""What a worker says of itself, held against its signature and against what its node's enrolment allows."""

from collections.abc import Sequence
from dataclasses import replace

from crank.controller.desk import Desk
from crank.domain.identity import SpiffeId
from crank.domain.ids import LOCAL_TENANT, WorkerId
from crank.domain.job import Refusal
from crank.domain.json import JsonObject
from crank.domain.rules import enrolment as rules
from crank.domain.trust import Attestation, Peer
from crank.domain.worker import KnownWorker
from crank.errors import NotAllowed
from crank.ports import Transaction
from crank.wire import MANIFEST_SINCE, Hello


async def check_certificate(desk: Desk, hello: Hello, peer: SpiffeId, shown: Peer | None) -> None:
    """Let a worker pass that the certificate speaks for. Raises NotAllowed (`identity_mismatch`), and leaves a record of it."""
    refused = rules.worker_refusal(
        peer,
        shown,
        trust_domain=desk.policy.trust_domain,
        worker_id=hello.worker_id,
        instances=_instances(desk, hello) if hello.renews else None,
    )
    if refused is None:
        return
    count = desk.keyring.refusals_to_record(str(peer), "worker.enroll", desk.clock.monotonic_sec())
    if count:
        said = None if shown is None else shown.workload
        facts: JsonObject = {
            "asked_for": hello.worker_id[:128],
            "instance": hello.instance_id[:64],
            "issued_to": None if said is None else f"{said.kind} {said.instance_id}",
            "count": count,
        }
        record = desk.record("identity.refused", tenant=LOCAL_TENANT, subject=str(peer), job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))
    raise _fault(refused)


def _instances(desk: Desk, hello: Hello) -> set[str]:
    """Return to whom the certificate of a link that takes over may have been issued.

    What a program gets while it is connected is issued to it; what it got just before, to whom its first one was.
    """
    older = desk.roster.find(WorkerId(hello.worker_id))
    first = None if older is None or older.peer is None else older.peer.workload
    return {hello.instance_id} if first is None else {hello.instance_id, first.instance_id}


async def check_signed(desk: Desk, hello: Hello, peer: SpiffeId, version: int) -> None:
    """Let a worker pass that signed what it offers, or never could: whoever signed once is not of an old version.

    Raises NotAllowed (`manifest_not_believed`), and leaves a record of it.
    """
    if hello.manifest is not None:
        return
    may_be_old = version < MANIFEST_SINCE and hello.node_id == desk.policy.node_id
    if may_be_old and not await desk.store.read(lambda tx: tx.registry.has_signed(WorkerId(hello.worker_id))):
        return
    count = desk.keyring.refusals_to_record(str(peer), "worker.unsigned", desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"instance": hello.instance_id[:64], "version": version, "count": count}
        record = desk.record("manifest.refused", tenant=LOCAL_TENANT, subject=str(peer), job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))
    raise _not_believed("The worker did not sign what it offers.")


def signed_offer(desk: Desk, hello: Hello, peer: Peer | None) -> Sequence[JsonObject]:
    """Return the documents of what the worker offers: those that it signed with the key that it proved.

    Raises NotAllowed (`manifest_not_believed`), TooLarge.
    """
    if hello.manifest is None:
        # It was started before this controller was renewed; its certificate alone speaks for it (`check_signed`).
        return hello.capabilities
    if hello.capabilities or desk.appraiser is None:
        raise _not_believed("What the worker offers comes in its manifest alone.")
    manifest, signer = desk.appraiser.read_manifest(hello.manifest)
    if peer is None or signer != peer.jkt:
        raise _not_believed("The worker's manifest was not signed with the key of its certificate.")
    refused = rules.manifest_refusal(
        manifest,
        worker_id=hello.worker_id,
        instance_id=hello.instance_id,
        node_id=hello.node_id,
        now_sec=desk.clock.now_us() / 1_000_000,
    )
    if refused is not None:
        raise _fault(refused)
    if not desk.manifests.take(manifest.manifest_id, desk.clock.monotonic_sec()):
        raise _not_believed("This manifest was shown before.")
    return manifest.capabilities


def _not_believed(message: str) -> NotAllowed:
    return NotAllowed(
        message,
        code="manifest_not_believed",
        field="manifest",
        fix="Start the worker anew; if it stays so, renew Crank on its machine, or join that machine again.",
    )


def enrolled_as(desk: Desk, tx: Transaction, known: KnownWorker, peer: Peer | None) -> KnownWorker:
    """Return the worker as its node is enrolled. Raises NotAllowed (`node_not_enrolled`, `capability_not_enrolled`)."""
    enrolment = tx.enrolments.of_worker(known.worker_id)
    refused = rules.place_refusal(enrolment, known.node_id, desk.policy.node_id)
    refused = refused or rules.offer_refusal(enrolment, known.capabilities)
    if refused is not None:
        raise _fault(refused)
    attested = Attestation.NONE if enrolment is None else enrolment.attestation
    # What its certificate says was true when that was issued; one without the extension was issued before there was one.
    workload = None if peer is None else peer.workload
    return replace(known, attestation=attested if workload is None else workload.attestation)


def _fault(refused: Refusal) -> NotAllowed:
    return NotAllowed(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
