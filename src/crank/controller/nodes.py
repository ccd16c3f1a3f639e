"""Nodes beside this one: the owner invites or registers them, looks at them, and forgets them."""

import hashlib
from dataclasses import dataclass, field, replace

from crank.controller.access import authorise
from crank.controller.desk import Desk
from crank.controller.identities import ban_in, heed_revocation
from crank.controller.issue import authority_of
from crank.controller.keys import hash_of
from crank.domain.enrolment import Enrolment
from crank.domain.identity import SpiffeId, make_spiffe_id
from crank.domain.ids import Digest, TenantId, parse_name
from crank.domain.json import JsonObject
from crank.domain.rules import enrolment as rules
from crank.domain.rules.access import Action
from crank.errors import InvalidRequest, NotFound, TooLarge
from crank.ports import Authority, Transaction

NODES_MAX = 1000
EXPIRES_SEC = 15 * 60.0
EXPIRES_SEC_MIN = 60.0
EXPIRES_SEC_MAX = 7 * 86_400.0
_US = 1_000_000
_UNNAMED = "node"


@dataclass(frozen=True, slots=True)
class NodeWanted:
    """What is asked of a new node.

    capabilities  patterns of what its worker may offer; none: everything
    pins          whether it may come back by the certificate that it first came with
    """

    name: str | None = None
    capabilities: tuple[str, ...] = ()
    expires_sec: float = EXPIRES_SEC
    pins: bool = False


@dataclass(frozen=True, slots=True)
class Invited:
    """An enrolment, by what its node is to know the verifier, and its token, which is shown this once.

    roots  SHA-256 of the trust domain's root certificates
    token  None where the node proves itself by a certificate that was registered
    """

    enrolment: Enrolment
    trust_domain: str
    roots: tuple[Digest, ...]
    token: str | None = field(repr=False, default=None)


async def invite(desk: Desk, *, tenant: TenantId, subject: str, wanted: NodeWanted) -> Invited:
    """Make a join token for one node. Raises NotAllowed, InvalidRequest, Conflict (`node_name_taken`), TooLarge."""
    await authorise(desk, Action.CHANGE_NODES)
    if not EXPIRES_SEC_MIN <= wanted.expires_sec <= EXPIRES_SEC_MAX:
        raise InvalidRequest(
            "An invite lasts from a minute to a week.",
            code="invite_lifetime_out_of_range",
            field="expires_sec",
            fix="Choose a time in that range; 15 minutes are enough to paste a command.",
        )
    authority = authority_of(desk)
    made = _make(desk, wanted)
    made = replace(made, expires_us=made.created_us + int(wanted.expires_sec * _US), pins=wanted.pins)
    token = rules.make_token(desk.ids.secret())
    await desk.store.transact(lambda tx: _insert(desk, tx, tenant, subject, made, hash_of(token), "node.invited"))
    return Invited(made, authority.trust_domain, roots_of(authority), token)


async def register(desk: Desk, *, tenant: TenantId, subject: str, wanted: NodeWanted, thumbprint: Digest) -> Invited:
    """Let a node join that proves itself by the certificate with this SHA-256.

    Raises NotAllowed, InvalidRequest, Conflict (`node_name_taken`, `thumbprint_taken`), TooLarge.
    """
    await authorise(desk, Action.CHANGE_NODES)
    authority = authority_of(desk)
    made = replace(_make(desk, wanted), thumbprint=thumbprint)
    await desk.store.transact(lambda tx: _insert(desk, tx, tenant, subject, made, None, "node.registered"))
    return Invited(made, authority.trust_domain, roots_of(authority))


def _make(desk: Desk, wanted: NodeWanted) -> Enrolment:
    if wanted.name is not None:
        parse_name(wanted.name, field="name")
        if len(wanted.name) > rules.NAME_CHARS_MAX:
            raise TooLarge(f"A node's name has at most {rules.NAME_CHARS_MAX} characters.", field="name")
    node_id = rules.make_node_id(wanted.name or _UNNAMED, desk.ids.uuid7())
    return Enrolment(
        node_id=node_id,
        name=wanted.name or node_id,
        worker_id=rules.worker_of(node_id),
        capabilities=rules.check_patterns(wanted.capabilities),
        created_us=desk.clock.now_us(),
    )


def _insert(
    desk: Desk, tx: Transaction, tenant: TenantId, subject: str, made: Enrolment, token: Digest | None, kind: str
) -> None:
    living = [one for one in tx.enrolments.all() if one.forgotten_us is None]
    for stale in [one for one in living if _never_came(one, made.created_us)]:
        # Nobody can use that invite any more; its name is free again.
        tx.enrolments.update(replace(stale, forgotten_us=made.created_us))
        living.remove(stale)
    if len(living) >= NODES_MAX:
        raise TooLarge(f"There are {NODES_MAX} nodes already.", code="too_many_nodes", fix="Forget some of them.")
    tx.enrolments.insert(made, token)
    facts: JsonObject = {**facts_of(made), "capabilities": list(made.capabilities)}
    tx.records.append(desk.record(kind, tenant=tenant, subject=subject, job_id=None, facts=facts))


def _never_came(enrolment: Enrolment, now_us: int) -> bool:
    return enrolment.joined_us is None and enrolment.expires_us is not None and enrolment.expires_us <= now_us


def facts_of(enrolment: Enrolment) -> JsonObject:
    """Return by what records name a node."""
    return {"node": enrolment.node_id, "name": enrolment.name}


async def list_nodes(desk: Desk) -> list[Enrolment]:
    """Return every enrolment, oldest first, the forgotten ones too. Raises NotAllowed."""
    await authorise(desk, Action.READ_NODES)
    return await desk.store.read(lambda tx: list(tx.enrolments.all()))


async def forget(desk: Desk, *, tenant: TenantId, subject: str, node: str) -> Enrolment:
    """Take a node's right to be here, revoke its identities, and cut its worker off; again changes nothing.

    node  its id, or its name while it is not forgotten
    Raises NotAllowed, NotFound, TooLarge (`too_many_bans`); then the node is what it was.
    """
    await authorise(desk, Action.CHANGE_NODES)

    def commit(tx: Transaction) -> tuple[Enrolment, list[SpiffeId]]:
        found = _find(tx, node)
        named = [] if found.joined_us is None else _identities_of(desk, found)
        for spiffe_id in named:
            # With the node or not at all: from here on nobody believes what was issued to it, and nothing more is.
            ban_in(desk, tx, spiffe_id, "the node was forgotten", subject)
        if found.forgotten_us is not None:
            return found, named
        gone = replace(found, forgotten_us=desk.clock.now_us())
        tx.enrolments.update(gone)
        facts = facts_of(gone)
        tx.records.append(desk.record("node.forgotten", tenant=tenant, subject=subject, job_id=None, facts=facts))
        return gone, named

    gone, banned = await desk.store.transact(commit)
    if banned:
        await heed_revocation(desk, banned, subject=subject)
    return gone


def _identities_of(desk: Desk, node: Enrolment) -> list[SpiffeId]:
    names = (("worker", node.worker_id), ("node", node.node_id))
    return [make_spiffe_id(desk.policy.trust_domain, kind, name) for kind, name in names]


def _find(tx: Transaction, node: str) -> Enrolment:
    for enrolment in tx.enrolments.all():
        if enrolment.node_id == node or (enrolment.name == node and enrolment.forgotten_us is None):
            return enrolment
    raise NotFound(
        f"There is no node {node[:80]!r}.", code="node_not_found", field="node", fix="'crank node list' shows them."
    )


def roots_of(authority: Authority) -> tuple[Digest, ...]:
    """Return by what the trust domain's roots are known: the SHA-256 of each certificate."""
    return tuple(Digest(hashlib.sha256(root).hexdigest()) for root in authority.bundle().x509_authorities)
