"""Taking root keys away from the node: each is copied, the copy read back and proved, and only then is the original ended."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from crank.adapters.authority.files import KEY_BYTES_MAX, damaged, read_certificate, read_key, remove, sync
from crank.adapters.authority.generation import AUTHORITY_FILE, OFFLINE, ROOT_FILE, root_keys_in
from crank.adapters.authority.shapes import mark_of
from crank.errors import ConfigurationError, Conflict, InvalidRequest, NotFound
from crank.ports import Failpoints

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OLD = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class MovedKey:
    """Where the key of the root with this mark lay, and where it lies now."""

    mark: str
    origin: Path
    target: Path


@dataclass(frozen=True, slots=True)
class _Found:
    path: Path
    octets: bytes
    mark: str
    root: x509.Certificate
    target: Path


def move_root_keys(
    folder: Path,
    place: Path,
    *,
    home: Path,
    same_disk: bool,
    failpoints: Failpoints,
    device_of: Callable[[Path], int] = lambda path: path.stat().st_dev,
) -> tuple[Sequence[MovedKey], bool]:
    """Move every root key of the authority in `folder` to `place`; tell which, and whether that is another file system.

    All keys and names are looked at before any is touched. After a crash anywhere a repeat goes on.
    Raises ConfigurationError, Conflict, InvalidRequest, NotFound, OSError; an original is there unless its copy is proved.
    """
    if not (folder / OFFLINE).is_dir():
        raise NotFound(
            f"There is no authority of a node in {home}.",
            code="authority_missing",
            fix="Set CRANK_HOME to the node's home, or start the node once.",
        )
    place = _usable(place, home)
    apart = device_of(place) != device_of(folder / OFFLINE)
    if not apart and not same_disk:
        raise InvalidRequest(
            f"{place} lies on the same file system as the node: a key there is not offline.",
            code="root_key_same_disk",
            field="dir",
            fix="Name a folder on a medium that you take away; or, to move it there all the same, add --same-disk.",
        )
    with _alone(folder / OFFLINE):
        found = [each for each in (_find(folder, path, place) for path in root_keys_in(folder)) if each is not None]
        lies = [_is_there(each) for each in found]
        for each, copied in zip(found, lies, strict=True):
            if not copied:
                _copy(each)
            _prove(each)
            failpoints.reach("root_key.copied")
            _end(each.path, failpoints)
    return tuple(MovedKey(each.mark, each.path, each.target) for each in found), apart


def _usable(place: Path, home: Path) -> Path:
    try:
        # What the operator named may be a link; from there on down nothing may.
        place = place.resolve(strict=True)
        is_folder = place.is_dir()
        inside = any(each.samefile(home) for each in (place, *place.parents))
    except OSError as fault:
        raise _no_place(f"{str(place)[:200]!r}: {fault.strerror}") from fault
    if not is_folder:
        raise _no_place(f"{str(place)[:200]!r} is not a folder")
    if inside:
        raise _no_place(f"{place} is inside the node's home, with which it is copied and stolen")
    return place


def _no_place(cause: str) -> InvalidRequest:
    return InvalidRequest(
        f"No root key can be moved there: {cause}.",
        code="root_key_folder_unusable",
        field="dir",
        fix="Name a folder that is there, outside of the node's home.",
    )


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no second move run beside this one; a process that ends leaves nothing locked."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _find(folder: Path, path: Path, place: Path) -> _Found | None:
    """Return a key with its root; None: an earlier move was cut off when nothing of the key was left."""
    octets = _read(path)
    if octets and not octets.strip(b"\0"):
        remove(path)
        return None
    public = read_key(path).public_key()
    mark = mark_of(public)
    # A root whose making was cut off has no authority, and the node makes another key of the same name.
    if not (folder / mark / AUTHORITY_FILE).exists():
        raise Conflict(
            f"{path} fits no root of this node: its root was retired, or was never finished.",
            code="root_key_stray",
            field=str(path),
            fix=f"While no change of root is being prepared it is of no use: rm {path}",
        )
    root = read_certificate(folder / mark / ROOT_FILE)
    if root.public_key() != public:
        raise damaged(folder / mark / ROOT_FILE, f"it is not the certificate that belongs to {path}")
    return _Found(path, octets, mark, root, place / f"crank-root-{_domain(root)}-{mark}.pem")


def _domain(root: x509.Certificate) -> str:
    names = root.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri.removeprefix("spiffe://")


def _read(path: Path) -> bytes:
    descriptor = os.open(path, _OLD)
    with os.fdopen(descriptor, "rb") as source:
        return source.read(KEY_BYTES_MAX + 1)


def _is_there(found: _Found) -> bool:
    """Tell whether an earlier move has made this copy. Raises Conflict (`root_key_file_taken`)."""
    try:
        seen = found.target.lstat()
    except FileNotFoundError:
        return False
    own = found.path.lstat()
    if not stat.S_ISREG(seen.st_mode) or os.path.samestat(seen, own) or _read(found.target) != found.octets:
        raise Conflict(
            f"{found.target} is there already, and is not a copy of {found.path}.",
            code="root_key_file_taken",
            field=str(found.target),
            fix="Name another folder, or move that file away.",
        )
    return True


def _copy(found: _Found) -> None:
    beside = found.target.with_name(f".{found.target.name}.new")
    # Of a move that was cut off in the middle.
    beside.unlink(missing_ok=True)
    try:
        descriptor = os.open(beside, _NEW, 0o600)
        with os.fdopen(descriptor, "wb") as copy:
            copy.write(found.octets)
            copy.flush()
            os.fsync(descriptor)
        beside.rename(found.target)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    sync(found.target.parent)


def _prove(found: _Found) -> None:
    """Read the copy back from the medium, and hold it against the original and the root's certificate."""
    descriptor = os.open(found.target, _OLD)
    with os.fdopen(descriptor, "rb") as copy:
        # File systems without permissions refuse; what counts is who can read it.
        with contextlib.suppress(PermissionError):
            os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
        # Else what is read is what was written, out of memory.
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        octets = copy.read(KEY_BYTES_MAX + 1)
        readable = os.fstat(descriptor).st_mode & 0o077
    if octets != found.octets:
        raise _bad_copy(f"what was read back from {found.target} is not what was written")
    key = load_pem_private_key(octets, password=None, unsafe_skip_rsa_key_validation=True)
    if key.public_key() != found.root.public_key():
        raise _bad_copy(f"what was read back from {found.target} does not fit the certificate of its root")
    if readable:
        found.target.unlink()
        raise ConfigurationError(
            f"Other accounts of this machine could read {found.target}.",
            code="root_key_readable",
            field="dir",
            fix="Use a file system with permissions, or mount this one for yourself alone (umask=077); the key is where it was.",
        )
    sync(found.target.parent)


def _bad_copy(cause: str) -> ConfigurationError:
    return ConfigurationError(
        f"The root key was not moved: {cause}.",
        code="root_key_copy_bad",
        field="dir",
        fix="Use another medium; the key is where it was.",
    )


def _end(path: Path, failpoints: Failpoints) -> None:
    """Overwrite a file and remove it. What file systems and disks keep of old blocks is beyond that."""
    with path.open("r+b", buffering=0) as original:
        original.write(bytes(os.fstat(original.fileno()).st_size))
        os.fsync(original.fileno())
    failpoints.reach("root_key.overwritten")
    remove(path)
