"""Keys: the credentials of this node. The owner mints them, says what they may do and which mounts they may name, and revokes them."""

import hashlib
from dataclasses import dataclass, field, replace

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.controller.withdraw import withdraw
from crank.domain.credential import OWNER_SUBJECT, Credential, CredentialKind
from crank.domain.grant import Right
from crank.domain.grant_codec import details_document
from crank.domain.ids import LOCAL_TENANT, Digest, MountId, TenantId, parse_name
from crank.domain.json import JsonObject, JsonValue
from crank.domain.rules import access
from crank.domain.rules.authorization import parse_details
from crank.errors import Conflict, InvalidRequest, NotFound, TooLarge
from crank.ports import Transaction

KEYS_MAX = 1000
MOUNTS_OF_KEY_MAX = 64
EXPIRES_SEC_MIN = 60.0
EXPIRES_SEC_MAX = 10 * 366 * 86_400.0
_OWNER_NAME = "owner"
# Words of the API's own addresses, and how ids begin.
_RESERVED = frozenset({"self", _OWNER_NAME})
_ID_PREFIX = "k-"
_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Minted:
    """A new credential and its secret, which is shown this once and stored nowhere."""

    credential: Credential
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyWanted:
    """What is asked of a new key.

    mounts       names or ids of mounts that it may name
    expires_sec  seconds from now; None: until it is revoked
    details      what it may be used for, as `authorization_details` (RFC 9396); None: everything that one of its kind may
    """

    name: str
    kind: CredentialKind = CredentialKind.API
    mounts: tuple[str, ...] = ()
    expires_sec: float | None = None
    details: JsonValue = None


def hash_of(secret: str) -> Digest:
    """Return what the store knows of a secret. It holds 160 random bits at least, so one plain hash is enough."""
    return Digest(hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest())


async def mint(desk: Desk, *, tenant: TenantId, subject: str, wanted: KeyWanted) -> Minted:
    """Make a key. Raises NotAllowed, InvalidRequest, NotFound (a mount), Conflict (`key_name_taken`), TooLarge."""
    await authorise(desk, access.Action.CHANGE_KEYS)
    _check(wanted)
    rights = _rights(desk, wanted)
    now_us = desk.clock.now_us()
    credential_id = access.make_credential_id(desk.ids.uuid7())
    secret = access.make_secret(wanted.kind, desk.ids.secret())

    def commit(tx: Transaction) -> Credential:
        if sum(access.lives(one, now_us) for one in tx.credentials.all(tenant)) >= KEYS_MAX:
            raise TooLarge(f"There are {KEYS_MAX} keys already.", code="too_many_keys", fix="Revoke some of them.")
        made = Credential(
            credential_id=credential_id,
            tenant=tenant,
            name=wanted.name,
            kind=wanted.kind,
            subject=f"key:{wanted.name}/{credential_id}",
            created_us=now_us,
            mounts=tuple(sorted({_mount(tx, tenant, mount) for mount in wanted.mounts})),
            expires_us=None if wanted.expires_sec is None else now_us + int(wanted.expires_sec * _US),
            rights=rights,
        )
        tx.credentials.insert(made, hash_of(secret))
        may = None if rights is None else details_document(rights)
        facts: JsonObject = {**_facts(made), "kind": str(made.kind), "mounts": list(made.mounts), "rights": may}
        tx.records.append(desk.record("key.minted", tenant=tenant, subject=subject, job_id=None, facts=facts))
        return made

    made = await desk.store.transact(commit)
    desk.keyring.changed()
    return Minted(made, secret)


def _check(wanted: KeyWanted) -> None:
    parse_name(wanted.name, field="name")
    if wanted.name in _RESERVED or wanted.name.startswith(_ID_PREFIX):
        raise InvalidRequest(
            f"The name {wanted.name!r} is the node's own.",
            code="key_name_reserved",
            field="name",
            fix=f"Choose another; none that begins with {_ID_PREFIX!r}.",
        )
    if len(wanted.mounts) > MOUNTS_OF_KEY_MAX:
        raise TooLarge(f"A key may name at most {MOUNTS_OF_KEY_MAX} mounts.", field="mounts")
    if wanted.expires_sec is not None and not EXPIRES_SEC_MIN <= wanted.expires_sec <= EXPIRES_SEC_MAX:
        raise InvalidRequest(
            "A key lasts from a minute to ten years.",
            code="key_lifetime_out_of_range",
            field="expires_sec",
            fix="Choose a time in that range, or leave it out: the key then lasts until it is revoked.",
        )


def _rights(desk: Desk, wanted: KeyWanted) -> tuple[Right, ...] | None:
    if wanted.details is None:
        return None

    def problem(schema: JsonObject) -> str | None:
        found = desk.schemas.check_schema(schema)
        return None if found is None else f"{found.field}: {found.cause}" if found.field else found.cause

    rights = parse_details(wanted.details, problem)
    refused = access.rights_refusal(wanted.kind, rights)
    if refused is not None:
        raise InvalidRequest(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
    return rights


def _mount(tx: Transaction, tenant: TenantId, named: str) -> MountId:
    for mount in tx.registry.mounts(tenant):
        if named in (mount.mount_id, mount.name):
            return mount.mount_id
    raise NotFound(
        f"There is no mount {named[:80]!r}.",
        code="mount_not_found",
        field="mounts",
        fix="Add it first: crank mount add NAME FOLDER.",
    )


def _facts(credential: Credential) -> JsonObject:
    return {"key": credential.credential_id, "name": credential.name}


async def list_keys(desk: Desk, *, tenant: TenantId) -> list[Credential]:
    """Return all credentials, oldest first, revoked ones too. Raises NotAllowed."""
    await authorise(desk, access.Action.LIST_KEYS)
    return await desk.store.read(lambda tx: list(tx.credentials.all(tenant)))


async def own_key(desk: Desk) -> Credential:
    """Return the credential that asks, as it stands now. Raises NotFound when the node itself asks."""
    asker = desk.asker
    if asker is None:
        raise NotFound("The node itself needs no key.", code="key_not_found")
    if desk.grant is not None:
        # What a token is served as; the key behind it is not its holder's to know.
        return asker
    found = await desk.store.read(lambda tx: tx.credentials.find(asker.tenant, asker.credential_id))
    if found is None:
        raise NotFound("There is no such key.", code="key_not_found")
    return found


def _find(tx: Transaction, tenant: TenantId, key: str) -> Credential:
    """Return a credential by its id, or by its name while it is not revoked. Raises NotFound."""
    for credential in tx.credentials.all(tenant):
        if credential.credential_id == key or (credential.name == key and credential.revoked_us is None):
            return credential
    raise NotFound(
        f"There is no key {key[:80]!r}.", code="key_not_found", field="key", fix="'crank key list' shows them."
    )


async def revoke(desk: Desk, *, tenant: TenantId, subject: str, key: str) -> Credential:
    """Revoke a key at once, and end what it has under way; doing it again changes nothing.

    Raises NotAllowed, NotFound, Conflict (`key_is_token_file`: the owner's own is replaced, not revoked).
    """
    await authorise(desk, access.Action.CHANGE_KEYS)

    def commit(tx: Transaction) -> Credential:
        found = _find(tx, tenant, key)
        if found.subject == OWNER_SUBJECT and found.revoked_us is None:
            raise Conflict(
                "This is the credential of the node's token file; without it nobody could mint another.",
                code="key_is_token_file",
                field="key",
                fix="Empty the token file and restart the node: it makes a new secret, and the old one ends.",
            )
        return _revoke(desk, tx, found, subject)

    revoked = await desk.store.transact(commit)
    desk.keyring.changed()
    # What an owner's key did itself is the owner's; what its tokens did ends.
    await withdraw(desk, revoked, subject=subject)
    return revoked


def _revoke(desk: Desk, tx: Transaction, credential: Credential, subject: str) -> Credential:
    if credential.revoked_us is not None:
        return credential
    revoked = replace(credential, revoked_us=desk.clock.now_us())
    tx.credentials.update(revoked)
    facts = _facts(credential)
    tx.records.append(desk.record("key.revoked", tenant=credential.tenant, subject=subject, job_id=None, facts=facts))
    return revoked


async def set_mount(
    desk: Desk, *, tenant: TenantId, subject: str, key: str, mount: str, allowed: bool
) -> Credential:
    """Allow a bounded key to name a mount, or deny it, which ends what it runs with it; again changes nothing.

    Raises NotAllowed, NotFound (key or mount), Conflict (`key_unbounded`, `key_revoked`), TooLarge.
    """
    await authorise(desk, access.Action.CHANGE_KEYS)

    def commit(tx: Transaction) -> tuple[Credential, MountId]:
        found, mount_id = _find(tx, tenant, key), _mount(tx, tenant, mount)
        if not found.bounded:
            raise Conflict("An owner's key may name every mount.", code="key_unbounded", field="key")
        if found.revoked_us is not None:
            raise Conflict("This key is revoked.", code="key_revoked", field="key", fix="Mint another.")
        if (mount_id in found.mounts) is allowed:
            return found, mount_id
        mounts = {*found.mounts, mount_id} if allowed else set(found.mounts) - {mount_id}
        if len(mounts) > MOUNTS_OF_KEY_MAX:
            raise TooLarge(f"A key may name at most {MOUNTS_OF_KEY_MAX} mounts.", field="mounts")
        changed = replace(found, mounts=tuple(sorted(mounts)))
        tx.credentials.update(changed)
        kind, facts = "mount.allowed" if allowed else "mount.denied", {**_facts(found), "mount": mount_id}
        tx.records.append(desk.record(kind, tenant=tenant, subject=subject, job_id=None, facts=facts))
        return changed, mount_id

    changed, mount_id = await desk.store.transact(commit)
    desk.keyring.changed()
    if not allowed:
        await withdraw(desk, changed, subject=subject, mount_id=mount_id)
    return changed


async def admit_owner(desk: Desk, secret: str) -> None:
    """Believe the token file: its secret is the owner's, and one that it held before is revoked.

    Raises Conflict (`token_file_taken`: it is the secret of another key, or a revoked one).
    """
    hashed, now_us, controller = hash_of(secret), desk.clock.now_us(), desk.policy.controller_id
    made = Credential(
        access.make_credential_id(desk.ids.uuid7()), LOCAL_TENANT, _OWNER_NAME, CredentialKind.OWNER, OWNER_SUBJECT, now_us
    )

    def commit(tx: Transaction) -> None:
        known = tx.credentials.by_secret(hashed)
        if known is not None and (known.subject != OWNER_SUBJECT or known.revoked_us is not None):
            raise Conflict(
                "The token file holds the secret of another key, or one that was revoked.",
                code="token_file_taken",
                fix="Empty the token file and start again: the node makes a new secret.",
            )
        before = [
            one
            for one in tx.credentials.all(LOCAL_TENANT)
            if one.subject == OWNER_SUBJECT and one.revoked_us is None and one != known
        ]
        for other in before:
            _revoke(desk, tx, other, controller)
        if known is None:
            tx.credentials.insert(made, hashed)
        if before:
            facts = _facts(known or made)
            tx.records.append(
                desk.record("key.replaced", tenant=LOCAL_TENANT, subject=controller, job_id=None, facts=facts)
            )

    await desk.store.transact(commit)
    desk.keyring.changed()
