"""The process of `crank worker serve`: one author's functions, offered to this machine's node."""

import asyncio
import dataclasses
import os
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

import crank
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.failpoints import make_failpoints
from crank.adapters.signed import FileManifestSigner
from crank.adapters.spool import FileSpool
from crank.bootstrap.authority import open_authority
from crank.bootstrap.confinement import dialer_to, give_folders, log_layers, shut_in, spool_dir, worker_view
from crank.bootstrap.declare import declare
from crank.bootstrap.files import worker_id_of
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.module import describe
from crank.bootstrap.node import node_info
from crank.bootstrap.processes import watched
from crank.bootstrap.verifying import connector_to, own_identity
from crank.bootstrap.worker import leave_when_lost, run_until_told
from crank.config import Settings
from crank.domain.ids import parse_name
from crank.domain.isolation import Tier, require
from crank.errors import NotAllowed
from crank.sandbox.confine import abilities
from crank.sandbox.link import launch
from crank.sandbox.runner import NamespaceRunner
from crank.worker.attempt import Bench
from crank.worker.functions import SandboxedFunctions
from crank.worker.identity import WorkerIdentity
from crank.worker.serve import EXIT_REJECTED, Worker

_log = structlog.get_logger(__name__)


def run_author_worker(settings: Settings, target: str, *, name: str | None, slots: int) -> None:
    """Offer the functions of `module:app` until Ctrl-C.

    Raises NotFound when no node runs here, NotAllowed when the node turns the worker away, CrankError
    when the module holds no worker, ConfigurationError when it offers nothing.
    """
    log_to_stderr("worker", plain=True)
    declared = declare(settings, target)
    document = node_info(settings)
    settings = dataclasses.replace(settings, worker_name=parse_name(name or declared.name, field="name"))
    address = f"{document['workers_api']}/v1/worker"
    clock, ids = SystemClock(), SystemIdSource()
    # The owner of the node runs this, and the owner holds the authority: nobody has to be invited.
    authority = open_authority(settings, clock, ids)
    authority.issue_worker(worker_id_of(settings), settings.identity_dir)
    worker_id = worker_id_of(settings)
    offers = [offer.capped(settings.ceilings, str(NamespaceRunner.tier)) for offer in declared.offers]
    build = describe(settings, settings.worker_name, target, offers)
    # Functions are shown their module and what it is imported from; they have no mounts.
    link = launch(roots=[path for _, path in build.layers], mounts_register=Path(os.devnull))
    try:
        able = abilities()
        give_folders(settings, able.account)
        dialer = dialer_to(address, able)
        log_layers(shut_in(settings, worker_view(settings), able))
    except BaseException:
        link.close()
        raise

    async def serve(settings: Settings, leash: Leash) -> None:
        own = own_identity(settings, settings.identity_dir)
        async with AsyncExitStack() as opened:
            sandbox = NamespaceRunner(link, parked=max(2, slots))
            opened.push_async_callback(sandbox.stop)
            await sandbox.start()
            require(Tier(sandbox.tier), settings.sandbox_tier)
            functions = SandboxedFunctions(sandbox, build)
            opened.push_async_callback(functions.stop)
            await functions.start()
            worker = Worker(
                connector_to(settings, address, own, dialer.dial),
                WorkerIdentity(
                    worker_id=worker_id,
                    instance_id=ids.uuid7(),
                    node_id=document["node_id"],
                    software=f"crank/{crank.__version__}",
                    signer=FileManifestSigner(settings.identity_dir),
                    own=own,
                ),
                offers=offers,
                bench=Bench(
                    sandbox=sandbox,
                    functions=functions,
                    spool=FileSpool(spool_dir(settings)),
                    clock=clock,
                    ids=ids,
                    failpoints=make_failpoints(settings.failpoints),
                ),
                slots=slots,
            )
            opened.callback(asyncio.create_task(leave_when_lost(link, dialer, worker)).cancel)
            _log.info("worker_offers", capabilities=[offer.capability.name for offer in offers])
            if await run_until_told(worker, leash, drain_sec=settings.drain_sec) == EXIT_REJECTED:
                raise NotAllowed(
                    "The node turned this worker away.",
                    code="worker_rejected",
                    fix="Read the reason above and correct it.",
                )

    asyncio.run(watched(serve, settings, Leash(None)))
