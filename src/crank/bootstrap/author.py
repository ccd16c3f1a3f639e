"""The process of `crank worker serve`: one author's functions, offered to this machine's node."""

import asyncio
import dataclasses
from pathlib import Path

import structlog

import crank
from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.adapters.controller_link import WebSocketConnector
from crank.adapters.process_runner import ProcessRunner
from crank.adapters.spool import FileSpool
from crank.bootstrap.confinement import author_view, dialer_to, give_folders, log_layers, shut_in, spool_dir
from crank.bootstrap.controller import make_failpoints, worker_id_of
from crank.bootstrap.declare import declare
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.node import node_info
from crank.bootstrap.processes import watched
from crank.bootstrap.worker import run_until_told
from crank.config import Settings, interpreter
from crank.domain.ids import parse_name
from crank.errors import NotAllowed
from crank.sandbox.confine import abilities
from crank.security import client_context
from crank.worker.attempt import Bench
from crank.worker.serve import EXIT_REJECTED, Worker, WorkerIdentity

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
    # The owner of the node runs this, and the owner holds the authority; join tokens come with step 4.
    authority = FileAuthority(settings.authority_dir, trust_domain=settings.trust_domain, clock=clock, ids=ids)
    identity = authority.issue_worker(worker_id_of(settings), settings.identity_dir)
    able = abilities()
    give_folders(settings, able.account)
    worker_id = worker_id_of(settings)
    dialer = dialer_to(address, able)
    layers = shut_in(settings, author_view(settings, target), able)
    log_layers(layers)

    async def serve(settings: Settings, leash: Leash) -> None:
        tls = client_context(
            certificate_file=identity.certificate_file, key_file=identity.key_file, ca_file=identity.ca_file
        )
        worker = Worker(
            WebSocketConnector(address, tls, settings.trust_domain, dialer.dial),
            WorkerIdentity(
                worker_id=worker_id,
                instance_id=ids.uuid7(),
                node_id=document["node_id"],
                software=f"crank/{crank.__version__}",
            ),
            offers=[offer.capped(settings.ceilings) for offer in declared.offers],
            bench=Bench(
                sandbox=None,
                functions=ProcessRunner(python=interpreter(), directory=Path.cwd()),
                spool=FileSpool(spool_dir(settings)),
                clock=clock,
                ids=ids,
                failpoints=make_failpoints(settings),
            ),
            slots=slots,
        )
        _log.info("worker_offers", capabilities=[offer.capability.name for offer in declared.offers])
        if await run_until_told(worker, leash, drain_sec=settings.drain_sec) == EXIT_REJECTED:
            raise NotAllowed(
                "The node turned this worker away.", code="worker_rejected", fix="Read the reason above and correct it."
            )

    asyncio.run(watched(serve, settings, Leash(None)))
