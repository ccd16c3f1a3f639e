"""The authority's key in a hardware security module, reached by PKCS#11. The key is made there and never leaves it.

python-pkcs11 is optional (`crank[hsm]`); this module is loaded where an HSM is configured.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_der_public_key
from pkcs11.exceptions import PKCS11Error
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from crank.errors import ConfigurationError

T = TypeVar("T")
PIN_BYTES_MAX = 256
# python-pkcs11 tells the module that this program calls it from one thread at a time (C_Initialize without arguments),
# and modules believe it: SoftHSM2 crashes otherwise. Each call has a session of its own, that no other thread sees.
_ONE_AT_A_TIME = threading.Lock()
_CURVE = "secp256r1"
_COORDINATE_BYTES = 32
# Lost with the HSM's restart: a module that starts anew may mend it.
_LOST = (
    pkcs11.exceptions.SessionHandleInvalid,
    pkcs11.exceptions.SessionClosed,
    pkcs11.exceptions.UserNotLoggedIn,
    pkcs11.exceptions.DeviceRemoved,
    pkcs11.exceptions.ObjectHandleInvalid,
    pkcs11.exceptions.KeyHandleInvalid,
)


class HsmKeys:
    """The KeyStore in one token.

    module    path of the vendor's PKCS#11 library
    token     label of the token
    pin_file  file of mode 0600 with the user's PIN alone; the PIN is never in the environment
    """

    def __init__(self, module: Path, token: str, pin_file: Path) -> None:
        self._module = module
        self._label = token
        self._pin_file = pin_file
        self._pin_is_wrong = False

    def find(self, mark: str) -> "TokenKey | None":
        """Return the key, or None where there is none. Raises ConfigurationError."""

        def look(session: Any) -> "TokenKey | None":
            found = _find(session, mark, pkcs11.ObjectClass.PRIVATE_KEY)
            if found is None:
                return None
            _check_kept(found)
            public = _find(session, mark, pkcs11.ObjectClass.PUBLIC_KEY)
            if public is None:
                _fail("the token has the authority's private key and not its public one")
            return TokenKey(self, mark, _read_public(public))

        return self.run(look)

    def make(self, mark: str) -> "TokenKey":
        """Make the key in the token: sensitive, not extractable, for signing alone. Raises ConfigurationError."""

        def generate(session: Any) -> "TokenKey":
            parameters = session.create_domain_parameters(
                pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: encode_named_curve_parameters(_CURVE)}, local=True
            )
            public, private = parameters.generate_keypair(
                store=True,
                label=_name(mark),
                id=bytes.fromhex(mark),
                capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
                private_template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
            )
            _check_kept(private)
            return TokenKey(self, mark, _read_public(public))

        return self.run(generate, writing=True)

    def remove(self, mark: str) -> None:
        """Destroy the key. Raises ConfigurationError."""

        def destroy(session: Any) -> None:
            for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY):
                found = _find(session, mark, kind)
                if found is not None:
                    found.destroy()

        self.run(destroy, writing=True)

    def place(self, mark: str) -> str:
        """Return in words where the key is."""
        return f"the token {self._label!r} of {self._module}, as {_name(mark)}"

    def run(self, work: Callable[[Any], T], *, writing: bool = False) -> T:
        """Do something in a session of its own; one that was lost is made again, once. Raises ConfigurationError."""
        with _ONE_AT_A_TIME:
            try:
                try:
                    return self._in_session(work, writing)
                except _LOST:
                    pkcs11.lib(str(self._module)).reinitialize()
                    return self._in_session(work, writing)
            except PKCS11Error as fault:
                raise _unusable(f"the token {self._label!r} refused: {_said(fault)}") from fault

    def _in_session(self, work: Callable[[Any], T], writing: bool) -> T:
        if self._pin_is_wrong:
            _fail(f"the token {self._label!r} refused the PIN, and too many wrong ones would lock it")
        token = self._token()
        try:
            # Logged in each time: what a restarted HSM has forgotten is not missed, and private keys never seem gone.
            opened = token.open(rw=writing, user_pin=self._pin())
        except pkcs11.exceptions.UserAlreadyLoggedIn:
            # Something else in this program did, and its login counts for all.
            opened = token.open(rw=writing)
        except (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinLocked):
            self._pin_is_wrong = True
            raise
        with opened as session:
            return work(session)

    def _token(self) -> Any:
        try:
            return pkcs11.lib(str(self._module)).get_token(token_label=self._label)
        except (pkcs11.exceptions.NoSuchToken, pkcs11.exceptions.MultipleTokensReturned) as fault:
            raise _unusable(f"{self._module} has not exactly one token {self._label!r}") from fault
        except (PKCS11Error, RuntimeError, OSError) as fault:
            raise _unusable(f"the module {self._module} cannot be used: {_said(fault)}") from fault

    def _pin(self) -> str:
        try:
            if self._pin_file.stat().st_mode & 0o077:
                raise _unusable(f"other accounts may read {self._pin_file}", fix=f"chmod 600 {self._pin_file}")
            pin = self._pin_file.read_bytes()[: PIN_BYTES_MAX + 1].decode().strip()
        except (OSError, UnicodeDecodeError) as fault:
            raise _unusable(f"the PIN cannot be read from {self._pin_file}") from fault
        if not 0 < len(pin) <= PIN_BYTES_MAX:
            raise _unusable(f"there is no PIN in {self._pin_file}")
        return pin


class TokenKey(ec.EllipticCurvePrivateKey):
    """A private key whose only use is to sign: it is in the token, this object asks."""

    def __init__(self, keys: HsmKeys, mark: str, public: ec.EllipticCurvePublicKey) -> None:
        self._keys = keys
        self._mark = mark
        self._public = public

    @property
    def curve(self) -> ec.EllipticCurve:
        """Return P-256."""
        return ec.SECP256R1()

    @property
    def key_size(self) -> int:
        """Return 256 bits."""
        return self.curve.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public half."""
        return self._public

    def sign(
        self,
        data: Any,
        signature_algorithm: ec.EllipticCurveSignatureAlgorithm,
        *,
        rng: Any = None,
    ) -> bytes:
        """Sign octets: hashed here, signed there. Raises ConfigurationError."""
        if not isinstance(signature_algorithm, ec.ECDSA) or not isinstance(signature_algorithm.algorithm, hashes.SHA256):
            raise TypeError("The authority signs by ECDSA with SHA-256.")
        hashing = hashes.Hash(hashes.SHA256())
        hashing.update(bytes(data))
        digest = hashing.finalize()

        def ask(session: Any) -> bytes:
            key = _find(session, self._mark, pkcs11.ObjectClass.PRIVATE_KEY)
            if key is None:
                _fail(f"the key {_name(self._mark)} is no longer in the token")
            return bytes(key.sign(digest, mechanism=pkcs11.Mechanism.ECDSA))

        raw = self._keys.run(ask)
        first, second = raw[:_COORDINATE_BYTES], raw[_COORDINATE_BYTES:]
        return encode_dss_signature(int.from_bytes(first, "big"), int.from_bytes(second, "big"))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Refuse: the key signs."""
        raise TypeError("This key signs, and does nothing else.")

    def private_numbers(self) -> NoReturn:
        """Refuse: the key does not leave its token."""
        raise TypeError("This key does not leave its token.")

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> NoReturn:  # noqa: A002 - the base's word
        """Refuse: the key does not leave its token."""
        raise TypeError("This key does not leave its token.")

    def __copy__(self) -> "TokenKey":
        return self

    def __deepcopy__(self, memo: Any) -> "TokenKey":
        return self


def _name(mark: str) -> str:
    return f"crank-authority-{mark}"


def _find(session: Any, mark: str, kind: pkcs11.ObjectClass) -> Any:
    wanted = {pkcs11.Attribute.CLASS: kind, pkcs11.Attribute.LABEL: _name(mark), pkcs11.Attribute.ID: bytes.fromhex(mark)}
    found = list(session.get_objects(wanted))
    if len(found) > 1:
        _fail(f"the token has more than one key {_name(mark)}")
    return found[0] if found else None


def _check_kept(private: Any) -> None:
    kept = private[pkcs11.Attribute.SENSITIVE] and not private[pkcs11.Attribute.EXTRACTABLE]
    if not kept:
        _fail("the token would give the authority's key away; it must be sensitive and not extractable")


def _read_public(public: Any) -> ec.EllipticCurvePublicKey:
    key = load_der_public_key(encode_ec_public_key(public))
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        _fail("the key in the token is not one on the curve P-256")
    return key


def _said(fault: Exception) -> str:
    return str(fault) or type(fault).__name__


def _fail(cause: str) -> NoReturn:
    raise _unusable(cause)


def _unusable(cause: str, *, fix: str | None = None) -> ConfigurationError:
    return ConfigurationError(
        f"The HSM cannot be used: {cause}.",
        code="hsm_unusable",
        field="hsm_module",
        fix=fix or "Check hsm_module, hsm_token and hsm_pin_file; 'softhsm2-util --show-slots' or the vendor's tool shows tokens.",
    )
