"""`crank.Client` and `crank.AsyncClient`: the clients, finding this machine's node by themselves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crank import client
from crank.bootstrap.node import client_options, node_info
from crank.config import load
from crank.errors import ConfigurationError


def _options(
    api: str | None,
    ca_file: str | Path | None,
    token_file: str | Path | None,
    home: str | Path | None,
    **shown: Any,
) -> client.ClientOptions:
    """Return the options given, or those of the node that runs in `home` (default: as `crank` finds it)."""
    if api is None:
        if ca_file is not None or token_file is not None:
            raise ConfigurationError("ca_file and token_file need api.", code="api_missing", field="api")
        return client_options(node_info(load({"home": home})), **shown)
    if ca_file is None or (token_file is None and shown["token"] is None):
        raise ConfigurationError(
            "To reach a node by its address, its ca_file and token_file are needed too.",
            code="credentials_missing",
            field="ca_file" if ca_file is None else "token_file",
            fix="'crank node info --json' on the node's machine names both.",
        )
    return client.ClientOptions(api=api, ca_file=str(ca_file), token_file=str(token_file or ""), **shown)


def _attenuate(
    token: str,
    *,
    capabilities: Sequence[str] = (),
    mounts: Sequence[str] | None = None,
    calls_max: int | None = None,
    expires_sec: float | None = None,
    holder: str | None = None,
    key_file: str | Path | None = None,
) -> str:
    """Return a narrower form of a Biscuit, or pass it on; asks no node.

    capabilities  names or patterns that stay; none given: all
    mounts        names that calls may mount; None: as before
    holder        whom to pass it on to: a public key (PEM), a thumbprint or a SPIFFE ID; then `key_file` has your own key
    Raises InvalidRequest: not a Biscuit, wider than the token, passed on oftener than it may be.
    """
    from crank.bootstrap import attenuation

    wanted = attenuation.Narrowing(
        tuple(capabilities),
        mounts=None if mounts is None else tuple(mounts),
        calls_max=calls_max,
        expires_sec=expires_sec,
    )
    key_pem = None if key_file is None else Path(key_file).read_bytes()
    return attenuation.attenuate(token, wanted, holder=holder, key_pem=key_pem)


class Client(client.Client):
    """The synchronous client. Without arguments it finds the node that runs on this machine.

    token, proof_key, exchange  as in `ClientOptions`
    """

    attenuate = staticmethod(_attenuate)

    def __init__(
        self,
        api: str | None = None,
        *,
        ca_file: str | Path | None = None,
        token_file: str | Path | None = None,
        home: str | Path | None = None,
        token: str | None = None,
        proof_key: client.ProofKey | None = None,
        exchange: client.TokenWanted | None = None,
    ) -> None:
        shown = {"token": token, "proof_key": proof_key, "exchange": exchange}
        super().__init__(_options(api, ca_file, token_file, home, **shown))


class AsyncClient(client.AsyncClient):
    """The asynchronous client. Without arguments it finds the node that runs on this machine.

    token, proof_key, exchange  as in `ClientOptions`
    """

    attenuate = staticmethod(_attenuate)

    def __init__(
        self,
        api: str | None = None,
        *,
        ca_file: str | Path | None = None,
        token_file: str | Path | None = None,
        home: str | Path | None = None,
        token: str | None = None,
        proof_key: client.ProofKey | None = None,
        exchange: client.TokenWanted | None = None,
    ) -> None:
        shown = {"token": token, "proof_key": proof_key, "exchange": exchange}
        super().__init__(_options(api, ca_file, token_file, home, **shown))
