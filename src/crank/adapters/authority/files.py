"""Keys and certificates in files: written whole, keys readable by their owner alone, damage named by its file."""

import contextlib
import os
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from crank.errors import ConfigurationError

FILE_BYTES_MAX = 256 * 1024
# A key on P-256 takes 241. Of other kinds a large one takes a processor for minutes before it is known to be none of ours.
KEY_BYTES_MAX = 4 * 1024


def damaged(path: Path, cause: str, *, fix: str | None = None) -> ConfigurationError:
    """Make the fault that names a file which cannot be used."""
    return ConfigurationError(
        f"{path}: {cause}.",
        code="identity_damaged",
        field=str(path),
        fix=fix or f"Restore {path.parent} from a backup, or remove it: the node then makes new identities.",
    )


def write(path: Path, content: bytes, *, mode: int) -> None:
    """Put a file in place whole; a secret is never readable by others, not even for a moment."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if mode == 0o600:
        path.parent.chmod(0o700)
    if mode != 0o600 and path.exists() and path.read_bytes() == content:
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    with contextlib.suppress(FileNotFoundError):
        beside.unlink()
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "wb") as target:
        # Whatever the umask is: a worker with an account of its own reads what its controller renews.
        os.fchmod(target.fileno(), mode)
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
    beside.replace(path)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file for good; one that is gone already is no fault."""
    path.unlink(missing_ok=True)
    if path.parent.is_dir():
        sync(path.parent)


def sync(folder: Path) -> None:
    """Make sure that what was put into a folder, or taken out, outlives a crash."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fsync(descriptor)
    os.close(descriptor)


def new_key() -> ec.EllipticCurvePrivateKey:
    """Make a key on the curve P-256."""
    return ec.generate_private_key(ec.SECP256R1())


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key (PKCS#8, PEM, mode 0600)."""
    octets = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write(path, octets, mode=0o600)


def ensure_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, made now where there is none. Raises ConfigurationError."""
    if not path.exists():
        key = new_key()
        write_key(path, key)
        return key
    return read_key(path)


def _octets(path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Read a file of keys or certificates. A worker's key is its own account's, who may write what it likes into it."""
    with path.open("rb") as source:
        octets = source.read(bytes_max + 1)
    if len(octets) > bytes_max:
        raise ValueError("The file is too large.")
    return octets


def load_key(path: Path) -> PrivateKeyTypes:
    """Load a private key of any kind. Raises OSError, ValueError, TypeError, UnsupportedAlgorithm."""
    # An RSA key is proved to be one before its kind is told, with the whole process standing still; ours is never RSA.
    return serialization.load_pem_private_key(
        _octets(path, KEY_BYTES_MAX), password=None, unsafe_skip_rsa_key_validation=True
    )


def read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read a private key. Raises ConfigurationError when it is damaged, of another kind or open to other accounts."""
    try:
        loaded = load_key(path)
        open_to_others = path.stat().st_mode & 0o077
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise damaged(path, "the key cannot be read") from fault
    if open_to_others:
        raise damaged(path, "other accounts may read the key", fix=f"Run 'chmod 600 {path}' if nobody else used it.")
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise damaged(path, "the key is not one on the curve P-256")
    return loaded


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a file. Raises ConfigurationError."""
    try:
        return x509.load_pem_x509_certificate(_octets(path))
    except (OSError, ValueError) as fault:
        raise damaged(path, "the certificate cannot be read") from fault


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Read all certificates of a file, one at least. Raises ConfigurationError."""
    try:
        return x509.load_pem_x509_certificates(_octets(path))
    except (OSError, ValueError) as fault:
        raise damaged(path, "the certificates cannot be read") from fault


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates in PEM, one after the other."""
    return b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)


def der(certificate: x509.Certificate) -> bytes:
    """Return a certificate in DER."""
    return certificate.public_bytes(serialization.Encoding.DER)
