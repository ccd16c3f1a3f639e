"""The authority of one trust domain: it issues identities, and says by what they are checked."""

from collections.abc import Sequence
from typing import Protocol

from crank.domain.identity import SpiffeId
from crank.domain.json import JsonObject
from crank.domain.trust import AuthorityStatus, Rotation, RotationStep, SignedLists, Svid, TrustBundle, Workload


class Authority(Protocol):
    """Issues for one trust domain. Quick enough for a loop's thread; safe in threads.

    Whom to issue to is decided before it is asked.
    """

    @property
    def trust_domain(self) -> str:
        """Return the name of the trust domain."""
        ...

    def issue(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        *,
        hosts: Sequence[str] = (),
        ttl_sec: float | None = None,
    ) -> Svid:
        """Issue an X.509-SVID for a P-256 public key (DER SubjectPublicKeyInfo).

        hosts    DNS names and addresses that it may serve under
        ttl_sec  at most this long; None: as long as the operator chose
        Raises InvalidRequest (`invalid_key`; another trust domain), ConfigurationError (damaged files).
        """
        ...

    def sign_jwt_svid(self, claims: JsonObject) -> str:
        """Sign the claims of a JWT-SVID (ES256, compact, `typ` JWT, `kid` of the bundle). May block, as the next.

        Raises Unavailable (`token_key_unavailable`).
        """
        ...

    def sign_access_token(self, claims: JsonObject) -> str:
        """Sign the claims of a capability token (ES256, `typ` at+jwt), by a key that signs nothing else."""
        ...

    def access_token_keys(self) -> Sequence[JsonObject]:
        """Return the public JWKs (`use` sig, `kid`) by which capability tokens are checked, the newest first."""
        ...

    def bundle(self) -> TrustBundle:
        """Return the bundle as it stands."""
        ...

    async def next_bundle(self, sequence: int) -> TrustBundle:
        """Return the bundle once its sequence is another than this one."""
        ...

    def sign_revocations(self, serials: Sequence[tuple[str, int]], *, number: int, next_update_sec: float) -> SignedLists:
        """Return lists of serials and the times, in microseconds, of their revocation, by every authority that is published.

        Each holds all of them: whose leaf it was, nobody needs to know.
        """
        ...


class RootRotation(Protocol):
    """The operator's side of an authority: how it stands, and the change to another root."""

    def status(self) -> AuthorityStatus:
        """Return how the authority stands. Raises ConfigurationError (damaged files)."""
        ...

    def turn_root(
        self, step: RotationStep, *, unaware: Sequence[str] = (), followed: bool = False, force: bool = False
    ) -> Rotation:
        """Take a step, durably: a crash leaves the state before it or after it. Blocking.

        unaware   connected workers that have not acknowledged the bundle as it stands
        followed  others, who acknowledge nothing, may follow the bundle
        Raises Conflict (`rotation_phase`, `bundle_not_acknowledged`, `root_too_new`, `leaves_alive`), Unavailable,
        ConfigurationError.
        """
        ...
