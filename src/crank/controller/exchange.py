"""Exchange: from what somebody holds to a short-lived token that allows less, for them or for somebody else (RFC 8693).

Steps, marked again in the code:
 1. find what is exchanged, and prove that whoever asks may use it
 2. find who shall hold what comes of it
 3. narrow: what is asked for, held, given by the role, and let pass by the node
 4. in one transaction: see that all it stems from still lives, keep the grant, record it
 5. sign
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from crank.controller.access import authenticate
from crank.controller.desk import Desk
from crank.controller.keys import hash_of
from crank.controller.present import bound_to, identity_of, look, over, present, token_desk
from crank.controller.present_chain import check_peer
from crank.controller.scope import desk_for
from crank.controller.sign_token import sign
from crank.controller.spend import note_refusal
from crank.controller.token_desk import TokenDesk
from crank.domain.credential import Credential, CredentialKind
from crank.domain.grant import Grant, GrantId, Right
from crank.domain.ids import LOCAL_TENANT, CredentialId
from crank.domain.job import Refusal
from crank.domain.json import JsonObject
from crank.domain.role import Role
from crank.domain.rules import access, exchange, token
from crank.domain.rules import grant as rules
from crank.domain.rules import role as roles
from crank.domain.rules.exchange import NewHolder, Subject
from crank.domain.rules.grant import Ceiling
from crank.domain.trust import Attestation
from crank.errors import CrankError, InvalidRequest, NotAllowed, NotAuthenticated
from crank.ports import Transaction

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Shown:
    """A credential inside a request, and what kind it says it is."""

    text: str
    kind: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """One exchange as it was asked for, read strictly.

    rights        None: all that is held
    audience      where it shall be used: names of this node, or none
    proven        thumbprint of the key that this request proves; None: none
    peer          who the connection's certificate says that asks, where one was shown, by whatever `proven` was proven
    level         how well that certificate says that its holder was attested; None where none was shown
    holder_jkt    thumbprint of the key of somebody else who shall hold it
    lifetime_sec, depth   at most so much
    form          what kind of token it shall be; proven_key the key that is proven, as a compressed point
    """

    subject: Shown
    actor: Shown | None = None
    rights: tuple[Right, ...] | None = None
    role: str | None = None
    proven: str | None = None
    peer: str | None = None
    level: Attestation | None = None
    holder_jkt: str | None = None
    lifetime_sec: int | None = None
    depth: int | None = None
    form: str = exchange.ACCESS_TOKEN
    proven_key: bytes | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, which is shown this once, and its grant."""

    token: str
    grant: Grant


async def exchange_token(desk: Desk, wanted: Wanted, *, known: Callable[[], None] = lambda: None) -> Issued:
    """Issue a token for what is shown.

    known  called once what is exchanged was believed and before anything comes of it
    Raises NotAuthenticated (what is shown does not hold), NotAllowed (`delegation_not_allowed`, `bearer_not_allowed`,
    `role_not_allowed`, `nothing_granted`), InvalidRequest. A refusal of somebody known leaves a record.
    """
    tokens = token_desk(desk)
    subject = await _subject(desk, wanted)  # 1
    known()
    try:
        return await _issue(desk, tokens, wanted, subject)
    except (NotAllowed, InvalidRequest) as fault:
        # The record names whose authority was asked for; the desk here is nobody's yet.
        await note_refusal(desk_for(desk, subject.credential), fault.error_code, "token")
        raise


async def _issue(desk: Desk, tokens: TokenDesk, wanted: Wanted, subject: Subject) -> Issued:
    holder = await _holder(desk, wanted, subject)  # 2
    role = _role(tokens, wanted, subject)
    now_us = desk.clock.now_us()
    granted = _narrow(tokens, wanted, subject, role, holder, now_us)  # 3
    grant = exchange.issue(
        subject, holder, granted, grant_id=GrantId(desk.ids.uuid7()), now_us=now_us, depth_wanted=wanted.depth
    )
    if grant.expires_us <= now_us:
        raise over()
    # Signed first: a token that was never shown does no harm, a grant without one would only be dead weight.
    signed = await sign(tokens, grant, wanted.form, wanted.proven, wanted.proven_key)  # 5
    if len(signed) > token.TOKEN_CHARS_MAX:
        raise InvalidRequest("The token would be too long to be sent.", code="token_too_long", field="scope")
    await desk.store.transact(lambda tx: _keep(desk, tx, grant, subject, role))  # 4
    return Issued(signed, grant)


async def _subject(desk: Desk, wanted: Wanted) -> Subject:
    shown = wanted.subject
    if shown.kind == exchange.API_KEY:
        return Subject(await authenticate(desk, hash_of(shown.text), access.API_KINDS))
    if shown.kind in (exchange.ACCESS_TOKEN, exchange.BISCUIT):
        # A Biscuit may be bound to a name, which the connection's certificate proves.
        named = wanted.peer if shown.kind == exchange.BISCUIT else None
        credential, grant = await present(desk, shown.text, wanted.proven, named)
        # Whoever asks by another's bearer is named as its actor below; a bound one is its holder's to exchange.
        if grant.holder_jkt is not None:
            check_peer(grant, wanted.peer)
        return Subject(credential, grant)
    if shown.kind == exchange.JWT:
        return await _workload(desk, shown.text, wanted.role)
    raise InvalidRequest(
        "This node exchanges its own keys and access tokens, and no such token.",
        code="unsupported_token_type",
        field="subject_token_type",
        fix=f"Send {exchange.API_KEY}, {exchange.ACCESS_TOKEN}, or {exchange.JWT} for a JWT-SVID.",
    )


async def _workload(desk: Desk, shown: str, wanted_role: str | None) -> Subject:
    """Return what a workload may do under a role: what the key may by whose authority the role lets it act."""
    identity = str(identity_of(desk, shown))
    role = _role_named(token_desk(desk), roles.DEFAULT_ROLE if wanted_role is None else wanted_role)
    refused = roles.may_identity(role, identity)
    found = await desk.store.read(lambda tx: [one for one in tx.credentials.all(LOCAL_TENANT) if one.name == role.key])
    living = [one for one in found if one.kind in access.API_KINDS and access.lives(one, desk.clock.now_us())]
    if refused is None and not living:
        refused = Refusal("role_not_allowed", f"The key of the role {role.name} is gone.", "Ask the node's owner.", "role")
    if refused is not None:
        await note_refusal(replace(desk, asker=_nobody(identity)), refused.code, "token")
        raise _not_allowed(refused)
    return Subject(living[0], identity=identity)


def _nobody(identity: str) -> Credential:
    """Return by which name a record tells of a workload that may do nothing."""
    return Credential(CredentialId(identity), LOCAL_TENANT, "workload", CredentialKind.API, identity, created_us=0)


def _role_named(tokens: TokenDesk, name: str) -> Role:
    role = tokens.roles.get(name)
    if role is None:
        raise InvalidRequest(
            f"There is no role {name[:80]!r}.", code="role_not_found", field="role", fix="'crank token roles' lists them."
        )
    return role


async def _holder(desk: Desk, wanted: Wanted, subject: Subject) -> NewHolder:
    actor, actor_jkt = await _actor(desk, wanted, subject)
    holder = exchange.new_holder(
        subject, proven=wanted.proven, named=wanted.holder_jkt, actor=actor, actor_jkt=actor_jkt
    )
    refused = holder if isinstance(holder, Refusal) else exchange.delegation_refusal(subject, holder)
    if isinstance(refused, Refusal):
        raise _not_allowed(refused)
    assert isinstance(holder, NewHolder), "a refusal was raised"
    return holder


async def _actor(desk: Desk, wanted: Wanted, subject: Subject) -> tuple[str | None, str | None]:
    """Return who shall act and by which key, as their own credential or certificate proves; never as somebody says."""
    own = None if subject.grant is None else subject.grant.holder_jkt
    # Whoever holds what is exchanged and says so by its certificate acts for itself.
    peer = wanted.peer if wanted.peer is not None and own != wanted.proven else None
    if wanted.actor is None:
        # Also a workload's JWT-SVID tells who it is of, and not who sends it.
        others = subject.grant is not None or subject.identity not in (None, peer)
        return (peer, wanted.proven) if peer is not None and others else (None, None)
    if wanted.actor.kind == exchange.API_KEY:
        credential = await authenticate(desk, hash_of(wanted.actor.text), access.API_KINDS)
        found: tuple[str, str | None] = (credential.subject, None)
    elif wanted.actor.kind in (exchange.ACCESS_TOKEN, exchange.BISCUIT):
        found = await _acting(desk, wanted.actor.text)
    elif wanted.actor.kind == exchange.JWT:
        found = (str(identity_of(desk, wanted.actor.text)), None)
    else:
        raise InvalidRequest(
            "This node knows no such kind of actor.", code="unsupported_token_type", field="actor_token_type"
        )
    if peer is not None and peer != found[0]:
        raise NotAuthenticated(
            "The actor's token is another's than the certificate of this connection.",
            code="actor_not_proven",
            fix="Let the actor itself ask, or its giver over a connection of its own.",
        )
    return found


async def _acting(desk: Desk, shown: str) -> tuple[str, str | None]:
    """Return who holds a token, and the key that it is bound to: what comes of it is bound to that key, too."""
    bound = bound_to(desk, shown)
    if bound is not None and not token.is_thumbprint(bound):
        raise InvalidRequest(
            "The actor's token is bound to a name, and a new one needs a key.",
            code="unsupported_token_type",
            field="actor_token",
            fix="Send an actor's token that is bound to a key.",
        )
    grant = (await look(desk, shown))[-1]
    return grant.holder, grant.holder_jkt


def _role(tokens: TokenDesk, wanted: Wanted, subject: Subject) -> Role | None:
    """Return the role that is assumed; None for a token that is exchanged under the role it was made with."""
    if wanted.role is None and subject.grant is not None:
        return None
    role = _role_named(tokens, roles.DEFAULT_ROLE if wanted.role is None else wanted.role)
    # A workload's was looked at when it was found by whose authority it acts.
    refused = None if subject.identity is not None else roles.may_assume(role, subject.credential)
    # The certificate of somebody who sends a workload's JWT-SVID says nothing of that workload.
    own = subject.identity in (None, wanted.peer)
    refused = refused or roles.may_attested(role, wanted.level if own else None)
    if refused is not None:
        raise _not_allowed(refused)
    return role


def _narrow(
    tokens: TokenDesk, wanted: Wanted, subject: Subject, role: Role | None, holder: NewHolder, now_us: int
) -> Ceiling:
    bound = holder.jkt is not None
    if not bound and subject.grant is not None and subject.grant.holder_jkt is not None:
        # Whatever a role allows to who begins with a key.
        raise _not_allowed(_UNBOUND)
    sides = [roles.of_the_node(tokens.ceiling, now_us), subject.held]
    if role is not None:
        given = roles.ceiling(role, now_us, bound=bound)
        if isinstance(given, Refusal):
            raise _not_allowed(given)
        sides.append(given)
    lasts_us = roles.LIFETIME_SEC_MAX if wanted.lifetime_sec is None else wanted.lifetime_sec
    asked = Ceiling(wanted.rights or rules.OF_THE_OWNER, now_us + lasts_us * _US, rules.DEPTH_MAX)
    granted = rules.narrow(asked, *sides)
    if isinstance(granted, Refusal):
        raise _not_allowed(granted)
    return granted


_UNBOUND = Refusal(
    "bearer_not_allowed",
    "A token that is bound to a key is never exchanged for one that whoever holds it could use.",
    "Name the next holder's key with holder_jkt, or send its own bound token as actor_token.",
    "subject_token",
)


def _keep(desk: Desk, tx: Transaction, grant: Grant, subject: Subject, role: Role | None) -> None:
    now_us = desk.clock.now_us()
    credential = tx.credentials.find(grant.tenant, grant.credential_id)
    above = [] if grant.parent is None else tx.grants.chain(grant.tenant, grant.parent)
    alive = credential is not None and access.lives(credential, now_us) and (grant.parent is None or bool(above))
    # Whoever was revoked while this was asked for; what they held before ended with that.
    alive = alive and not desk.standing.bars((grant.subject, *grant.actors))
    if not alive or not all(rules.lives(one, now_us) for one in above):
        raise over()
    if len(above) > rules.DEPTH_MAX * 4:
        raise NotAllowed("This token was narrowed too often.", code="chain_too_long", fix="Exchange your key anew.")
    tx.grants.insert(grant)
    facts: JsonObject = {
        "grant": grant.grant_id,
        "key": grant.credential_id,
        "parent": grant.parent,
        "holder": grant.holder,
        "bound": grant.holder_jkt is not None,
        "role": None if role is None else role.name,
        "expires_us": grant.expires_us,
    }
    who = _asker(subject)
    tx.records.append(desk.record("token.issued", tenant=grant.tenant, subject=who, job_id=None, facts=facts))
    if role is not None and role.name != roles.DEFAULT_ROLE:
        told = {"role": role.name, "grant": grant.grant_id, "expires_us": grant.expires_us}
        tx.records.append(desk.record("role.assumed", tenant=grant.tenant, subject=who, job_id=None, facts=told))


def _asker(subject: Subject) -> str:
    if subject.grant is not None:
        return subject.grant.holder
    return subject.name


def _not_allowed(refused: Refusal) -> CrankError:
    return NotAllowed(refused.message, code=refused.code, field=refused.constraint, fix=refused.fix)
