"""Keys that sign tokens (ES256): a set rotates by itself, with overlap; each private key in a file of its own, or in an HSM."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from crank.adapters.authority.files import damaged, new_key, read_key, remove, write, write_key
from crank.adapters.authority.key_store import KeyStore
from crank.domain.json import JsonObject
from crank.domain.rules.key_overlap import KeyTimes, Lives, plan
from crank.errors import ConfigurationError, Unavailable
from crank.ports import Clock, IdSource

# A week of signing; seen twelve refresh hints ahead; kept longer than any token lives.
TOKEN_KEY_LIVES = Lives(signs_sec=7 * 86_400.0, ahead_sec=3600.0, after_sec=86_400.0)
_COORDINATE_BYTES = 32
_MARK_CHARS = 12
_MARK = re.compile(rf"[0-9a-f]{{{_MARK_CHARS}}}")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Hsm:
    """Where new keys are made, and what gives them names there: nobody knows a key's thumbprint before it is made."""

    keys: KeyStore
    ids: IdSource


@dataclass(frozen=True, slots=True)
class _Set:
    """What signs and is published; `marks` are the names of those that an HSM keeps, by `kid`."""

    times: tuple[KeyTimes, ...] = ()
    keys: Mapping[str, ec.EllipticCurvePrivateKey] = field(default_factory=dict)
    marks: Mapping[str, str] = field(default_factory=dict)


class TokenKeys:
    """One set of keys, in a folder. `use` is what their JWKs say; a key of one set never serves as one of another.

    hsm  keeps the keys that are made from now on; a file `<mark>.hsm` stands for each, written before the key is made
    """

    def __init__(
        self, folder: Path, *, use: str, clock: Clock, lives: Lives = TOKEN_KEY_LIVES, hsm: Hsm | None = None
    ) -> None:
        self._folder = folder
        self._use = use
        self._clock = clock
        self._lives = lives
        self._hsm = hsm
        # Held by whoever changes the set. Whoever signs or reads takes it as it stands, and waits for no HSM.
        self._lock = threading.Lock()
        self._set = _Set()
        self._unfinished: str | None = None

    def load(self) -> None:
        """Read the keys. Raises ConfigurationError."""
        with self._lock:
            times = self._read_times()
            keys = {each.kid: read for each in times if (read := self._read(each.kid)) is not None}
            kept = self._in_hsm() if len(keys) < len(times) else {}
            for each in times:
                if each.kid not in keys and each.kid not in kept:
                    raise self._missing(each.kid)
            marks = {each.kid: kept[each.kid][0] for each in times if each.kid not in keys}
            self._set = _Set(times, {**{kid: kept[kid][1] for kid in marks}, **keys}, marks)

    def rotate(self) -> bool:
        """Make, publish and drop keys as it is due; tell whether anything changed.

        Where an HSM is away the key that signs goes on. Raises OSError, ConfigurationError (there is none yet).
        """
        with self._lock:
            before = self._set
            due = plan(before.times, self._lives, self._clock.now_us())
            if due.make_us is None and not due.drop:
                return False
            times = [each for each in before.times if each.kid not in due.drop]
            keys = {each.kid: before.keys[each.kid] for each in times}
            marks = {kid: mark for kid, mark in before.marks.items() if kid in keys}
            made = None if due.make_us is None else self._make(needed=not times)
            if made is not None and due.make_us is not None:
                kid, keys[kid], mark = made
                times.append(KeyTimes(kid, due.make_us))
                marks |= {} if mark is None else {kid: mark}
            if tuple(times) == before.times:
                return False
            # The key was first: a list never names one that is not there.
            self._write_times(times)
            self._set, self._unfinished = _Set(tuple(times), keys, marks), None
            self._forget_others(self._set)
            return True

    def sign(self, claims: JsonObject, *, kind: str) -> str:
        """Return a compact JWS by the key that signs now; `typ` is `kind`. Blocks while an HSM signs.

        Raises Unavailable (`token_key_unavailable`).
        """
        try:
            return compact_jws(self.signing_key(), claims, kind=kind)
        except ConfigurationError as fault:
            # Where the HSM is and what it said is for the log: whoever asked for a token is not its operator.
            _log.error("token_not_signed", use=self._use, cause=fault.message, fix=fault.fix)
            raise Unavailable(
                "The key that signs tokens cannot be used now.",
                code="token_key_unavailable",
                fix="Try again later; whoever runs the node finds the cause in logs/controller.log.",
            ) from fault

    def signing_key(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that signs now, for kinds of tokens that are not written here."""
        found = self._set
        kid = plan(found.times, self._lives, self._clock.now_us()).signer
        assert kid is not None, "rotate() comes first"
        return found.keys[kid]

    def public_keys(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return the public keys, the newest first."""
        return [key.public_key() for _, key in self._newest_first()]

    def public(self) -> Sequence[JsonObject]:
        """Return the public JWKs, the newest first; one that does not sign yet among them."""
        return [
            {**jwk_of(key.public_key()), "use": self._use, "kid": kid, "alg": "ES256"}
            for kid, key in self._newest_first()
        ]

    def _newest_first(self) -> list[tuple[str, ec.EllipticCurvePrivateKey]]:
        found = self._set
        ordered = sorted(found.times, key=lambda each: each.signs_us, reverse=True)
        return [(each.kid, found.keys[each.kid]) for each in ordered]

    # --- where keys are -------------------------------------------------------------------------

    def _make(self, *, needed: bool) -> tuple[str, ec.EllipticCurvePrivateKey, str | None] | None:
        """Make a key; return its `kid`, the key, and its mark in the HSM. None where the HSM cannot, and may be late."""
        if self._hsm is None:
            key = new_key()
            kid = thumbprint(jwk_of(key.public_key()))
            write_key(self._path(kid), key)
            return kid, key, None
        try:
            mark = self._begun(self._hsm)
            key = self._hsm.keys.find(mark) or self._hsm.keys.make(mark)
        except ConfigurationError as fault:
            if needed:
                raise
            _log.warning("token_key_not_made", use=self._use, cause=fault.message, fix=fault.fix)
            return None
        return thumbprint(jwk_of(key.public_key())), key, mark

    def _begun(self, hsm: Hsm) -> str:
        """Return the name of the key to make, written down first: a crash leaves none in the HSM that nobody knows of."""
        if self._unfinished is None:
            mark = _mark_from(hsm.ids)
            while hsm.keys.find(mark) is not None:
                mark = _mark_from(hsm.ids)
            write(self._reference(mark), f"{hsm.keys.place(mark)}\n".encode(), mode=0o600)
            self._unfinished = mark
        return self._unfinished

    def _in_hsm(self) -> dict[str, tuple[str, ec.EllipticCurvePrivateKey]]:
        found = {}
        for mark in self._references() if self._hsm is not None else ():
            assert self._hsm is not None, "looked at just now"
            key = self._hsm.keys.find(mark)
            if key is not None:
                found[thumbprint(jwk_of(key.public_key()))] = (mark, key)
        return found

    def _missing(self, kid: str) -> ConfigurationError:
        if not self._references():
            return damaged(self._path(kid), "the key cannot be read")
        if self._hsm is None:
            return damaged(self._folder, "its keys are in an HSM, and the settings name none", fix="Set hsm_module again.")
        return damaged(self._folder, f"the key {kid} is no longer in the HSM")

    def _forget_others(self, kept: _Set) -> None:
        for path in self._folder.glob("*.pem"):
            if path.stem not in kept.keys:
                remove(path)
        for mark in self._references() if self._hsm is not None else ():
            assert self._hsm is not None, "looked at just now"
            if mark in kept.marks.values():
                continue
            try:
                self._hsm.keys.remove(mark)
                remove(self._reference(mark))
            except ConfigurationError as fault:
                # It is published no more, so what it signs is worth nothing; with the next change it is tried again.
                _log.warning("old_token_key_not_removed", use=self._use, cause=fault.message)

    def _references(self) -> list[str]:
        return sorted(path.stem for path in self._folder.glob("*.hsm") if _MARK.fullmatch(path.stem))

    def _reference(self, mark: str) -> Path:
        return self._folder / f"{mark}.hsm"

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

    def _read(self, kid: str) -> ec.EllipticCurvePrivateKey | None:
        if not self._path(kid).exists():
            return None
        key = read_key(self._path(kid))
        if thumbprint(jwk_of(key.public_key())) != kid:
            raise damaged(self._path(kid), "it is another key than its name says")
        return key

    def _path(self, kid: str) -> Path:
        return self._folder / f"{kid}.pem"


def _mark_from(ids: IdSource) -> str:
    return hashlib.sha256(ids.secret().encode()).hexdigest()[:_MARK_CHARS]


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
