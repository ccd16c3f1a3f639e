"""One generation: a root and the authority that it signed. A root's key is made here, written away and forgotten."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from crank.adapters.authority.files import damaged, new_key, pem, read_certificate, remove, sync, write, write_key
from crank.adapters.authority.key_store import FileKeys, KeyStore
from crank.adapters.authority.linter import lint_signing
from crank.adapters.authority.revocations import sign_list
from crank.adapters.authority.shapes import Shapes, Signer, mark_of

ROOT_FILE, AUTHORITY_FILE, LIST_FILE = "root.pem", "authority.pem", "root.crl"
OFFLINE = "offline"
_MARK = re.compile(r"[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Generation:
    """The root's certificate, and the authority's key and certificate.

    root_list  the root's own list of revocations (DER), which is empty; None where an older version made the root
    """

    mark: str
    root: x509.Certificate
    authority: Signer
    key_place: str
    root_list: bytes | None = None


def root_keys_in(folder: Path) -> tuple[Path, ...]:
    """Return root keys that still lie beside the node; looked for by name, never opened."""
    return tuple(sorted((folder / OFFLINE).glob("root-key*.pem")))


class Generations:
    """The folder of all generations, each in a folder named by its root's mark."""

    def __init__(self, folder: Path, shapes: Shapes, keys: KeyStore) -> None:
        self._folder = folder
        self._shapes = shapes
        self._files = FileKeys(folder)
        self._keys = keys

    def make(self) -> Generation:
        """Make a root and an authority signed by it; the root's key goes to the folder `offline`, and nowhere else.

        The authority's certificate is written last: a folder that has it is complete.
        """
        root_key = new_key()
        mark = mark_of(root_key.public_key())
        root = self._shapes.root(root_key)
        write_key(self._root_key_path(mark), root_key)
        folder = self._folder / mark
        write(folder / ROOT_FILE, pem(root), mode=0o644)
        # Who checks whole chains by lists wants one of the root as well, and its key signs nothing later.
        life_sec = (root.not_valid_after_utc - self._shapes.now()).total_seconds()
        root_list = sign_list(Signer(root_key, root), [], number=1, now=self._shapes.now(), next_update_sec=life_sec)
        write(folder / LIST_FILE, root_list, mode=0o644)
        key = self._keys.make(mark)
        authority = self._shapes.authority(key.public_key(), Signer(root_key, root))
        lint_signing(root, root, self._shapes.trust_domain)
        lint_signing(authority, root, self._shapes.trust_domain)
        write(folder / AUTHORITY_FILE, pem(authority), mode=0o644)
        return Generation(mark, root, Signer(key, authority), self._keys.place(mark), root_list)

    def load(self, mark: str) -> Generation:
        """Read a generation and check that its parts belong together. Raises ConfigurationError."""
        folder = self._folder / mark
        root = read_certificate(folder / ROOT_FILE)
        certificate = read_certificate(folder / AUTHORITY_FILE)
        store: KeyStore = self._files
        key = store.find(mark)
        if key is None:
            store = self._keys
            key = store.find(mark)
        if key is None:
            raise damaged(folder, f"the authority's key is missing; it should be at {store.place(mark)}")
        self._check(folder, root, Signer(key, certificate))
        return Generation(mark, root, Signer(key, certificate), store.place(mark), _root_list(folder / LIST_FILE, root))

    def complete(self) -> tuple[str, ...]:
        """Return the marks of the generations that were made to their end."""
        return tuple(folder.name for folder in self._folders() if (folder / AUTHORITY_FILE).exists())

    def keep_only(self, marks: frozenset[str]) -> None:
        """Destroy the keys and files of every other generation, half-made ones too."""
        for folder in self._folders():
            if folder.name not in marks:
                remove(self._folder / OFFLINE / f"root-key-{folder.name}.pem")
                self._files.remove(folder.name)
                self._keys.remove(folder.name)
                shutil.rmtree(folder)
                sync(self._folder)

    def _folders(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*/") if _MARK.fullmatch(path.name))

    def _root_key_path(self, mark: str) -> Path:
        path = self._folder / OFFLINE / "root-key.pem"
        # The first one's name is told everywhere; a later one never takes the place of a key that lies there.
        return path if not self.complete() else path.with_name(f"root-key-{mark}.pem")

    def _check(self, folder: Path, root: x509.Certificate, authority: Signer) -> None:
        certificate = authority.certificate
        if certificate.public_key() != authority.key.public_key():
            raise damaged(folder / AUTHORITY_FILE, "the authority's key and certificate do not belong together")
        for each, path in ((root, folder / ROOT_FILE), (certificate, folder / AUTHORITY_FILE)):
            try:
                each.verify_directly_issued_by(root)
                names = each.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as fault:
                raise damaged(path, "it is not signed by the root beside it") from fault
            uris = names.get_values_for_type(x509.UniformResourceIdentifier)
            if uris != [f"spiffe://{self._shapes.trust_domain}"]:
                raise damaged(path, f"it is not of the trust domain {self._shapes.trust_domain}")
            if each.not_valid_after_utc <= self._shapes.now():
                raise damaged(
                    path,
                    "it has expired, and was not replaced in time by 'crank identity rotate'",
                    fix=f"Move {self._folder} away: the node makes another authority, and workers elsewhere join again.",
                )


def _root_list(path: Path, root: x509.Certificate) -> bytes | None:
    if not path.exists():
        return None
    octets = path.read_bytes()
    try:
        found = x509.load_der_x509_crl(octets)
        key = root.public_key()
        good = found.issuer == root.subject and isinstance(key, EllipticCurvePublicKey) and found.is_signature_valid(key)
    except (ValueError, TypeError) as fault:
        raise damaged(path, "the root's list of revocations cannot be read") from fault
    if not good:
        raise damaged(path, "it is not the list of the root beside it")
    return octets
