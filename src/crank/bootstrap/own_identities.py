"""The identities of this machine's own parts, kept in their folders by the controller and noted in its store."""

import asyncio
from pathlib import Path

import structlog

from crank.adapters.authority import FileAuthority, Identity
from crank.bootstrap.files import node_id, worker_id_of, write_whole
from crank.config import Settings
from crank.controller.desk import Desk
from crank.controller.issue import note_issued
from crank.controller.revocation_list import RevocationList
from crank.domain.identity import make_spiffe_id
from crank.errors import CrankError

# Of workers of this machine whose certificates are noted.
_FOLDERS_MAX = 200
# What was revoked, beside an identity: `crank.security.MutualTls` looks there.
LISTS = "crl.pem"
_log = structlog.get_logger(__name__)


class OwnIdentities:
    """Issues what is due of the controller's and its worker's own, and notes what lies in folders of this machine."""

    def __init__(self, settings: Settings, desk: Desk, authority: FileAuthority) -> None:
        self._settings = settings
        self._desk = desk
        self._authority = authority
        self._worker = make_spiffe_id(settings.trust_domain, "worker", worker_id_of(settings))
        # By folder: the certificate file that was looked at last, whatever came of it.
        self._looked_at: dict[Path, tuple[int, int]] = {}
        self._told: str | None = None
        # By folder: the number of the lists that lie there, or could not be written.
        self._listed: dict[Path, int] = {}

    async def issue(self, *, strict: bool = False) -> Identity:
        """Issue and note what is due; return the controller's own.

        strict  a worker's damaged folder is raised, too; otherwise it is logged, because its account writes there
        Raises CrankError, OSError.
        """
        own = await asyncio.to_thread(self._issue_controller)
        try:
            if not self._desk.standing.is_banned(self._worker):
                await asyncio.to_thread(self._issue_worker)
            self._told = None
        except (CrankError, OSError) as fault:
            if strict:
                raise
            if self._told != str(fault):
                self._told = str(fault)
                _log.error("worker_not_renewed", cause=str(fault))
        # Another process of the owner may have written, too: whoever offers functions by 'crank worker serve' begins so.
        for folder in (own.folder, *await asyncio.to_thread(self._folders)):
            await self._look(folder)
        return own

    def _issue_controller(self) -> Identity:
        settings = self._settings
        names = [name for name in settings.api_names.split(",") if name]
        own = self._authority.issue_controller(node_id(settings), addresses=[settings.bind, *names])
        self._authority.publish_ca(settings.api_ca_file)
        return own

    def _issue_worker(self) -> None:
        folder = self._settings.identity_dir
        found = self._authority.read_local(folder)
        if found is not None and self._desk.standing.is_revoked(found.serial):
            # It was revoked alone, or its holder was and is allowed again.
            (folder / "cert.pem").unlink(missing_ok=True)
        self._authority.issue_worker(worker_id_of(self._settings), folder)

    def _folders(self) -> list[Path]:
        return sorted(self._settings.worker_dir.parent.glob("*/identity"))[:_FOLDERS_MAX]

    def publish(self, current: RevocationList) -> None:
        """Put what is revoked into the folders of this machine's workers, where it does not lie yet.

        What was written before stays where it cannot be replaced, and nobody is believed by it once it is too old.
        """
        for folder in self._folders():
            path = folder / LISTS
            if self._listed.get(folder) == current.number and path.exists():
                continue
            try:
                # Of a folder that another authority issued to, nobody would be believed by these lists.
                if self._authority.read_local(folder) is None:
                    continue
                write_whole(path, current.pem, mode=0o644)
            except (CrankError, OSError) as fault:
                if self._listed.get(folder) != current.number:
                    _log.warning("revocations_not_written", folder=str(folder), cause=str(fault))
            self._listed[folder] = current.number

    async def _look(self, folder: Path) -> None:
        try:
            found = (folder / "cert.pem").stat()
        except OSError:
            return
        stamp = (found.st_mtime_ns, found.st_ino)
        if self._looked_at.get(folder) == stamp:
            return
        try:
            svid = await asyncio.to_thread(self._authority.read_local, folder)
            if svid is not None and not self._desk.standing.is_banned(svid.spiffe_id):
                await note_issued(self._desk, svid, node=self._desk.policy.node_id, asked_by="local")
            self._looked_at[folder] = stamp
        except (CrankError, OSError, ValueError) as fault:
            _log.warning("identity_not_noted", folder=str(folder), cause=str(fault))
            if not isinstance(fault, CrankError) or fault.error_code != "unavailable":
                self._looked_at[folder] = stamp
