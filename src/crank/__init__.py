"""Crank runs the Python that AI agents write, on machines you own."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crank import errors
    from crank.bootstrap.facade import AsyncClient, Client
    from crank.client import ClientOptions, JobResult
    from crank.worker.app import Worker

__version__ = "0.1.0"

__all__ = ["AsyncClient", "Client", "ClientOptions", "JobResult", "Worker", "__version__", "errors"]

# Loaded when first asked for: `crank --help` and a worker author's module need only a part.
_HOMES = {
    "AsyncClient": "crank.bootstrap.facade",
    "Client": "crank.bootstrap.facade",
    "ClientOptions": "crank.client",
    "JobResult": "crank.client",
    "Worker": "crank.worker.app",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("crank.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'crank' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
