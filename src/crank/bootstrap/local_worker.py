"""The identity of the node's own worker: its first certificate lies in files, issued as every other one is.

The worker renews for itself and keeps what it gets in memory. The files are kept fresh beside it, so that a worker
that starts anew, or that was revoked and is allowed again, finds a certificate that holds.
"""

import asyncio
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from crank.adapters.authority.files import ensure_key, pem, write
from crank.bootstrap.authority import RENEW_LOOK_SEC, worker_id_of
from crank.bootstrap.files import node_id
from crank.config import Settings
from crank.controller.desk import Desk
from crank.controller.issue import IdentityWanted, authority_of, issue
from crank.domain.identity import SpiffeId, make_spiffe_id
from crank.domain.ids import InstanceId
from crank.domain.issued import IssuedIdentity
from crank.domain.rules.standing import is_due
from crank.domain.trust import Attestation, Svid, TrustBundle, Workload
from crank.errors import CrankError

_CHANCES = 1024
_log = structlog.get_logger(__name__)


async def issue_local_worker(settings: Settings, desk: Desk) -> None:
    """Put a certificate into the worker's folder where there is none that holds for a while.

    Raises ConfigurationError for damaged files. A worker that the owner revoked gets none, and is told so.
    """
    folder, spiffe_id = settings.identity_dir, _spiffe_id(settings)
    bundle = authority_of(desk).bundle()
    key = await asyncio.to_thread(ensure_key, folder / "key.pem")
    if not await _is_due(desk, folder, spiffe_id, bundle) or desk.standing.is_banned(spiffe_id):
        return
    public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    # Whoever may write this folder was let in by the node's owner, on this machine.
    workload = Workload("worker", InstanceId(desk.ids.uuid7()), Attestation.JOIN)
    svid = await issue(desk, IdentityWanted(spiffe_id, workload, public, node=node_id(settings), asked_by="local"))
    await asyncio.to_thread(_write, folder, svid, bundle)


async def keep_local_worker(settings: Settings, desk: Desk) -> None:
    """Keep that certificate fresh for as long as the controller runs."""
    told: str | None = None
    while True:
        await asyncio.sleep(RENEW_LOOK_SEC)
        try:
            await issue_local_worker(settings, desk)
            told = None
        except (CrankError, OSError) as fault:
            if told != str(fault):
                _log.error("local_worker_not_issued", cause=str(fault))
            told = str(fault)


def _spiffe_id(settings: Settings) -> SpiffeId:
    return make_spiffe_id(settings.trust_domain, "worker", worker_id_of(settings))


async def _is_due(desk: Desk, folder: Path, spiffe_id: SpiffeId, bundle: TrustBundle) -> bool:
    serial = await asyncio.to_thread(_serial, folder, bundle)
    if serial is None:
        return True
    found: IssuedIdentity | None = await desk.store.read(lambda tx: tx.identities.find(serial))
    if found is None or found.revoked_us is not None or found.spiffe_id != spiffe_id:
        return True
    chance = int(serial, 16) % _CHANCES / _CHANCES
    return is_due(found.issued_us, found.not_after_us, desk.clock.now_us(), chance)


def _serial(folder: Path, bundle: TrustBundle) -> str | None:
    """Return the serial of the certificate in the folder; None where there is none, or it is of another authority."""
    try:
        leaf = x509.load_pem_x509_certificates((folder / "cert.pem").read_bytes())[0]
        roots = (folder / "ca.pem").read_bytes()
    except (OSError, ValueError, IndexError):
        return None
    return f"{leaf.serial_number:x}" if roots == _roots(bundle) else None


def _roots(bundle: TrustBundle) -> bytes:
    return pem(*map(x509.load_der_x509_certificate, bundle.x509_authorities))


def _write(folder: Path, svid: Svid, bundle: TrustBundle) -> None:
    # The roots first: whoever sees the new certificate can check its peers that have one, too.
    write(folder / "ca.pem", _roots(bundle), mode=0o644)
    write(folder / "cert.pem", pem(*map(x509.load_der_x509_certificate, svid.chain)), mode=0o644)
