"""An authority in memory, with real keys and certificates, that a test can rotate and break."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from joserfc import jwt
from joserfc.jwk import ECKey

from crank.adapters.clock import SystemClock
from crank.domain.identity import SpiffeId
from crank.domain.json import JsonObject
from crank.domain.trust import JwtAuthority, Svid, TrustBundle, Workload
from crank.errors import CrankError
from crank.ports import Clock

_US = 1_000_000
_NEVER = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only")


class MemoryAuthority:
    """`ports.Authority` with one root and one key for tokens.

    fault  raised by whatever is to be signed, while it is set
    """

    def __init__(self, trust_domain: str = "test.internal", *, clock: Clock | None = None, life_sec: float = 600) -> None:
        self._trust_domain = trust_domain
        self._clock = clock or SystemClock()
        self._life_sec = life_sec
        self._sequence = 0
        self._changed = asyncio.Event()
        self._roots: list[x509.Certificate] = []
        self.fault: CrankError | None = None
        self.issued = 0
        self.rotate()

    @property
    def trust_domain(self) -> str:
        """Return the name of the trust domain."""
        return self._trust_domain

    def rotate(self, *, keep: bool = True) -> None:
        """Sign by new keys from now on; `keep` leaves the old root in the bundle."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"root {self._sequence}")])
        builder = self._builder(name, self._key.public_key(), 86_400, authority=True)
        names = [x509.UniformResourceIdentifier(f"spiffe://{self._trust_domain}")]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self._root = builder.issuer_name(name).sign(self._key, hashes.SHA256())
        self._roots = [*(self._roots if keep else []), self._root]
        self._token_key = ECKey.generate_key("P-256")
        self._sequence += 1
        self._changed.set()
        self._changed = asyncio.Event()

    def issue(
        self,
        spiffe_id: SpiffeId,
        workload: Workload,
        public_key: bytes,
        *,
        hosts: Sequence[str] = (),
        ttl_sec: float | None = None,
    ) -> Svid:
        """Issue a certificate."""
        if self.fault is not None:
            raise self.fault
        life_sec = min(self._life_sec, ttl_sec or self._life_sec)
        key = serialization.load_der_public_key(public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        names = [x509.UniformResourceIdentifier(str(spiffe_id)), *(x509.DNSName(host) for host in hosts)]
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        made = (
            self._builder(x509.Name([]), key, life_sec, authority=False)
            .issuer_name(self._root.subject)
            .add_extension(x509.SubjectAlternativeName(names), critical=True)
            .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.issued += 1
        now_us = self._clock.now_us()
        chain = (made.public_bytes(serialization.Encoding.DER),)
        ends_us = now_us + int(life_sec * _US)
        return Svid(spiffe_id, workload, chain, f"{made.serial_number:x}", now_us - 30 * _US, ends_us)

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, life_sec: float, *, authority: bool
    ) -> x509.CertificateBuilder:
        now = datetime.fromtimestamp(self._clock.now_us() / _US, UTC)
        usage = x509.KeyUsage(
            digital_signature=not authority, key_cert_sign=authority, crl_sign=authority, **dict.fromkeys(_NEVER, False)
        )
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(seconds=30))
            .not_valid_after(now + timedelta(seconds=life_sec))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(usage, critical=True)
        )

    def sign_jwt_svid(self, claims: JsonObject) -> str:
        """Sign the claims of a JWT-SVID."""
        if self.fault is not None:
            raise self.fault
        header = {"alg": "ES256", "typ": "JWT", "kid": self._token_key.thumbprint()}
        return str(jwt.encode(header, claims, self._token_key))

    def sign_access_token(self, claims: JsonObject) -> str:
        """Do nothing: no test of workloads needs it."""
        raise NotImplementedError

    def access_token_keys(self) -> Sequence[JsonObject]:
        """Return none."""
        return []

    def bundle(self) -> TrustBundle:
        """Return the bundle as it stands."""
        jwk = self._token_key.as_dict(private=False)
        roots = tuple(root.public_bytes(serialization.Encoding.DER) for root in self._roots)
        tokens = (JwtAuthority(self._token_key.thumbprint(), {name: jwk[name] for name in ("kty", "crv", "x", "y")}),)
        return TrustBundle(self._trust_domain, self._sequence, 300, roots, tokens)

    async def next_bundle(self, sequence: int) -> TrustBundle:
        """Return the bundle once it is another."""
        while self._sequence == sequence:
            await self._changed.wait()
        return self.bundle()

    def sign_revocations(self, serials: Sequence[tuple[str, int]], *, number: int, next_update_sec: float) -> bytes:
        """Do nothing: no test of workloads needs it."""
        raise NotImplementedError
