"""What a machine keeps of the controller that it joined: which one, as whom, and its identities. All of it is its own.

    CRANK_HOME/member/member.json   which controller, and who this node is there
                      key.pem       the node's key, made once, 0600; own.pem its certificate by that key itself
                      cert.pem      the node's X.509-SVID; ca.pem its controller's roots
                      worker-key.pem   the next key of its worker, until it has its certificate
    CRANK_HOME/worker/joined/identity   the worker's: key.pem, cert.pem, ca.pem
"""

import dataclasses
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crank.adapters.signed import own_certificate
from crank.bootstrap.files import read_json, write_whole
from crank.config import Settings
from crank.errors import ConfigurationError

# A folder of its own, so that a node of this home's own keeps its worker.
WORKER_NAME = "joined"


@dataclass(frozen=True, slots=True)
class Member:
    """Who this machine is to the controller that it joined.

    api, workers  where that controller listens: `https://host:port`, and `host:port`
    capabilities  patterns of what the worker may offer
    returns       whether this node may prove itself again by its own certificate
    """

    node_id: str
    worker_id: str
    trust_domain: str
    api: str
    workers: str
    capabilities: tuple[str, ...]
    attestation: str
    returns: bool


def member_dir(settings: Settings) -> Path:
    """Return the folder of what this machine keeps of its controller."""
    return settings.home / "member"


def as_member(settings: Settings, trust_domain: str | None = None) -> Settings:
    """Return the settings by which a joined worker runs: a folder of its own, and its controller's trust domain."""
    return dataclasses.replace(
        settings, worker_name=WORKER_NAME, trust_domain=trust_domain or settings.trust_domain
    )


def read_member(settings: Settings) -> Member | None:
    """Return whom this machine joined, or None. Raises ConfigurationError when the file is damaged."""
    path = member_dir(settings) / "member.json"
    if not path.exists():
        return None
    document = read_json(path) or {}
    try:
        return Member(**{**document, "capabilities": tuple(document["capabilities"])})
    except (KeyError, TypeError) as fault:
        raise damaged(path) from fault


def write_member(settings: Settings, member: Member) -> None:
    """Note whom this machine joined: the last step of joining."""
    write_whole(member_dir(settings) / "member.json", json.dumps(asdict(member), indent=2).encode(), mode=0o600)


def node_key(settings: Settings, now_us: int) -> tuple[ec.EllipticCurvePrivateKey, bytes]:
    """Return the node's key and the certificate that it made for itself, made at first use. Raises ConfigurationError."""
    folder = member_dir(settings)
    key = kept_key(folder / "key.pem")
    path = folder / "own.pem"
    if not path.exists():
        write_whole(path, pem([own_certificate(key, now_us)]), mode=0o644)
    (own,) = read_chain(path)[:1]
    if x509.load_der_x509_certificate(own).public_key() != key.public_key():
        raise damaged(path)
    return key, own


def kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key in a file, made when there is none. Raises ConfigurationError."""
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        form, secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        write_whole(path, key.private_bytes(serialization.Encoding.PEM, form, secret), mode=0o600)
        return key
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as fault:
        raise damaged(path) from fault
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or path.stat().st_mode & 0o077:
        raise damaged(path)
    return loaded


def pem(chain: list[bytes]) -> bytes:
    """Write DER certificates as PEM."""
    encoding = serialization.Encoding.PEM
    return b"".join(x509.load_der_x509_certificate(one).public_bytes(encoding) for one in chain)


def read_chain(path: Path) -> list[bytes]:
    """Return the certificates in a PEM file as DER. Raises ConfigurationError."""
    try:
        found = x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as fault:
        raise damaged(path) from fault
    return [one.public_bytes(serialization.Encoding.DER) for one in found]


def expires_us(settings: Settings) -> int:
    """Return when the worker's identity ends; 0 where there is none. Raises ConfigurationError."""
    path = as_member(settings).identity_dir / "cert.pem"
    if not path.exists():
        return 0
    ends = x509.load_der_x509_certificate(read_chain(path)[0]).not_valid_after_utc
    return int(ends.timestamp()) * 1_000_000


def damaged(path: Path) -> ConfigurationError:
    """Return the fault of a file that is not what it was."""
    return ConfigurationError(
        f"{path} is damaged, or open to others.",
        code="identity_damaged",
        field=str(path),
        fix="Let the controller's owner forget this node and invite it anew; then remove the folder 'member' here.",
    )
