"""The E2B listener, wired: what a steward is made of, the local user's key, and what a client must set."""

import secrets
import ssl
from importlib import resources

import crank.sandbox
from crank.api.e2b.app import build_e2b
from crank.api.server import Listener
from crank.bootstrap.files import write_whole
from crank.bootstrap.node import read_key
from crank.config import Settings
from crank.controller.boxes import Boxes
from crank.controller.desk import Desk
from crank.controller.e2b_key import ensure_local_key
from crank.domain.json import JsonObject

# In the order in which they import each other; they run inside, on the standard library and the profile's packages.
_STEWARD = (
    "guest_plain",
    "guest_chart",
    "guest_figure",
    "guest_shelf",
    "guest_watches",
    "guest_voice",
    "guest_fixed",
    "guest_kernel",
    "guest_processes",
    "guest_cells",
    "guest_steward",
    "guest_relay",
)


async def open_boxes(settings: Settings, desk: Desk) -> Boxes:
    """Return the keeper of sandboxes; mints the local user's key at first start."""
    await _write_key(settings, desk)
    folder = resources.files(crank.sandbox)
    modules = {name: folder.joinpath(f"{name}.py").read_text("utf-8") for name in _STEWARD}
    return Boxes(desk, modules=modules, secret=_secret(settings))


async def _write_key(settings: Settings, desk: Desk) -> None:
    held = read_key(settings)
    secret = await ensure_local_key(desk, held)
    if secret != held:
        write_whole(settings.e2b_key_file, f"{secret}\n".encode(), mode=0o600)
    settings.e2b_key_file.chmod(0o600)


def _secret(settings: Settings) -> bytes:
    try:
        secret = settings.e2b_secret_file.read_bytes()
    except FileNotFoundError:
        secret = secrets.token_bytes(32)
        write_whole(settings.e2b_secret_file, secret, mode=0o600)
    return secret


def listener(settings: Settings, boxes: Boxes, tls: ssl.SSLContext | None) -> Listener:
    """Return the listener: plain on loopback, otherwise with the certificate of the API."""
    return Listener(app=build_e2b(boxes), host=settings.bind, port=settings.e2b_port, tls=tls, name="e2b_port")


def told(settings: Settings, host: str, port: int) -> JsonObject:
    """Return what the node says of this listener; the key is not part of it."""
    url = f"{'https' if settings.e2b_tls else 'http'}://{host}:{port}"
    env = {"E2B_API_URL": url, "E2B_SANDBOX_URL": url}
    if settings.e2b_tls:
        env["SSL_CERT_FILE"] = str(settings.api_ca_file)
    return {"url": url, "port": port, "key_file": str(settings.e2b_key_file), "env": env}
