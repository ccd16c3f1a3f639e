"""Sign: from a grant to the text that its holder shows."""

import asyncio

from crank.controller.token_desk import TokenDesk
from crank.domain.chain import Holder
from crank.domain.grant import Grant
from crank.domain.rules import exchange, token
from crank.errors import InvalidRequest


async def sign(
    tokens: TokenDesk, grant: Grant, form: str, proven: str | None, proven_key: bytes | None
) -> str:
    """Return a grant as a token of a form. Raises InvalidRequest (`not_supported`), Unavailable.

    proven, proven_key  the key that the request proves: its thumbprint, and itself as a compressed point
    """
    claims = token.claims_of(grant, issuer=tokens.issuer, audience=tokens.issuer)
    if form != exchange.BISCUIT:
        # Perhaps by an HSM, which takes its time.
        return await asyncio.to_thread(tokens.signer.sign_access_token, claims)
    if tokens.chains is None:
        raise InvalidRequest(
            "This node makes no Biscuits: an HSM keeps its keys, and cannot keep theirs.",
            code="not_supported",
            field="requested_token_type",
            fix="Ask for an access token; or let their keys lie in files, with CRANK_BISCUIT_KEYS_IN_FILES=true on the node.",
        )
    # Of a holder who is only named no key is known, and one that none is bound to could be passed on by anybody.
    own = grant.holder_jkt is not None and grant.holder_jkt == proven
    holder = Holder(grant.holder_jkt or "", proven_key if own else None)
    return tokens.chains.mint({**claims, "depth": grant.depth_left}, holder)
