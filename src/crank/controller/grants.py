"""Grants as they stand: what a token is good for (RFC 7662), which there are, and their end before their time (RFC 7009)."""

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.controller.present import bound_to, look, present, token_desk
from crank.controller.withdraw import withdraw_grants
from crank.domain.credential import Credential
from crank.domain.grant import Grant, GrantId
from crank.domain.ids import TenantId
from crank.domain.json import JsonObject
from crank.domain.role import Role
from crank.domain.rules import grant as rules
from crank.domain.rules import token
from crank.domain.rules.access import Action
from crank.domain.rules.role import may_assume
from crank.errors import NotAuthenticated, NotFound
from crank.ports import Transaction

INACTIVE: JsonObject = {"active": False}


async def introspect(desk: Desk, shown: str) -> JsonObject:
    """Return what a token is good for to whoever may know: the owner, its key, and holders of it or of one above it.

    Everybody else, and whoever shows what is no living token, is told that it is not active, and nothing more.
    """
    chain = await _alive(desk, shown)
    if not chain or not _may_know(desk, chain):
        return dict(INACTIVE)
    grant = chain[-1]
    tokens = token_desk(desk)
    claims = token.claims_of(grant, issuer=tokens.issuer, audience=tokens.issuer)
    kind = "Bearer" if grant.holder_jkt is None else "DPoP"
    return {"active": True, "token_type": kind, "depth_left": grant.depth_left, **claims}


async def _alive(desk: Desk, shown: str) -> tuple[Grant, ...]:
    try:
        # To be told of it nobody has to hold its key; to use it they do.
        return await look(desk, shown)
    except NotAuthenticated:
        return ()


def _may_know(desk: Desk, chain: tuple[Grant, ...]) -> bool:
    """Tell whether the caller may know of the last of these grants; the others are above it."""
    asker = desk.asker
    if asker is None or (desk.grant is None and not asker.bounded):
        return True
    if desk.grant is None:
        return chain[-1].credential_id == asker.credential_id
    return desk.grant.grant_id in [one.grant_id for one in chain]


async def grants_page(desk: Desk, *, tenant: TenantId, limit: int, before: str | None) -> list[Grant]:
    """Return grants, newest first: all to the owner, to a key its own. Raises NotAllowed for a token without a right to it."""
    if desk.grant is not None:
        await authorise(desk, Action.LIST_KEYS)
    asker = desk.asker
    own = asker.credential_id if _is_key(desk, asker) and asker is not None else None
    return await desk.store.read(lambda tx: list(tx.grants.page(tenant, limit=limit, before=before, credential_id=own)))


def _is_key(desk: Desk, asker: Credential | None) -> bool:
    return asker is not None and asker.bounded and desk.grant is None


async def revoke_grant(desk: Desk, *, tenant: TenantId, subject: str, grant_id: GrantId) -> Grant:
    """End a grant and all below it at once, with what runs under them; doing it again changes nothing.

    Raises NotFound for one that is not there, or not the caller's to end.
    """
    found = await desk.store.read(lambda tx: tx.grants.find(tenant, grant_id))
    chain = await desk.store.read(lambda tx: tx.grants.chain(tenant, grant_id))
    if found is None or not _may_know(desk, (*reversed(chain),)):
        raise NotFound(
            "There is no such token.", code="grant_not_found", field="token", fix="'crank token list' shows them."
        )

    def commit(tx: Transaction) -> tuple[Grant, list[GrantId]]:
        ended = list(tx.grants.revoke(tenant, grant_id, desk.clock.now_us()))
        if found.revoked_us is None:
            facts: JsonObject = {"grant": grant_id, "below": len(ended) - 1}
            tx.records.append(desk.record("token.revoked", tenant=tenant, subject=subject, job_id=None, facts=facts))
        return tx.grants.find(tenant, grant_id) or found, ended

    revoked, ended = await desk.store.transact(commit)
    # What the gates remember of tokens is void.
    desk.keyring.changed()
    await withdraw_grants(desk, frozenset(ended), tenant=tenant, subject=subject)
    return revoked


async def revoke_token(desk: Desk, *, tenant: TenantId, subject: str, shown: str) -> None:
    """End the grant of a token, as `revoke_grant` does; one that is over, or none of ours, is over already (RFC 7009)."""
    chain = await _alive(desk, shown)
    if chain and _may_know(desk, chain):
        # A hop that was never shown before has to be there to be ended.
        await present(desk, shown, bound_to(desk, shown))
        await revoke_grant(desk, tenant=tenant, subject=subject, grant_id=chain[-1].grant_id)


async def roles_of(desk: Desk) -> list[Role]:
    """Return the roles that the credential behind a request may assume, by name."""
    asker = desk.asker
    if asker is None or desk.tokens is None:
        return []
    held: Credential | None = asker
    if desk.grant is not None:
        behind = desk.grant
        held = await desk.store.read(lambda tx: tx.credentials.find(behind.tenant, behind.credential_id))
    known = sorted(desk.tokens.roles.values(), key=lambda role: role.name)
    return [role for role in known if held is not None and may_assume(role, held) is None]


def is_alive(desk: Desk, grant: Grant) -> bool:
    """Tell whether a grant allows anything now."""
    return rules.lives(grant, desk.clock.now_us())
