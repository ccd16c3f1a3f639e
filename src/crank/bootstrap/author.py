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
from crank.bootstrap.controller import make_failpoints, worker_id_of
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.node import node_info
from crank.bootstrap.processes import watched
from crank.bootstrap.worker import run_until_told
from crank.config import Settings, interpreter
from crank.domain.ids import parse_name
from crank.errors import NotAllowed
from crank.security import client_context
from crank.worker.app import function_offers
from crank.worker.attempt import Bench
from crank.worker.call import load_app
from crank.worker.serve import EXIT_REJECTED, Worker, WorkerIdentity

_log = structlog.get_logger(__name__)


def run_author_worker(settings: Settings, target: str, *, name: str | None, slots: int) -> None:
    """Offer the functions of `module:app` until Ctrl-C.

    Raises NotFound when no node runs here, NotAllowed when the node turns the worker away, CrankError
    when the module holds no worker, ConfigurationError when it offers nothing.
    """
    app = load_app(target)
    offers = function_offers(app, target)
    document = node_info(settings)
    settings = dataclasses.replace(settings, worker_name=parse_name(name or app.name, field="name"))

    async def serve(settings: Settings, leash: Leash) -> None:
        clock, ids = SystemClock(), SystemIdSource()
        # The owner of the node runs this, and the owner holds the authority; join tokens come with step 4.
        authority = FileAuthority(settings.authority_dir, trust_domain=settings.trust_domain, clock=clock, ids=ids)
        identity = authority.issue_worker(worker_id_of(settings), settings.identity_dir)
        tls = client_context(
            certificate_file=identity.certificate_file, key_file=identity.key_file, ca_file=identity.ca_file
        )
        worker = Worker(
            WebSocketConnector(f"{document['workers_api']}/v1/worker", tls, settings.trust_domain),
            WorkerIdentity(
                worker_id=worker_id_of(settings),
                instance_id=ids.uuid7(),
                node_id=document["node_id"],
                software=f"crank/{crank.__version__}",
            ),
            offers=offers,
            bench=Bench(
                sandbox=None,
                functions=ProcessRunner(python=interpreter(), directory=Path.cwd()),
                spool=FileSpool(settings.worker_dir / "spool"),
                clock=clock,
                ids=ids,
                failpoints=make_failpoints(settings),
            ),
            slots=slots,
        )
        _log.info("worker_offers", capabilities=[offer.capability.name for offer in offers])
        if await run_until_told(worker, leash, drain_sec=settings.drain_sec) == EXIT_REJECTED:
            raise NotAllowed(
                "The node turned this worker away.", code="worker_rejected", fix="Read the reason above and correct it."
            )

    log_to_stderr("worker", plain=True)
    asyncio.run(watched(serve, settings, Leash(None)))
