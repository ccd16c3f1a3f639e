"""Tokens that can be narrowed and passed on without asking the node, and what the node needs to believe them."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.chain import Chain, Holder, Presenter
from crank.domain.json import JsonObject


class OpenedChain(Protocol):
    """A token whose signatures hold and whose blocks have the forms that Crank writes."""

    @property
    def chain(self) -> Chain:
        """Return what it says."""
        ...

    def evaluate(self, presenter: Presenter, now_us: int) -> None:
        """Let the token's own checks speak.

        Raises NotAuthenticated (`invalid_token`) where one fails, Unavailable (`token_check_limit`) where the evaluator
        ran out of time: that says nothing about the token.
        """
        ...


class ChainIssuer(Protocol):
    """The node's side. Quick enough for a loop's thread; safe in threads."""

    def mint(self, claims: JsonObject, holder: Holder) -> str:
        """Make a token for a holder whose key is known; `claims` has `exp` (seconds). Raises InvalidRequest."""
        ...

    def revocation_ids(self, token: str) -> Sequence[str]:
        """Return the ids of its blocks before anything of it is believed. Raises NotAuthenticated (`invalid_token`)."""
        ...

    def claimed_id(self, token: str) -> str:
        """Return the id (`jti`) that its first block claims, believed by nobody yet. Raises NotAuthenticated (`invalid_token`)."""
        ...

    def open(self, token: str) -> OpenedChain:
        """Check size, signatures and forms. Raises NotAuthenticated (`invalid_token`)."""
        ...

    def public_keys(self) -> Sequence[JsonObject]:
        """Return the public JWKs by which tokens are checked, the newest first, each with `kid` and `root_key_id`."""
        ...


class ChainHolder(Protocol):
    """The holder's side: needs no node and no secret but the holder's own key. Who issued the token, it cannot tell."""

    def look(self, token: str) -> Chain:
        """Return what a token says. Raises InvalidRequest (`not_a_biscuit`)."""
        ...

    def narrow(self, token: str, claims: JsonObject) -> str:
        """Append a hop for the same holder. Raises InvalidRequest."""
        ...

    def pass_on(self, token: str, claims: JsonObject, holder: Holder, private_key_pem: bytes) -> str:
        """Append a hop to another holder, signed by the present one's key. Raises InvalidRequest."""
        ...

    def holder(self, text: str) -> Holder:
        """Read a thumbprint, a SPIFFE ID or a public key in PEM. Raises InvalidRequest (`invalid_holder`)."""
        ...
