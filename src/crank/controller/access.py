"""Access: who a secret belongs to, and whether they may do what is the owner's."""

import contextlib
from dataclasses import replace
from typing import NoReturn

from crank.controller.desk import Desk
from crank.controller.narrowed import may
from crank.controller.scope import unknown
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant import NODE_PREFIX
from crank.domain.ids import LOCAL_TENANT, CredentialId, Digest, JobId
from crank.domain.json import JsonObject
from crank.domain.rules import access
from crank.errors import CrankError, InvalidRequest, NotAllowed
from crank.ports import Transaction

# The use of a credential is noted once in so long, so that a request seldom pays for it.
USED_EVERY_US = 60_000_000


async def authenticate(desk: Desk, secret_sha256: Digest, kinds: frozenset[CredentialKind]) -> Credential:
    """Return the living credential with this secret, of one of these kinds. Raises NotAuthenticated, always the same."""
    found = await desk.store.read(lambda tx: tx.credentials.by_secret(secret_sha256))
    now_us = desk.clock.now_us()
    if found is None or found.kind not in kinds or not access.lives(found, now_us):
        raise unknown()
    if found.used_us is None or now_us - found.used_us >= USED_EVERY_US:
        # A full disk must not shut the door: the note is a courtesy.
        with contextlib.suppress(CrankError):
            await desk.store.transact(lambda tx: _note_use(tx, found, now_us))
    return found


def _note_use(tx: Transaction, credential: Credential, now_us: int) -> None:
    current = tx.credentials.find(credential.tenant, credential.credential_id)
    if current is not None:
        tx.credentials.update(replace(current, used_us=now_us))


async def authorise(desk: Desk, action: access.Action) -> None:
    """Let the owner, the node itself, and a token that names the action pass. Raises NotAllowed (`owner_only`) and leaves a record of it."""
    asker = desk.asker
    if desk.grant is not None and may(desk.grant, action):
        return
    refused = None if asker is None else access.refusal(asker, action)
    if asker is None or refused is None:
        return
    count = desk.keyring.refusals_to_record(asker.credential_id, str(action), desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"action": str(action), "key": asker.credential_id, "count": count}
        record = desk.record("access.refused", tenant=asker.tenant, subject=asker.subject, job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))
    if desk.grant is not None:
        raise NotAllowed(
            f"This is for the owner of the node, and this token does not name {NODE_PREFIX}{action}.",
            code=refused.code,
            fix="Ask the node's owner for a token that names it; '*' does not.",
        )
    raise NotAllowed(refused.message, code=refused.code, fix=refused.fix)


async def refuse_workload(desk: Desk, identity: str, asked: str) -> NoReturn:
    """Refuse a workload that proves who it is and shows no token. Raises NotAllowed, and leaves a record of it."""
    count = desk.keyring.refusals_to_record(CredentialId(identity), "no_token", desk.clock.monotonic_sec())
    if count:
        facts: JsonObject = {"action": "no_token", "method": asked, "count": count}
        record = desk.record("access.refused", tenant=LOCAL_TENANT, subject=identity, job_id=None, facts=facts)
        await desk.store.transact(lambda tx: tx.records.append(record))
    raise NotAllowed(
        f"The identity {identity} may do nothing here by itself.",
        code="identity_without_token",
        fix="Send a token beside the certificate, or a key; 'crank token mint' makes one.",
    )


def check_job_id(desk: Desk, job_id: JobId | None) -> None:
    """Refuse a job id outside of the caller's space. Raises InvalidRequest (`job_id_not_yours`)."""
    if desk.asker is None or job_id is None:
        return
    refused = access.job_id_refusal(desk.asker, job_id)
    if refused is not None:
        raise InvalidRequest(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)


async def may_use_blob(desk: Desk, digest: Digest) -> bool:
    """Tell whether the caller brought this blob or a job of theirs uses it; the owner may use every one."""
    asker = desk.asker
    if asker is None or not asker.bounded:
        return True
    return await desk.store.read(lambda tx: tx.credentials.holds(asker.credential_id, digest))
