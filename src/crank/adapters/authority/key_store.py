"""Where authority keys are kept: in files of mode 0600, unless an HSM keeps them."""

from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.authority.files import new_key, read_key, remove, write_key

KEY_FILE = "authority-key.pem"


class KeyStore(Protocol):
    """Keeps the online key of each generation, by the generation's mark."""

    def find(self, mark: str) -> ec.EllipticCurvePrivateKey | None:
        """Return the key, or None where there is none. Raises ConfigurationError."""
        ...

    def make(self, mark: str) -> ec.EllipticCurvePrivateKey:
        """Make the key. Raises ConfigurationError."""
        ...

    def remove(self, mark: str) -> None:
        """Destroy the key; one that is gone already is no fault."""
        ...

    def place(self, mark: str) -> str:
        """Return in words where the key is."""
        ...


class FileKeys:
    """Keys in the folders of their generations."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def find(self, mark: str) -> ec.EllipticCurvePrivateKey | None:
        """Return the key, or None where there is none."""
        path = self._path(mark)
        return read_key(path) if path.exists() else None

    def make(self, mark: str) -> ec.EllipticCurvePrivateKey:
        """Make the key."""
        key = new_key()
        write_key(self._path(mark), key)
        return key

    def remove(self, mark: str) -> None:
        """Destroy the key."""
        remove(self._path(mark))

    def place(self, mark: str) -> str:
        """Return the path."""
        return str(self._path(mark))

    def _path(self, mark: str) -> Path:
        return self._root / mark / KEY_FILE
