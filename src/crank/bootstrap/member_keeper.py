"""The process of `crank node join`: joins where that is still to be done, then keeps a worker for that controller."""

import asyncio
import contextlib
import dataclasses
import hashlib
import math
import os
import socket
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.own_identity import HeldIdentity
from crank.bootstrap.files import held_lock, make_home, write_whole
from crank.bootstrap.joining import ROOTS_MAX, JoinWanted, domain_of, join
from crank.bootstrap.keeper import GRACE_SEC, READY_SEC, next_delay_sec
from crank.bootstrap.leash import Child, Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.member import Member, as_member, expires_us, member_dir, node_key, pem, read_chain, read_member
from crank.bootstrap.verifying import connector_to, own_identity
from crank.bootstrap.worker import Place, run_worker
from crank.config import Settings
from crank.domain.ids import Digest
from crank.domain.rules.root_rotation import MACHINE_LOOK_SEC
from crank.errors import ConfigurationError, Conflict, CrankError, Unavailable, UntrustedPeer

LOOK_SEC = 5.0
# One to take other roots, one to say so, one more where they changed meanwhile; then the next round goes on.
_LOOKS_MAX = 3
Say = Callable[[str], None]
_log = structlog.get_logger(__name__)


def thumbprint(settings: Settings) -> Digest:
    """Return the SHA-256 of the certificate by which this machine can be registered, made at first use."""
    make_home(settings)
    member_dir(settings).mkdir(mode=0o700, exist_ok=True)
    _, own = node_key(settings, SystemClock().now_us())
    return Digest(hashlib.sha256(own).hexdigest())


def run_member(settings: Settings, wanted: JoinWanted | None, say: Say) -> None:
    """Join if need be and serve the controller until Ctrl-C or SIGTERM.

    wanted  what the pasted command says; None: what was joined before
    Raises what kept it from joining, or the worker from its first start.
    """
    log_to_stderr("member", plain=True)
    make_home(settings)
    with held_lock(settings):
        member = _joined(settings, wanted, say)
        asyncio.run(_keep(as_member(settings, member.trust_domain), member, say))


def _joined(settings: Settings, wanted: JoinWanted | None, say: Say) -> Member:
    """Return whom this machine joined, joining first where it has not, or where its identity ended."""
    member, clock = read_member(settings), SystemClock()
    if member is None and wanted is None:
        raise ConfigurationError(
            f"Nothing was joined in {settings.home}.",
            code="not_joined",
            fix="On the controller run 'crank node invite', and paste here what it prints.",
        )
    if member is not None and wanted is not None and not set(_roots(settings)) & set(wanted.roots):
        raise Conflict(
            f"This home has joined another controller, that of {member.trust_domain} at {member.api}.",
            code="joined_elsewhere",
            fix="Choose another CRANK_HOME for this one, or remove the folder 'member' in this home.",
        )
    if member is not None and clock.now_us() < expires_us(settings):
        say(f"joined {member.trust_domain} already, as {member.node_id}")
        return member
    if wanted is not None and (member is None or wanted.token is not None):
        member = join(settings, wanted, clock)
    elif member is not None:
        member = come_back(settings, member)
    assert member is not None, "one of the two was there"
    say(f"joined {member.trust_domain} as {member.node_id} ({member.attestation})")
    return member


def come_back(settings: Settings, member: Member) -> Member:
    """Get a new identity in place of one that has ended, where the node's own certificate is enough for that.

    Raises ConfigurationError (`identity_expired`) where it is not, else as `join`.
    """
    if not member.returns:
        raise ConfigurationError(
            f"The identity of {member.node_id} has ended while this machine could not renew it.",
            code="joined_identity_ended",
            fix=f"On the controller run 'crank node forget {member.node_id}' and 'crank node invite', and paste here "
            "what that prints. With 'crank node invite --pin' a machine may come back by itself.",
        )
    return join(settings, JoinWanted(member.api, member.workers, _roots(settings)[:ROOTS_MAX], None), SystemClock())


def _roots(settings: Settings) -> tuple[Digest, ...]:
    """Return by what the controller that was joined is known now."""
    return _known(as_member(settings).identity_dir)


def _known(folder: Path) -> tuple[Digest, ...]:
    return tuple(Digest(hashlib.sha256(one).hexdigest()) for one in read_chain(folder / "ca.pem"))


# --- the worker -----------------------------------------------------------------------------------


async def _keep(settings: Settings, member: Member, say: Say) -> None:
    leash = Leash(None)
    leash.watch()
    files = MemberFiles(settings)
    child = await _start(settings, files)
    say(f"worker {member.worker_id} serves {member.workers} (home {settings.home}); Ctrl-C ends it")
    guarding = asyncio.create_task(_guard(settings, member, child, files))
    renewing = asyncio.create_task(_renew(leash, child))
    keeping = asyncio.create_task(files.keep())
    stopping = asyncio.create_task(leash.wait())
    try:
        await asyncio.wait({guarding, keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for each in (guarding, keeping):
            # Without either this machine would lose its identity in silence.
            if each.done():
                each.result()
    finally:
        for each in (guarding, renewing, keeping, stopping):
            each.cancel()
        await asyncio.gather(guarding, renewing, keeping, stopping, return_exceptions=True)
        await child[0].stop(settings.drain_sec + GRACE_SEC)


async def _start(settings: Settings, files: "MemberFiles") -> list[Child]:
    child = Child.spawn("member", settings, settings.logs_dir / "member.log")
    try:
        await child.ready(READY_SEC, bell=files.ring)
    except BaseException:
        await child.stop(GRACE_SEC)
        raise
    return [child]


async def _guard(settings: Settings, member: Member, child: list[Child], files: "MemberFiles") -> None:
    """Restart the worker whenever it ends; get a new identity when the old one has. Raises ConfigurationError."""
    delay_sec: float | None = None
    while True:
        began_sec = time.monotonic()
        if await _ended_or_expired(settings, child[0]):
            # Nobody believes this identity any more; a connection that still stands does not outlive it.
            with contextlib.suppress(Unavailable):
                await asyncio.to_thread(come_back, settings, member)
                _log.info("joined_again", node=member.node_id)
            await child[0].stop(GRACE_SEC)
        child[0].kill()
        delay_sec = next_delay_sec(delay_sec, time.monotonic() - began_sec)
        _log.warning("process_ended", role="member", restart_in_sec=delay_sec)
        settings = dataclasses.replace(settings, failpoints="")
        await asyncio.sleep(delay_sec)
        try:
            child[:] = await _start(settings, files)
        except CrankError as fault:
            _log.error("process_not_started", role="member", code=fault.error_code, message=fault.message)


async def _ended_or_expired(settings: Settings, child: Child) -> bool:
    """Wait until the worker has ended (False) or its identity has (True)."""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(child.ended(), LOOK_SEC)
            return False
        if SystemClock().now_us() >= await asyncio.to_thread(expires_us, settings):
            return True


async def _renew(leash: Leash, child: list[Child]) -> None:
    """Let the worker start anew when asked (SIGHUP), so that it offers what was built since."""
    while True:
        await leash.renewing.wait()
        leash.renewing.clear()
        child[0].ask_to_renew()


class MemberFiles:
    """What lies in files, kept fresh for as long as the program runs: a worker that starts anew finds what holds.

    The worker itself renews in memory, because inside its walls it writes to no folder but its spool. It rings when its
    controller spoke of trust, and is believed nothing: the roots come from the controller, proven by those that lie
    here, at the machine's own certificate, whose key the worker does not have.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._kept: dict[Path, HeldIdentity] = {}
        # Of the bundle that lies in all files; 0: not known.
        self._has = 0
        self._rung = False
        self._look_at_sec = -math.inf

    @property
    def folders(self) -> tuple[Path, Path]:
        """Return where an identity lies: the worker's, and the node's."""
        return self._settings.identity_dir, member_dir(self._settings)

    def ring(self) -> None:
        """Look for other roots in the next round. However often somebody rings, that is one look a round."""
        self._rung = True

    async def keep(self) -> None:
        """Renew whatever is due, and look for other roots, again and again."""
        while True:
            await self.round()
            await asyncio.sleep(LOOK_SEC * (0.5 + SystemIdSource().jitter() / 2))

    async def round(self) -> None:
        """Do what is due now."""
        for folder in self.folders:
            await self._renew(folder)
        # By itself, too: a worker that keeps silent shall not keep this machine from what all others know.
        if self._rung or time.monotonic() >= self._look_at_sec:
            self._rung = False
            self._look_at_sec = time.monotonic() + MACHINE_LOOK_SEC
            await self._look()

    async def _renew(self, folder: Path) -> None:
        try:
            own = self._kept.get(folder) or self._held(folder)
            self._kept[folder] = own
            if own.due_in_sec() <= 0:
                await own.renew()
                await asyncio.to_thread(self._write, folder, own)
        except (CrankError, OSError) as fault:
            # Read anew: perhaps the node has joined again since.
            self._kept.pop(folder, None)
            _log.error("identity_not_renewed", folder=str(folder), cause=str(fault))

    async def _look(self) -> None:
        """Ask the controller for its roots, keep them, and tell it then that this machine has them."""
        folder = member_dir(self._settings)
        try:
            own = self._kept.get(folder) or self._held(folder)
            for _ in range(_LOOKS_MAX):
                # What lies in the files is said with each look; whoever changes the root waits for that word.
                trust = await own.look(self._has)
                await asyncio.to_thread(self._write_roots, own)
                if trust.sequence == self._has:
                    return
                for kept in self._kept.values():
                    kept.believe(trust)
                self._has = trust.sequence
        except (CrankError, OSError) as fault:
            # What was believed and does not lie in the files is forgotten with it.
            self._kept.clear()
            _log.error("roots_not_taken", cause=str(fault))

    def _write_roots(self, own: HeldIdentity) -> None:
        """Write the roots where other ones lie, or what cannot be read. Raises UntrustedPeer (`root_mismatch`)."""
        roots = self._checked(own, member_dir(self._settings))
        stale = [folder for folder in self.folders if not _holds(folder, roots)]
        for folder in stale:
            write_whole(folder / "ca.pem", pem(roots), mode=0o644)
        if stale:
            _log.info("roots_taken", count=len(roots))

    def _write(self, folder: Path, own: HeldIdentity) -> None:
        """Write what a renewal brought. Raises UntrustedPeer (`root_mismatch`)."""
        roots = self._checked(own, folder)
        # The roots first: whoever sees the new certificate can check its peers that have one, too.
        write_whole(folder / "ca.pem", pem(roots), mode=0o644)
        write_whole(folder / "cert.pem", own.files()[0], mode=0o644)

    def _checked(self, own: HeldIdentity, folder: Path) -> list[bytes]:
        domain = self._settings.trust_domain
        bundle = own.bundle(domain)
        roots = [] if bundle is None else list(bundle.x509_authorities)
        check_roots(roots, domain, known=_known(folder))
        return roots

    def _held(self, folder: Path) -> HeldIdentity:
        own = own_identity(self._settings, folder)
        connector_to(self._settings, place_of(self._settings).url, own, None)
        return own


def check_roots(roots: Sequence[bytes], trust_domain: str, *, known: Collection[Digest]) -> None:
    """Insist that roots (DER) may take the place of those that are known: one of them stays. Raises UntrustedPeer."""
    if len(roots) > ROOTS_MAX or {domain_of(one) for one in roots} != {trust_domain}:
        raise UntrustedPeer("The controller has roots of another trust domain, or too many.", code="root_mismatch")
    if not {hashlib.sha256(one).hexdigest() for one in roots} & set(known):
        raise UntrustedPeer("The controller has roots of which none is known here.", code="root_mismatch")


def _holds(folder: Path, roots: list[bytes]) -> bool:
    try:
        return read_chain(folder / "ca.pem") == roots
    except ConfigurationError:
        return False


def place_of(settings: Settings) -> Place:
    """Return where the worker of this member belongs. Raises ConfigurationError, Unavailable (the name is not known)."""
    member = read_member(settings)
    if member is None:
        raise ConfigurationError(f"Nothing was joined in {settings.home}.", code="not_joined")
    return Place(
        worker_id=member.worker_id,
        node_id=member.node_id,
        url=f"wss://{_address(member.workers)}/v1/worker",
        # Mounts are of the controller's own node: none of this machine's folders is for its jobs.
        mounts_register=Path(os.devnull),
        allowed=member.capabilities,
        rings=True,
    )


def _address(workers: str) -> str:
    """Return `address:port` for `host:port`: nobody looks a name up inside the walls."""
    parts = urlsplit(f"//{workers}")
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port, type=socket.SOCK_STREAM)
    except OSError as fault:
        raise Unavailable(f"The controller's host {parts.hostname} is not known: {fault.strerror}.") from fault
    host = str(found[0][4][0])
    return f"[{host}]:{parts.port}" if ":" in host else f"{host}:{parts.port}"


def run_member_worker(settings: Settings, leash_descriptor: int | None) -> None:
    """Be the worker of a member. Raises what kept it from starting."""
    run_worker(settings, leash_descriptor, lambda: place_of(settings))
