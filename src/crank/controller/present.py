"""Present: from a token that somebody shows to the grant behind it, and the credential that this stems from.

A token is believed when this node signed it for itself, its time has come and not gone, whoever shows it proves the
key that it is bound to, and the store still has its grant alive under a credential that lives.
"""

from collections.abc import Sequence

from crank.controller.desk import Desk
from crank.controller.present_chain import check_peer, present_chain, present_holder, walk_chain
from crank.controller.scope import node_desk, unknown
from crank.controller.token_desk import TokenDesk
from crank.domain.chain import looks_like_chain
from crank.domain.credential import Credential
from crank.domain.grant import Grant
from crank.domain.identity import SpiffeId, parse_spiffe_id
from crank.domain.ids import LOCAL_TENANT
from crank.domain.job import Refusal
from crank.domain.json import JsonObject
from crank.domain.rules import access, token, workload
from crank.domain.rules import grant as rules
from crank.errors import InvalidRequest, NotAuthenticated
from crank.ports import Transaction


def token_desk(desk: Desk) -> TokenDesk:
    """Return what makes and reads tokens here. Raises NotAuthenticated where there are none."""
    if desk.tokens is None:
        raise unknown()
    return desk.tokens


async def present(desk: Desk, shown: str, jkt: str | None, peer: str | None = None) -> tuple[Credential, Grant]:
    """Return whose token this is and what it grants.

    jkt   thumbprint of the key that the caller proved with this very request; None: they proved none
    peer  SPIFFE ID of the connection's certificate, where one was shown: the token's holder, if that is a workload
    Raises NotAuthenticated (`invalid_token`), Unavailable (`token_check_limit`).
    """
    tokens = token_desk(desk)
    if tokens.chains is not None and looks_like_chain(shown):
        return await present_chain(desk, tokens, tokens.chains, shown, jkt, peer)
    said = token.read_claims(
        tokens.reader.read(shown), issuer=tokens.issuer, audience=tokens.issuer, now_us=desk.clock.now_us()
    )
    if isinstance(said, Refusal):
        raise NotAuthenticated(said.message, code=said.code, fix=said.fix)
    if said.holder_jkt is not None and said.holder_jkt != jkt:
        raise NotAuthenticated(
            "This token is bound to a key, and the request proves another one or none.",
            code="invalid_token",
            fix="Send a DPoP proof (RFC 9449) by that key with the request, or use its client certificate.",
        )

    def stored(tx: Transaction) -> tuple[Credential, Grant] | None:
        grant = tx.grants.find(LOCAL_TENANT, said.grant_id)
        if grant is None or not token.agrees(said, grant):
            return None
        credential = tx.credentials.find(grant.tenant, grant.credential_id)
        return None if credential is None else (credential, grant)

    found = await desk.store.read(stored)
    now_us = desk.clock.now_us()
    if found is None or not access.lives(found[0], now_us) or not rules.lives(found[1], now_us):
        raise over()
    check_peer(found[1], peer)
    return found


async def look(desk: Desk, shown: str) -> tuple[Grant, ...]:
    """Return the grant of a token, with those above it first, for whoever need not prove its key. Nothing is kept of it.

    Raises as `present`.
    """
    tokens = token_desk(desk)
    bound = bound_to(desk, shown)
    if tokens.chains is not None and looks_like_chain(shown):
        _, hops = await walk_chain(desk, tokens, tokens.chains, shown, bound)
        grant, hops = hops[0], hops[1:]
    else:
        _, grant = await present(desk, shown, bound)
        hops = ()
    # The chain of the store begins with the grant itself.
    known = await node_desk(desk).store.read(lambda tx: tx.grants.chain(grant.tenant, grant.grant_id))
    return (*reversed(known), *hops)


def bound_to(desk: Desk, shown: str) -> str | None:
    """Return what a token says it is bound to, for whoever need not prove that key. Raises NotAuthenticated (`invalid_token`).

    A Biscuit that was passed on to a SPIFFE ID is bound to that name.
    """
    tokens = token_desk(desk)
    if tokens.chains is not None and looks_like_chain(shown):
        return present_holder(tokens.chains, shown)
    said = token.read_claims(
        tokens.reader.read(shown), issuer=tokens.issuer, audience=tokens.issuer, now_us=desk.clock.now_us()
    )
    return None if isinstance(said, Refusal) else said.holder_jkt


def identity_of(desk: Desk, shown: str) -> SpiffeId:
    """Return which workload a JWT-SVID for this node is of, by the bundle of its own trust domain as it is now.

    Raises InvalidRequest (`invalid_jwt_svid`, `unsupported_token_type`).
    """
    tokens = token_desk(desk)
    trust = desk.trust
    if tokens.svids is None or trust is None:
        raise InvalidRequest("This node takes no JWT-SVIDs.", code="unsupported_token_type", field="subject_token_type")

    def keys_of(subject: str) -> Sequence[JsonObject]:
        bundle = trust.bundles.find(parse_spiffe_id(subject).trust_domain)
        found = () if bundle is None else bundle.jwt_authorities
        return [{**one.jwk, "kid": one.kid, "use": "jwt-svid"} for one in found]

    claims = tokens.svids.read(shown, keys_of)
    cause = workload.claims_refusal(claims, tokens.issuer, now_us=desk.clock.now_us())
    found = parse_spiffe_id(claims["sub"])
    if cause is None and desk.standing.is_banned(found):
        cause = "its identity was revoked"
    if cause is not None:
        raise InvalidRequest(f"This JWT-SVID does not hold here: {cause}.", code="invalid_jwt_svid", field="subject_token")
    return found


def over() -> NotAuthenticated:
    """Return the refusal of a token whose grant, or the key behind it, has ended; it does not tell which."""
    return NotAuthenticated(
        "This token is not valid here: it has expired or was revoked.",
        code="invalid_token",
        fix="Exchange your credential for a new token at /v1/token.",
    )
