"""Keys that sign tokens (ES256): a set rotates by itself, with overlap; each private key in a file of its own."""

import base64
import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from crank.adapters.authority.files import damaged, new_key, read_key, remove, write, write_key
from crank.domain.json import JsonObject
from crank.domain.rules.key_overlap import KeyTimes, Lives, plan
from crank.ports import Clock

# A week of signing; seen twelve refresh hints ahead; kept longer than any token lives.
TOKEN_KEY_LIVES = Lives(signs_sec=7 * 86_400.0, ahead_sec=3600.0, after_sec=86_400.0)
_COORDINATE_BYTES = 32


class TokenKeys:
    """One set of keys, in a folder. `use` is what their JWKs say; a key of one set never serves as one of another."""

    def __init__(self, folder: Path, *, use: str, clock: Clock, lives: Lives = TOKEN_KEY_LIVES) -> None:
        self._folder = folder
        self._use = use
        self._clock = clock
        self._lives = lives
        self._lock = threading.Lock()
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self._times: tuple[KeyTimes, ...] = ()

    def load(self) -> None:
        """Read the keys. Raises ConfigurationError."""
        with self._lock:
            self._times = self._read_times()
            self._keys = {each.kid: self._read(each.kid) for each in self._times}

    def rotate(self) -> bool:
        """Make, publish and drop keys as it is due; tell whether anything changed. Raises OSError."""
        with self._lock:
            now_us = self._clock.now_us()
            due = plan(self._times, self._lives, now_us)
            if due.make_us is None and not due.drop:
                return False
            times = [each for each in self._times if each.kid not in due.drop]
            keys = {each.kid: self._keys[each.kid] for each in times}
            if due.make_us is not None:
                key = new_key()
                kid = thumbprint(jwk_of(key.public_key()))
                # The key first: a list never names one that is not there.
                write_key(self._path(kid), key)
                times.append(KeyTimes(kid, due.make_us))
                keys[kid] = key
            self._write_times(times)
            self._times, self._keys = tuple(times), keys
            for path in self._folder.glob("*.pem"):
                if path.stem not in keys:
                    remove(path)
            return True

    def sign(self, claims: JsonObject, *, kind: str) -> str:
        """Return a compact JWS by the key that signs now; `typ` is `kind`."""
        with self._lock:
            kid = plan(self._times, self._lives, self._clock.now_us()).signer
            assert kid is not None, "rotate() comes first"
            key = self._keys[kid]
        return compact_jws(key, claims, kind=kind)

    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that signs now, for kinds of tokens that are not written here."""
        with self._lock:
            kid = plan(self._times, self._lives, self._clock.now_us()).signer
            assert kid is not None, "rotate() comes first"
            return self._keys[kid]

    def public_keys(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return the public keys, the newest first."""
        with self._lock:
            newest_first = sorted(self._times, key=lambda each: each.signs_us, reverse=True)
            return [self._keys[each.kid].public_key() for each in newest_first]

    def public(self) -> Sequence[JsonObject]:
        """Return the public JWKs, the newest first; one that does not sign yet among them."""
        with self._lock:
            newest_first = sorted(self._times, key=lambda each: each.signs_us, reverse=True)
            return [
                {**jwk_of(self._keys[each.kid].public_key()), "use": self._use, "kid": each.kid, "alg": "ES256"}
                for each in newest_first
            ]

    def _read_times(self) -> tuple[KeyTimes, ...]:
        path = self._folder / "keys.json"
        try:
            return tuple(KeyTimes(str(kid), int(signs_us)) for kid, signs_us in json.loads(path.read_bytes()).items())
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, AttributeError, TypeError) as fault:
            raise damaged(path, "the list of keys cannot be read") from fault

    def _write_times(self, times: Sequence[KeyTimes]) -> None:
        document = {each.kid: each.signs_us for each in times}
        write(self._folder / "keys.json", json.dumps(document).encode() + b"\n", mode=0o600)

    def _read(self, kid: str) -> ec.EllipticCurvePrivateKey:
        key = read_key(self._path(kid))
        if thumbprint(jwk_of(key.public_key())) != kid:
            raise damaged(self._path(kid), "it is another key than its name says")
        return key

    def _path(self, kid: str) -> Path:
        return self._folder / f"{kid}.pem"


def compact_jws(key: ec.EllipticCurvePrivateKey, claims: JsonObject, *, kind: str) -> str:
    """Sign claims (ES256, RFC 7518 section 3.4); `kid` is the key's thumbprint, `typ` the kind."""
    header = {"alg": "ES256", "kid": thumbprint(jwk_of(key.public_key())), "typ": kind}
    signed = f"{_base64url(_compact(header))}.{_base64url(_compact(claims))}"
    first, second = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
    octets = first.to_bytes(_COORDINATE_BYTES, "big") + second.to_bytes(_COORDINATE_BYTES, "big")
    return f"{signed}.{_base64url(octets)}"


def jwk_of(key: ec.EllipticCurvePublicKey) -> JsonObject:
    """Return a public key as a JWK (RFC 7518, section 6.2), the members that its thumbprint is made of."""
    numbers = key.public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "x": _base64url(numbers.x.to_bytes(_COORDINATE_BYTES, "big")),
        "y": _base64url(numbers.y.to_bytes(_COORDINATE_BYTES, "big")),
    }


def thumbprint(jwk: JsonObject) -> str:
    """Return the SHA-256 thumbprint of a key's required members (RFC 7638)."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    return _base64url(hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest())


def _compact(value: JsonObject) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


def _base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode("ascii")
