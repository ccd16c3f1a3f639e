"""Capability tokens, wired: who signs and reads them, and which roles there are."""

from crank.adapters.jose import JoseProofs, JoseTokens
from crank.adapters.jwt_svid import JoseSvidReader
from crank.bootstrap.biscuits import open_biscuits
from crank.bootstrap.roles import read_ceiling, read_roles
from crank.config import Settings
from crank.controller.proof_window import ProofWindow
from crank.controller.token_desk import TokenDesk, TokenSigner
from crank.domain.rules.token import ACCESS_TYPE
from crank.ports import Clock


def open_tokens(settings: Settings, signer: TokenSigner, clock: Clock) -> TokenDesk:
    """Return what makes and reads this node's tokens. Raises ConfigurationError (roles, policy)."""
    return TokenDesk(
        signer=signer,
        reader=JoseTokens(signer.access_token_keys, typ=ACCESS_TYPE),
        proofs=JoseProofs(),
        chains=open_biscuits(settings, clock),
        roles=read_roles(settings),
        ceiling=read_ceiling(settings),
        seen=ProofWindow(clock.now_us()),
        svids=JoseSvidReader(),
        place=settings.public_url.rstrip("/"),
    )


def take_place(tokens: TokenDesk | None, address: str) -> None:
    """Say where the node is reached, once it is; one that has a public address is known by that."""
    if tokens is not None and not tokens.place:
        tokens.place = address
