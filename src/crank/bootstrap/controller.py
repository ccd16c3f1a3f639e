"""The controller process, wired from top to bottom in the order it starts; closed in reverse."""

import asyncio
import os
from collections.abc import Mapping
from contextlib import AsyncExitStack

import structlog
from fastapi import FastAPI

import crank
from crank.adapters.authority import Identity
from crank.adapters.blobs import FileBlobStore
from crank.adapters.certificate_request import read_request
from crank.adapters.clock import EARLIEST_US, SystemClock, SystemIdSource
from crank.adapters.failpoints import make_failpoints
from crank.adapters.https_download import HttpsDownloads
from crank.adapters.json_schema import JsonSchemaChecker
from crank.adapters.mount_register import FileMountRegister
from crank.adapters.profile_store.source import profile_names, read_profile
from crank.adapters.signed import JwsAppraiser
from crank.adapters.sqlite import SqliteStore
from crank.adapters.streams import FileStreamLog
from crank.api.app import build_api
from crank.api.mcp.door import Door
from crank.api.public_name import PublicName
from crank.api.server import CONNECTION_SEC_MAX, Listener, serve
from crank.api.workers import build_workers_app
from crank.bootstrap import spiffe
from crank.bootstrap.authority import ListeningTls, keep_renewed, start_authority
from crank.bootstrap.federation import open_trust, start_polling, verifier_of
from crank.bootstrap.files import make_home, node_id, write_whole
from crank.bootstrap.leash import Leash
from crank.bootstrap.logs import log_to_stderr
from crank.bootstrap.own_identities import OwnIdentities
from crank.bootstrap.processes import watched
from crank.bootstrap.tokens import open_tokens, take_place
from crank.config import Settings
from crank.controller.desk import Desk, Policy
from crank.controller.keys import admit_owner
from crank.controller.loop import ControllerLoop
from crank.controller.mounts import register_all
from crank.domain.identity import make_spiffe_id
from crank.domain.json import JsonObject
from crank.domain.profile import Profile
from crank.domain.quantity import OUTPUT_BYTES_MAX
from crank.errors import ConfigurationError, CrankError

_log = structlog.get_logger(__name__)


async def serve_controller(settings: Settings, leash: Leash) -> None:
    """Run the controller until told to stop.

    Raises ConfigurationError (a port taken, a damaged authority, a wrong clock), StoreError.
    """
    make_home(settings)
    clock, ids = SystemClock(), SystemIdSource()
    _check_clock(clock)
    authority = start_authority(settings, clock, ids, make_failpoints(settings.failpoints))
    async with AsyncExitStack() as opened:
        store = SqliteStore(settings.database, failpoints=make_failpoints(settings.failpoints))
        await store.start()
        opened.push_async_callback(store.stop)
        desk = Desk(
            store=store,
            blobs=FileBlobStore(settings.controller_dir / "blobs", quota_bytes=settings.blobs_quota_bytes),
            streams=FileStreamLog(settings.controller_dir / "streams"),
            clock=clock,
            ids=ids,
            schemas=JsonSchemaChecker(),
            failpoints=make_failpoints(settings.failpoints),
            policy=_policy(settings),
            mount_register=FileMountRegister(settings.mounts_register),
            downloads=HttpsDownloads() if settings.actions_file_hosts else None,
            profiles=_profiles(settings),
            appraiser=JwsAppraiser(),
            authority=authority,
            roots=authority,
            trust=open_trust(authority, clock),
            tokens=open_tokens(settings, authority, clock),
        )
        await _admit_owner(settings, desk)
        await register_all(desk)
        loop = ControllerLoop(desk)
        await loop.start()
        opened.push_async_callback(loop.stop)
        identities = OwnIdentities(settings, desk, authority)
        own = await identities.issue(strict=True)
        opened.push_async_callback((await start_polling(desk)).stop)
        app = _api(settings, desk)
        opened.push_async_callback(app.state.mcp.close)
        tls = ListeningTls(own, clock)
        api, workers = _listeners(settings, desk, own, app, tls)
        more: list[Listener] = []
        if settings.e2b:
            # Loaded where it is served: nobody else waits for it.
            from crank.bootstrap import e2b

            boxes = await e2b.open_boxes(settings, desk)
            opened.push_async_callback(boxes.close)
            more.append(e2b.listener(settings, boxes, tls.api() if settings.e2b_tls else None))
        for work in (app.state.mcp.warm(), _close_mcp(app.state.mcp, leash.stopping)):
            opened.callback(asyncio.create_task(work).cancel)
        workloads = await opened.enter_async_context(spiffe.served(settings, desk, app.state.revocation_lists))
        public = _public_name(settings, api, own)
        renewing = asyncio.create_task(
            keep_renewed(desk, authority, identities, tls, public, app.state.revocation_lists), name="renew"
        )
        opened.callback(renewing.cancel)
        await serve(
            api=api,
            workers=workers,
            more=more,
            started=lambda *ports: _tell_ready(settings, leash, ports, desk, workloads),
            stop=leash.stopping,
        )
        _log.info("controller_stopping")


async def _close_mcp(door: Door, stopping: asyncio.Event) -> None:
    """Let callers of MCP go before the listener stops waiting for them."""
    await stopping.wait()
    await door.close()


def _tell_ready(
    settings: Settings, leash: Leash, ports: tuple[int, ...], desk: Desk, workloads: spiffe.Served
) -> None:
    api_port, workers_port, *more = ports
    host = _host(settings.bind)
    take_place(desk.tokens, f"https://{host}:{api_port}")
    leash.tell(
        {
            **(_tell_e2b(settings, host, more[0]) if more else {}),
            **workloads.told,
            "api": f"https://{host}:{api_port}",
            "workers_api": f"wss://{host}:{workers_port}",
            "api_port": api_port,
            "workers_port": workers_port,
        }
    )
    workloads.opened.set()
    _log.info("controller_ready", api_port=api_port, workers_port=workers_port)


def _tell_e2b(settings: Settings, host: str, port: int) -> JsonObject:
    from crank.bootstrap import e2b

    return {"e2b": e2b.told(settings, host, port)}


def _check_clock(clock: SystemClock) -> None:
    if clock.now_us() < EARLIEST_US:
        raise ConfigurationError(
            "The clock of this machine is years behind, so no certificate would be valid.",
            code="clock_wrong",
            fix="Set the clock (timedatectl set-ntp true), then start again.",
        )


def _public_name(settings: Settings, api: Listener, own: Identity) -> PublicName | None:
    if settings.tls_cert is None or settings.tls_key is None or api.tls is None:
        return None
    public = PublicName(settings.tls_cert, settings.tls_key, own.ca_file)
    public.join(api.tls)
    return public


def _policy(settings: Settings) -> Policy:
    name = node_id(settings)
    private = [settings.home, settings.profiles_builds, *([settings.tls_key] if settings.tls_key else [])]
    return Policy(
        node_id=name,
        controller_id=str(make_spiffe_id(settings.trust_domain, "controller", name)),
        trust_domain=settings.trust_domain,
        private_paths=tuple(str(path.resolve()) for path in private),
        queued_max=settings.queued_max,
        retention_sec=settings.retention_sec,
        session_idle_sec=settings.session_idle_sec,
        session_idle_sec_max=settings.session_idle_sec_max,
        attestation_min=settings.attestation_min,
        session_lifetime_sec=settings.session_lifetime_sec,
        session_lifetime_sec_max=settings.session_lifetime_sec_max,
        sessions_max=settings.sessions_max,
        worker_sessions_max=settings.worker_sessions,
        worker_sessions_bytes_max=settings.worker_sessions_bytes,
        file_hosts=settings.actions_file_hosts,
        output_bytes_max=int(settings.ceilings.get("output_bytes", OUTPUT_BYTES_MAX)),
    )


def _profiles(settings: Settings) -> Mapping[str, Profile]:
    """Read what the environments hold; one that cannot be read is the worker's trouble, and is not told of."""
    found = {}
    for name in profile_names(settings.profiles_source):
        try:
            found[name] = read_profile(settings.profiles_source, name)
        except CrankError as fault:
            _log.warning("profile_unreadable", profile=name, cause=fault.message)
    return found


async def _admit_owner(settings: Settings, desk: Desk) -> None:
    """Make the owner's secret at first start; afterwards believe the file, so that it can be replaced."""
    try:
        secret = settings.token_file.read_text("ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        secret = ""
    if not secret:
        secret = desk.ids.secret()
        write_whole(settings.token_file, f"{secret}\n".encode(), mode=0o600)
    settings.token_file.chmod(0o600)
    await admit_owner(desk, secret)


def _api(settings: Settings, desk: Desk) -> FastAPI:
    public_host = settings.public_url.removeprefix("https://").partition(":")[0]
    return build_api(
        desk,
        version=crank.__version__,
        bind=settings.bind,
        more_names=[*settings.api_names.split(","), public_host],
        public_url=settings.public_url,
    )


def _listeners(settings: Settings, desk: Desk, own: Identity, app: FastAPI, tls: ListeningTls) -> tuple[Listener, Listener]:
    api = Listener(
        app=app,
        host=settings.bind,
        port=settings.api_port,
        tls=tls.api(asks=True),
        name="api_port",
        age_sec_max=min(CONNECTION_SEC_MAX, settings.leaf_ttl_sec),
    )
    identify = verifier_of(desk).peer
    if desk.tokens is not None:
        desk.tokens.identify = identify
    workers = Listener(
        app=build_workers_app(desk, identify=identify, read_request=read_request),
        host=settings.bind,
        port=settings.workers_port,
        tls=tls.workers(),
        name="workers_port",
        age_sec_max=min(CONNECTION_SEC_MAX, settings.leaf_ttl_sec),
    )
    return api, workers


def _host(bind: str) -> str:
    """Return the address that a local client uses to reach a listener."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bind, bind)  # noqa: S104 - compared, never bound here
    return f"[{host}]" if ":" in host else host


def run_controller(settings: Settings, leash_descriptor: int | None) -> None:
    """Be the controller until told to stop. Raises what kept it from starting."""
    log_to_stderr("controller")
    # The database and the secrets are nobody else's.
    os.umask(0o077)
    asyncio.run(watched(serve_controller, settings, Leash(leash_descriptor)))
