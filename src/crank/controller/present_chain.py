"""Present a chain: from a token that its holders narrowed by themselves to the grant that is left of it.

Each hop becomes a grant of the store, below the one that it was made from, when it is shown for the first time. From
there on it is judged, counted, listed and revoked like every other grant.

Steps, marked again in the code:
 1. see that neither it nor a hop was revoked, before anything of the token is believed
 2. check size, signatures and forms
 3. find the grant that it began with, alive and as the token says
 4. walk the hops
 5. let the token's own checks speak
 6. keep the hops that are new
"""

from crank.controller.desk import Desk
from crank.controller.scope import node_desk
from crank.controller.token_desk import TokenDesk
from crank.domain.chain import Holder, Presenter
from crank.domain.credential import Credential
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT
from crank.domain.job import Refusal
from crank.domain.json import JsonObject, JsonValue
from crank.domain.rules import access, exchange, token
from crank.domain.rules import grant as rules
from crank.domain.rules.authorization import parse_details
from crank.domain.rules.delegation import Ways, walk
from crank.domain.rules.token import THUMBPRINT_URN, Presented, is_thumbprint
from crank.errors import InvalidRequest, NotAuthenticated
from crank.ports import ChainIssuer, Transaction


async def present_chain(
    desk: Desk, tokens: TokenDesk, issuer: ChainIssuer, shown: str, jkt: str | None, peer: str | None = None
) -> tuple[Credential, Grant]:
    """Return whose token this is and what is left of its grant. Its hops are kept.

    jkt, peer  what the caller proved, as in `present`
    Raises as `walk_chain`, and NotAllowed (`too_many_hops`).
    """
    credential, found = await walk_chain(desk, tokens, issuer, shown, jkt, peer)
    desk = node_desk(desk)
    new = await desk.store.read(lambda tx: _unknown(tx, found[1:]))
    if new:
        tokens.hops.take(found[0].grant_id, new)
        await desk.store.transact(lambda tx: _keep(desk, tx, found))  # 6
    return credential, found[-1]


async def walk_chain(
    desk: Desk, tokens: TokenDesk, issuer: ChainIssuer, shown: str, jkt: str | None, peer: str | None = None
) -> tuple[Credential, tuple[Grant, ...]]:
    """Return whose token this is, the grant that it was issued for, and what each hop left of it. Nothing is kept.

    Raises NotAuthenticated (`invalid_token`), Unavailable (`token_check_limit`: nothing was decided).
    """
    if jkt is None:
        raise NotAuthenticated(
            "This token is bound to a key, and the request proves none.",
            code="invalid_token",
            fix="Send a DPoP proof (RFC 9449) by that key with the request, or use its client certificate.",
        )
    presenter = Presenter(jkt, peer)
    # Whoever asks: a token is looked at, and its hops are kept, by the node.
    desk = node_desk(desk)
    ids = [GrantId(name) for name in (issuer.claimed_id(shown), *issuer.revocation_ids(shown))]
    if await desk.store.read(lambda tx: any(_is_revoked(tx, name) for name in ids)):  # 1
        raise _over()
    opened = issuer.open(shown)  # 2
    now_us = desk.clock.now_us()
    said = token.read_claims(opened.chain.claims, issuer=tokens.issuer, audience=tokens.issuer, now_us=now_us)
    if isinstance(said, Refusal):
        raise _refused(said)
    credential, root = await desk.store.read(lambda tx: _root(tx, said))  # 3
    if root.holder_jkt != opened.chain.holder.name:
        raise _over()
    found = walk(root, opened.chain, presenter, _ways(desk))  # 4
    if isinstance(found, Refusal):
        raise _refused(found)
    if not access.lives(credential, now_us) or not all(rules.lives(grant, now_us) for grant in found):
        raise _over()
    if any(desk.standing.bars((grant.subject, *grant.actors)) for grant in found):
        # One who was revoked may sign hops for ever, away from here.
        raise _over()
    check_peer(found[-1], peer)
    opened.evaluate(presenter, now_us)  # 5
    return credential, found


def present_holder(issuer: ChainIssuer, shown: str) -> str:
    """Return who holds a chain now, by name, whoever shows it. Raises NotAuthenticated (`invalid_token`)."""
    return issuer.open(shown).chain.present_holder.name


def check_peer(grant: Grant, peer: str | None) -> None:
    """Let a grant pass whose holder may be who the connection's certificate names. Raises NotAuthenticated (`invalid_token`)."""
    refused = token.peer_refusal(grant, peer)
    if refused is not None:
        raise _refused(refused)


def _is_revoked(tx: Transaction, grant_id: GrantId) -> bool:
    grant = tx.grants.find(LOCAL_TENANT, grant_id)
    return grant is not None and grant.revoked_us is not None


def _root(tx: Transaction, said: Presented) -> tuple[Credential, Grant]:
    grant = tx.grants.find(LOCAL_TENANT, said.grant_id)
    if grant is None or not token.agrees(said, grant):
        raise _over()
    credential = tx.credentials.find(grant.tenant, grant.credential_id)
    if credential is None:
        raise _over()
    return credential, grant


def _ways(desk: Desk) -> Ways:
    def problem(schema: JsonObject) -> str | None:
        found = desk.schemas.check_schema(schema)
        return None if found is None else found.cause

    def read(details: JsonValue) -> tuple[Right, ...] | Refusal:
        try:
            return () if details == [] else parse_details(details, problem)
        except InvalidRequest as fault:
            return Refusal("hop_unreadable", fault.message, fault.fix, "authorization")

    return Ways(rules.meet_rights, read, _called, exchange.holders_space)


def _called(holder: Holder) -> str:
    return THUMBPRINT_URN + holder.name if is_thumbprint(holder.name) else holder.name


def _unknown(tx: Transaction, hops: tuple[Grant, ...]) -> int:
    return sum(tx.grants.find(grant.tenant, grant.grant_id) is None for grant in hops)


def _keep(desk: Desk, tx: Transaction, found: tuple[Grant, ...]) -> None:
    for grant in found:
        known = tx.grants.find(grant.tenant, grant.grant_id)
        if known is not None and not rules.lives(known, desk.clock.now_us()):
            # It ended while this token was looked at.
            raise _over()
        if known is None:
            tx.grants.insert(grant)
            facts: JsonObject = {
                "grant": grant.grant_id,
                "parent": grant.parent,
                "key": grant.credential_id,
                "holder": grant.holder,
                "expires_us": grant.expires_us,
            }
            record = desk.record(
                "token.attenuated", tenant=grant.tenant, subject=grant.holder, job_id=None, facts=facts
            )
            tx.records.append(record)


def _refused(refused: Refusal) -> NotAuthenticated:
    # One code for callers, as RFC 6750 wants it; the sentence says which.
    return NotAuthenticated(refused.message, code="invalid_token", fix=refused.fix, detail=refused.code)


def _over() -> NotAuthenticated:
    return NotAuthenticated(
        "This token is not valid here: it has expired or was revoked.",
        code="invalid_token",
        fix="Exchange your credential for a new token at /v1/token.",
    )
