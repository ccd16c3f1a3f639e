"""What use cases need to make, read and believe capability tokens, gathered once at start."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from crank.controller.hop_count import HopCount
from crank.controller.proof_window import ProofWindow
from crank.domain.json import JsonObject
from crank.domain.role import NodeCeiling, Role
from crank.domain.rules.role import OPEN, SHIPPED
from crank.domain.trust import Peer
from crank.errors import Unavailable
from crank.ports import ChainIssuer, JwtSvidReader, ProofReader, TokenReader


class TokenSigner(Protocol):
    """The part of `ports.Authority` that signs capability tokens."""

    def sign_access_token(self, claims: JsonObject) -> str:
        """Sign the claims of a capability token."""
        ...

    def access_token_keys(self) -> Sequence[JsonObject]:
        """Return the public keys by which they are checked, the newest first."""
        ...


@dataclass(slots=True)
class TokenDesk:
    """Lives as long as the controller.

    chains    tokens that their holders narrow and pass on by themselves; None: there are none here
    place     the node's address: the issuer of its tokens and their only audience. Known once the port is taken
    identify  proves who the other side of a TLS session is, as at the listener of workers; None: certificates mean nothing
    svids     reads JWT-SVIDs, by which workloads say who they are; None: none is taken
    ceiling   the most that the operator lets pass into any token
    """

    signer: TokenSigner
    reader: TokenReader
    proofs: ProofReader
    chains: ChainIssuer | None = None
    roles: Mapping[str, Role] = field(default_factory=lambda: SHIPPED)
    hops: HopCount = field(default_factory=HopCount)
    seen: ProofWindow = field(default_factory=ProofWindow)
    place: str = ""
    identify: Callable[[Any], Peer] | None = None
    svids: JwtSvidReader | None = None
    ceiling: NodeCeiling = OPEN

    @property
    def issuer(self) -> str:
        """Return the issuer, which is also the audience. Raises Unavailable before the node knows its address."""
        if not self.place:
            raise Unavailable("The node is about to be ready.", code="node_starting", retry_after_sec=1)
        return self.place
