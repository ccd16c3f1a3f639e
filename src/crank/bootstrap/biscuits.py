"""Biscuits, wired: keys of a set of their own sign them, and follow each other by themselves."""

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.authority.token_keys import TokenKeys
from crank.adapters.biscuit import BiscuitIssuer
from crank.config import Settings
from crank.ports import Clock


class BiscuitKeys:
    """One set of keys in the authority's folder. What is due with them is done when they are asked for."""

    def __init__(self, keys: TokenKeys) -> None:
        self._keys = keys

    def signing(self) -> ec.EllipticCurvePrivateKey:
        """Return the key that signs now."""
        self._keys.rotate()
        return self._keys.signing_key()

    def believed(self) -> Sequence[ec.EllipticCurvePublicKey]:
        """Return every key whose tokens may still live, the newest first."""
        self._keys.rotate()
        return self._keys.public_keys()


def open_biscuits(settings: Settings, clock: Clock) -> BiscuitIssuer | None:
    """Return what mints and opens Biscuits on this node; None: it does neither. Raises ConfigurationError (damaged keys).

    Their library takes the private key itself, which an HSM gives to nobody: beside one they are made only if the
    operator said that these keys may lie in files.
    """
    if settings.hsm_module is not None and not settings.biscuit_keys_in_files:
        return None
    keys = TokenKeys(settings.authority_dir / "biscuit", use="sig", clock=clock)
    keys.load()
    keys.rotate()
    return BiscuitIssuer(BiscuitKeys(keys))
