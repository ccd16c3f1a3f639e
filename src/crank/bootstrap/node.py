"""The node as others see it: start one in the background, ask where it is, stop it."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

from crank.bootstrap.files import is_locked, make_home, read_json
from crank.bootstrap.leash import Child
from crank.client import ClientOptions
from crank.config import Settings
from crank.domain.json import JsonObject
from crank.errors import NotFound, Unavailable

START_SEC = 150.0
STOP_MARGIN_SEC = 40.0


def node_info(settings: Settings) -> JsonObject:
    """Return what the running node says of itself. Raises NotFound when none runs in this home."""
    document = read_json(settings.node_file) if is_locked(settings) else None
    if document is None:
        raise NotFound(
            f"No node runs in {settings.home}.",
            code="node_not_running",
            fix="Start one with 'crank up'.",
        )
    return document


def client_options(document: JsonObject, **more: Any) -> ClientOptions:
    """Return how to reach the node that the document is of."""
    return ClientOptions(api=document["api"], ca_file=document["ca_file"], token_file=document["token_file"], **more)


async def start_node(settings: Settings, *, bound: bool) -> tuple[Child, JsonObject]:
    """Start a node in the background and return it with its document.

    bound  the node stops when this process ends; else it goes on alone
    Raises what kept it from starting: ConfigurationError, StoreError, Conflict, SandboxError, Unavailable.
    """
    make_home(settings)
    child = Child.spawn("bound-keeper" if bound else "keeper", settings, settings.logs_dir / "node.log")
    try:
        return child, await child.ready(START_SEC)
    except BaseException:
        await child.stop(STOP_MARGIN_SEC)
        raise


async def start_free_node(settings: Settings) -> tuple[Child, JsonObject]:
    """Start a node that stops with this process, on any free ports: nobody else looks for it. Raises as `start_node`."""
    return await start_node(dataclasses.replace(settings, api_port=0, workers_port=0, e2b=False, spiffe_socket=None, spiffe_shared=False), bound=True)


@contextlib.asynccontextmanager
async def some_node(settings: Settings) -> AsyncIterator[JsonObject]:
    """Give the running node's document, or start a node for this while and stop it after."""
    try:
        document = node_info(settings)
    except NotFound:
        pass
    else:
        yield document
        return
    child, document = await start_free_node(settings)
    try:
        yield document
    finally:
        await child.stop(settings.drain_sec + STOP_MARGIN_SEC)


def stop_node(settings: Settings) -> JsonObject:
    """Stop the running node and return its last document, once it is gone.

    Raises NotFound when none runs, Unavailable when it does not end in time.
    """
    document = node_info(settings)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(document["pid"]), signal.SIGTERM)
    until = time.monotonic() + settings.drain_sec + STOP_MARGIN_SEC
    while is_locked(settings):
        if time.monotonic() > until:
            raise Unavailable("The node does not stop.", code="node_not_stopping", fix="Read its logs, or kill it.")
        time.sleep(0.05)
    return document


def renew_worker(settings: Settings) -> bool:
    """Let the running node's worker start anew, to offer what was built since; tell whether one runs."""
    try:
        document = node_info(settings)
    except NotFound:
        return False
    os.kill(int(document["pid"]), signal.SIGHUP)
    return True


def start_node_alone(settings: Settings) -> JsonObject:
    """Start a node that goes on alone, and return its document. Raises as `start_node`."""
    _, document = asyncio.run(start_node(settings, bound=False))
    return document


def read_key(settings: Settings) -> str:
    """Return the local user's key, or an empty text."""
    try:
        return settings.e2b_key_file.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def with_key(document: JsonObject, settings: Settings) -> JsonObject:
    """Return the node's document with the key of whoever may read its file."""
    key = read_key(settings) if "e2b" in document else ""
    if not key:
        return document
    e2b = document["e2b"]
    return {**document, "e2b": {**e2b, "env": {**e2b["env"], "E2B_API_KEY": key}}}
