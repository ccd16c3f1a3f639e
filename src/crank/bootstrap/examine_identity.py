"""What the doctor says of the node's identities: roots, the authority, the worker's certificate, and a root key left behind."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from cryptography import x509

from crank.adapters.authority import AUTHORITY_FILE, LIST_FILE, ROOT_FILE, root_keys_in
from crank.adapters.clock import SystemClock
from crank.bootstrap.files import is_locked
from crank.bootstrap.finding import Finding
from crank.config import Settings

# Time enough to change a root without haste.
_SOON_SEC = 90 * 86_400
_ROTATE = "Change the root: crank identity rotate prepare, then activate, then retire."


def identities(settings: Settings) -> Sequence[Finding]:
    """Look at the dates of certificates, and at where root keys lie; reads no key."""
    return [*_authorities(settings), *_root_lists(settings), *_worker(settings), *_root_keys(settings)]


def _authorities(settings: Settings) -> Iterator[Finding]:
    folder = settings.authority_dir
    named = {"authority": folder.glob(f"*/{AUTHORITY_FILE}"), "root": folder.glob(f"*/{ROOT_FILE}")}
    for name, paths in named.items():
        for path in sorted(paths):
            found = _ends_sec(path)
            if isinstance(found, Finding):
                yield found
                continue
            left_sec = found - SystemClock().now_us() / 1e6
            text = f"{name} {path.parent.name} is valid for {max(0, left_sec) / 86_400:.0f} days more"
            if left_sec < 0:
                yield Finding(f"identity {name}", "fail", f"{name} {path.parent.name} has expired", _ROTATE)
            else:
                yield Finding(f"identity {name}", "warn" if left_sec < _SOON_SEC else "ok", text, _ROTATE)


def _root_lists(settings: Settings) -> Iterator[Finding]:
    for path in sorted(settings.authority_dir.glob(f"*/{ROOT_FILE}")):
        if not path.with_name(LIST_FILE).exists():
            text = f"root {path.parent.name} has no list of revocations: Envoy, nginx and PostgreSQL cannot check by any"
            yield Finding("root list", "warn", text, _ROTATE)


def _worker(settings: Settings) -> Iterator[Finding]:
    path = settings.identity_dir / "cert.pem"
    if not path.exists():
        return
    found = _ends_sec(path)
    if isinstance(found, Finding):
        yield found
        return
    left_sec = found - SystemClock().now_us() / 1e6
    if left_sec >= 0:
        yield Finding("worker certificate", "ok", f"valid for {left_sec:.0f} s more, renewed at half of its life")
    elif is_locked(settings):
        fix = "Read the controller's log for renewal_failed; compare the clock; then crank down, crank up."
        yield Finding("worker certificate", "fail", f"expired {-left_sec:.0f} s ago, and the node runs", fix)
    else:
        yield Finding("worker certificate", "ok", "renewed when the node starts")


def _root_keys(settings: Settings) -> Iterator[Finding]:
    for path in root_keys_in(settings.authority_dir):
        yield Finding(
            "root key",
            "warn",
            f"{path} lies beside the node, which never reads it",
            "Move it to where it is kept offline: crank identity root-key move /media/…; nothing of the node changes by that.",
        )


def _ends_sec(path: Path) -> float | Finding:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp()
    except (OSError, ValueError) as fault:
        fix = f"Restore {path} from a backup; the node does not start without it."
        return Finding("identity", "fail", f"{path} cannot be read: {fault}", fix)
