"""Tell trust: every connected worker hears at once by what it checks its peers, and says when it believes it.

A joined machine is asked apart from its worker, whose word for it would be that of whoever took the worker over: its
program looks by itself, with the machine's own certificate, and says what lies in its files.
"""

import asyncio
import base64

import structlog

from crank.controller.desk import Desk
from crank.controller.issue import authority_of
from crank.controller.roster import LiveWorker
from crank.domain.identity import SpiffeId
from crank.domain.ids import LOCAL_TENANT
from crank.domain.rules.root_rotation import MACHINE_LOOK_SEC
from crank.domain.trust import TrustBundle
from crank.errors import CrankError, Unavailable
from crank.wire import TRUST_SINCE, Trust, Trusted

# What waiters for acknowledgements watch.
ACKNOWLEDGED = "trust.acknowledged"
_LOOK_AGAIN_SEC = 1.0
# A machine that missed so many looks is off, and nobody waits for it.
_LOOKS_MISSED_MAX = 3
_US = 1_000_000
_log = structlog.get_logger(__name__)


async def tell_trust(desk: Desk, worker: LiveWorker) -> None:
    """Tell one worker. One whose link is gone hears it on its next."""
    if worker.version < TRUST_SINCE or desk.authority is None:
        return
    try:
        await worker.link.send(_message(desk, authority_of(desk).bundle()))
    except Unavailable:
        return


async def tell_all(desk: Desk) -> None:
    """Tell every connected worker, after a change of the bundle or of what is revoked."""
    for worker in desk.roster.live():
        await tell_trust(desk, worker)


def _message(desk: Desk, bundle: TrustBundle) -> Trust:
    # Certificates of an identity that is banned as a whole need no mention of their own.
    alone = [one.serial for one in desk.standing.revoked if not desk.standing.is_banned(one.spiffe_id)]
    return Trust(
        sequence=bundle.sequence,
        roots=[base64.b64encode(root).decode("ascii") for root in bundle.x509_authorities],
        revision=desk.standing.revision,
        revoked_ids=[str(ban.spiffe_id) for ban in desk.standing.bans],
        revoked_serials=alone,
    )


def on_trusted(desk: Desk, worker: LiveWorker, message: Trusted) -> None:
    """Note what a worker believes."""
    worker.trusts = message
    desk.watch.changed(LOCAL_TENANT, ACKNOWLEDGED)


def tell_machine(desk: Desk, machine: SpiffeId, *, has: int) -> Trust:
    """Return what the program of a joined machine checks its peers by; `has`: the sequence that lies in its files."""
    desk.machines.acknowledged(str(machine), has, desk.clock.now_us())
    desk.watch.changed(LOCAL_TENANT, ACKNOWLEDGED)
    return _message(desk, authority_of(desk).bundle())


def unaware(desk: Desk, sequence: int, *, followers: bool = True) -> list[str]:
    """Return who does not have this sequence: workers that are connected, machines and proven callers that follow.

    followers  whether those are waited for who only read the bundle
    A worker of an older version never acknowledges; it hears of a new root only at its next start.
    """
    workers = [
        worker.known.worker_id
        for worker in desk.roster.live()
        if worker.trusts is None or worker.trusts.sequence < sequence
    ]
    since_us = desk.clock.now_us() - int(_LOOKS_MISSED_MAX * MACHINE_LOOK_SEC * _US)
    machines = [name for name in desk.machines.behind(sequence, since_us) if not desk.standing.bars([name])]
    reading = desk.trust.bundles.behind(sequence) if followers and desk.trust is not None else ()
    return [*workers, *machines, *reading]


async def follow_bundle(desk: Desk) -> None:
    """Tell all workers of every change of the bundle, for as long as the controller runs."""
    authority = authority_of(desk)
    sequence = authority.bundle().sequence
    while True:
        try:
            sequence = (await authority.next_bundle(sequence)).sequence
            await tell_all(desk)
        except CrankError as fault:
            _log.error("trust_not_told", code=fault.error_code, message=fault.message)
            await asyncio.sleep(_LOOK_AGAIN_SEC)
