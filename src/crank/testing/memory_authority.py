"""The Authority port in memory: real keys and certificates, no files, and a test may rotate as it likes."""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from crank.adapters.authority.authority import read_public_key, svid_of
from crank.adapters.authority.bundles import REFRESH_HINT_SEC, Bundles
from crank.adapters.authority.linter import lint_leaf
from crank.adapters.authority.revocations import sign_list
from crank.adapters.authority.shapes import Shapes, Signer, names_of
from crank.adapters.authority.token_keys import compact_jws, jwk_of, thumbprint
from crank.domain.identity import SpiffeId
from crank.domain.json import JsonObject
from crank.domain.trust import JwtAuthority, SignedLists, Svid, TrustBundle, Workload
from crank.errors import InvalidRequest
from crank.ports import Clock, IdSource


class MemoryAuthority:
    """Issues as the real one does. `change_root` and `change_keys` are for tests of what follows a rotation."""

    def __init__(self, trust_domain: str, clock: Clock, ids: IdSource, *, leaf_ttl_sec: float = 3600.0) -> None:
        self._shapes = Shapes(trust_domain, clock, ids)
        self._leaf_ttl_sec = leaf_ttl_sec
        self._bundles = Bundles()
        self._roots: list[Signer] = []
        self._authorities: list[tuple[Signer, Signer]] = []
        self._svid_keys: list[ec.EllipticCurvePrivateKey] = []
        self._token_keys: list[ec.EllipticCurvePrivateKey] = []
        self._sequence = 0
        self.change_keys()
        self.change_root()

    @property
    def trust_domain(self) -> str:
        """Return the name of the trust domain."""
        return self._shapes.trust_domain

    def issue(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        *,
        hosts: Sequence[str] = (),
        ttl_sec: float | None = None,
    ) -> Svid:
        """Issue an X.509-SVID. Raises InvalidRequest."""
        if spiffe_id.trust_domain != self.trust_domain:
            raise InvalidRequest("This authority issues for another domain.", code="foreign_trust_domain")
        if ttl_sec is not None and not ttl_sec >= 1:
            raise InvalidRequest("A certificate lives one second at least.", code="invalid_ttl", field="ttl_sec")
        authority, issuing = self._authorities[-1]
        life_sec = min(self._leaf_ttl_sec, ttl_sec or self._leaf_ttl_sec)
        leaf = self._shapes.leaf(read_public_key(public_key), names_of(spiffe_id, hosts), workload, issuing, life_sec)
        lint_leaf(leaf, issuing.certificate, self.trust_domain)
        return svid_of(spiffe_id, workload, [leaf, issuing.certificate, authority.certificate])

    def sign_jwt_svid(self, claims: JsonObject) -> str:
        """Sign the claims of a JWT-SVID."""
        return compact_jws(self._svid_keys[-1], claims, kind="JWT")

    def sign_access_token(self, claims: JsonObject) -> str:
        """Sign the claims of a capability token."""
        return compact_jws(self._token_keys[-1], claims, kind="at+jwt")

    def access_token_keys(self) -> Sequence[JsonObject]:
        """Return the public keys of capability tokens, the newest first."""
        return [_public(key, "sig") for key in reversed(self._token_keys)]

    def bundle(self) -> TrustBundle:
        """Return the bundle as it stands."""
        current = self._bundles.current()
        assert current is not None
        return current

    async def next_bundle(self, sequence: int) -> TrustBundle:
        """Return the bundle once its sequence is another than this one."""
        return await self._bundles.next(sequence)

    def sign_revocations(self, serials: Sequence[tuple[str, int]], *, number: int, next_update_sec: float) -> SignedLists:
        """Return lists by every authority whose root is in the bundle, and by those roots."""
        now = self._shapes.now()
        authorities = [authority for authority, _ in reversed(self._authorities[-len(self._roots) :])]
        return SignedLists(
            tuple(sign_list(one, serials, number=number, now=now, next_update_sec=next_update_sec) for one in authorities),
            tuple(sign_list(root, [], number=1, now=now, next_update_sec=next_update_sec) for root in self._roots),
            is_whole=True,
        )

    # --- for tests ------------------------------------------------------------------------------

    def change_root(self, *, keep_old: bool = True) -> None:
        """Sign with a new root from now on; the old ones stay in the bundle unless told otherwise."""
        root_key, key, issuing_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root = Signer(root_key, self._shapes.root(root_key))
        authority = Signer(key, self._shapes.authority(key.public_key(), root))
        issuing = Signer(issuing_key, self._shapes.issuing(issuing_key.public_key(), authority, 24 * 3600.0))
        self._roots = [*(self._roots if keep_old else []), root]
        self._authorities.append((authority, issuing))
        self._publish()

    def change_keys(self, *, keep_old: bool = True) -> None:
        """Sign both kinds of tokens with new keys from now on."""
        for keys in (self._svid_keys, self._token_keys):
            if not keep_old:
                keys.clear()
            keys.append(ec.generate_private_key(ec.SECP256R1()))
        if self._roots:
            self._publish()

    def _publish(self) -> None:
        self._sequence += 1
        self._bundles.put(
            TrustBundle(
                trust_domain=self.trust_domain,
                sequence=self._sequence,
                refresh_hint_sec=REFRESH_HINT_SEC,
                x509_authorities=tuple(each.certificate.public_bytes(Encoding.DER) for each in self._roots),
                jwt_authorities=tuple(
                    JwtAuthority(str(jwk["kid"]), jwk)
                    for jwk in (_public(key, "jwt-svid") for key in reversed(self._svid_keys))
                ),
            )
        )


def _public(key: ec.EllipticCurvePrivateKey, use: str) -> JsonObject:
    jwk = jwk_of(key.public_key())
    return {**jwk, "use": use, "kid": thumbprint(jwk), "alg": "ES256"}
