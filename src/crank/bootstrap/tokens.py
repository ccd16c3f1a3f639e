"""Capability tokens, wired: who signs and reads them, which roles there are, and who may show a certificate."""

import ssl
from pathlib import Path

from crank.adapters.jose import JoseProofs, JoseTokens
from crank.bootstrap.biscuits import open_biscuits
from crank.config import Settings
from crank.controller.token_desk import TokenDesk, TokenSigner
from crank.domain.rules.token import ACCESS_TYPE
from crank.ports import Clock
from crank.security import peer_identity


def open_tokens(settings: Settings, signer: TokenSigner, clock: Clock) -> TokenDesk:
    """Return what makes and reads this node's tokens. Raises ConfigurationError (roles)."""
    return TokenDesk(
        signer=signer,
        reader=JoseTokens(signer.access_token_keys, typ=ACCESS_TYPE),
        proofs=JoseProofs(),
        identify=peer_identity,
        chains=open_biscuits(settings, clock),
        place=settings.public_url.rstrip("/"),
    )


def take_place(tokens: TokenDesk | None, address: str) -> None:
    """Say where the node is reached, once it is; one that has a public address is known by that."""
    if tokens is not None and not tokens.place:
        tokens.place = address


def ask_for_certificates(tls: ssl.SSLContext | None, ca_file: Path) -> None:
    """Let callers of the API show a certificate of this trust domain; one that is shown must be good, none is needed."""
    if tls is not None:
        tls.load_verify_locations(cafile=ca_file)
        tls.verify_mode = ssl.CERT_OPTIONAL
