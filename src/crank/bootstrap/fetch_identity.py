"""Keeps an identity as files, for programs that speak no Workload API: fetched from a node's socket, rewritten at each change."""

import asyncio
import base64
import contextlib
import os
import shlex
import subprocess
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import Any
from urllib.parse import unquote, urlsplit

from grpclib.client import Channel, UnaryStreamMethod
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from crank.api.spiffe.messages import workload_pb2 as messages
from crank.api.spiffe.workload_api import HEADER, SERVICE
from crank.bootstrap.files import write_whole
from crank.domain.identity import parse_spiffe_id
from crank.errors import (
    ConfigurationError,
    CrankError,
    InvalidRequest,
    NotAllowed,
    NotFound,
    ProtocolError,
    Unavailable,
)

FIRST_SEC_MAX = 20.0
COMMAND_SEC_MAX = 60.0
RETRY_SEC_MIN = 0.5
RETRY_SEC_MAX = 15.0
_PID_BYTES_MAX = 32
_FOREIGN = "bundle.*.pem"
# What was revoked, as programs read it that were told to (`ssl_crl`, `ssl_crl_file`); no secret.
LISTS = "crl.pem"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is wanted of an identity.

    hint     which one, where there are several; the first unless said
    command  run after each change, as one line without a shell
    signal   sent to the process whose number stands in the first line of `pid_file` after each change
    """

    folder: Path
    hint: str | None = None
    command: str | None = None
    signal: Signals | None = None
    pid_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Fetched:
    """What was written last."""

    spiffe_id: str
    files: tuple[Path, ...]


def parse_signal(name: str) -> Signals:
    """Accept the name of a signal, with or without SIG. Raises InvalidRequest."""
    try:
        return Signals[f"SIG{name.upper().removeprefix('SIG')}"]
    except KeyError:
        raise InvalidRequest(f"{name[:40]!r} is no signal.", code="invalid_signal", field="signal", fix="Say HUP, USR1, …") from None


def socket_path(address: str) -> str:
    """Return the path of a `unix:///…` address (SPIFFE_ENDPOINT_SOCKET). Raises ConfigurationError."""
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    path = unquote(parts.path)
    plain = not (parts.netloc or parts.query or parts.fragment or "\0" in path)
    if parts.scheme != "unix" or not plain or not path.startswith("/"):
        raise ConfigurationError(
            f"{address[:200]!r} is no address of a Unix socket.",
            code="invalid_endpoint_socket",
            field="SPIFFE_ENDPOINT_SOCKET",
            fix="Say unix:///path/of/the/socket; 'crank node info' shows it as spiffe_socket.",
        )
    return path


async def keep(address: str, wish: Wish, *, watch: bool, told: Callable[[Fetched], None]) -> None:
    """Write the files once, or for as long as this process lives; `told` hears of each writing.

    Raises NotAllowed (this process has no identity, or none any more), Unavailable (the socket does not answer in time),
    NotFound (no such hint), ConfigurationError, OSError.
    """
    path = socket_path(address)
    wait_sec, written = RETRY_SEC_MIN, False
    while True:
        try:
            async for answer in _answers(path):
                # Reading and writing take moments, and a command may take a minute: no other work waits here.
                told(await asyncio.to_thread(_apply, answer, wish))
                wait_sec, written = RETRY_SEC_MIN, True
                if not watch:
                    return
        except Unavailable:
            # A node that starts again is back soon; certificates outlive that.
            if not written:
                raise
        await asyncio.sleep(wait_sec)
        wait_sec = min(RETRY_SEC_MAX, wait_sec * 2)


async def _answers(path: str) -> AsyncGenerator[Any, None]:
    """Give the messages of the stream. Raises CrankError for what ends it."""
    channel = Channel(path=path)
    kinds = (messages.X509SVIDRequest, messages.X509SVIDResponse)
    try:
        with _understood(path):
            async with UnaryStreamMethod(channel, f"/{SERVICE}/FetchX509SVID", *kinds).open(metadata={HEADER: "true"}) as stream:
                async with asyncio.timeout(FIRST_SEC_MAX):
                    await stream.send_message(messages.X509SVIDRequest(), end=True)
                    answer = await stream.recv_message()
                while answer is not None:
                    yield answer
                    answer = await stream.recv_message()
    finally:
        channel.close()


@contextlib.contextmanager
def _understood(path: str) -> Iterator[None]:
    try:
        yield
    except GRPCError as fault:
        text = f"The socket says: {fault.message}"
        if fault.status is Status.PERMISSION_DENIED:
            raise NotAllowed(text, code="no_identity", fix="Register it: crank workload add PATH --selector …") from fault
        if fault.status is Status.UNAVAILABLE:
            raise Unavailable(text) from fault
        raise ProtocolError(text) from fault
    except PermissionError as fault:
        raise NotAllowed(
            f"This account may not connect to {path}.",
            code="socket_closed",
            fix="Ask the node's owner to share the socket (CRANK_SPIFFE_SHARED).",
        ) from fault
    except (OSError, StreamTerminatedError, TimeoutError) as fault:
        raise Unavailable(f"The socket {path} does not answer.", fix="Start the node with 'crank up'.") from fault


def _apply(answer: Any, wish: Wish) -> Fetched:
    """Write what came, and tell the program that uses it."""
    chosen = _choose(answer, wish.hint)
    fetched = Fetched(chosen.spiffe_id, tuple(_write(answer, chosen, wish.folder)))
    if wish.command is not None:
        _run(shlex.split(wish.command))
    if wish.signal is not None and wish.pid_file is not None:
        _send(wish.signal, wish.pid_file)
    return fetched


def _choose(answer: Any, hint: str | None) -> Any:
    found = [svid for svid in answer.svids if hint in (None, svid.hint)]
    if not found:
        raise NotFound(f"No identity of this process has the hint {hint!r}.", code="hint_not_found", field="hint")
    return found[0]


def _write(answer: Any, chosen: Any, folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The key first: a reader that comes between finds a new key with an old certificate, refuses, and is told again.
    contents = {
        "key.pem": _pem("PRIVATE KEY", chosen.x509_svid_key),
        "cert.pem": b"".join(_pem("CERTIFICATE", one) for one in _apart(chosen.x509_svid)),
        "bundle.pem": b"".join(_pem("CERTIFICATE", one) for one in _apart(chosen.bundle)),
    }
    for trust_domain, octets in answer.federated_bundles.items():
        # A file each: whoever put them in one would let one domain speak for another.
        name = parse_spiffe_id(f"{trust_domain}/x").trust_domain
        contents[f"bundle.{name}.pem"] = b"".join(_pem("CERTIFICATE", one) for one in _apart(octets))
    for left in folder.glob(_FOREIGN):
        # Of a domain that this program may not believe any more: no federation, no file.
        if left.name not in contents:
            left.unlink(missing_ok=True)
    for name, content in contents.items():
        write_whole(folder / name, content, mode=0o600)
        yield folder / name
    if answer.crl:
        # Of a node that tells none, the last list stays: who checks by it then refuses, once its time is over.
        write_whole(folder / LISTS, b"".join(_pem("X509 CRL", one) for one in answer.crl), mode=0o644)
        yield folder / LISTS


def _apart(octets: bytes) -> Iterator[bytes]:
    """Yield certificates that stand one after another, by the lengths that DER says. Raises ProtocolError."""
    while octets:
        size = 2
        if octets[:1] != b"\x30" or len(octets) < size:
            raise ProtocolError("The socket sent something that is no certificate.")
        length = octets[1]
        if length & 0x80:
            size += length & 0x7F
            length = int.from_bytes(octets[2:size], "big")
        if not 0 < length <= len(octets) - size:
            raise ProtocolError("The socket sent a certificate that is cut off.")
        yield octets[: size + length]
        octets = octets[size + length :]


def _pem(label: str, octets: bytes) -> bytes:
    text = base64.b64encode(octets)
    lines = b"\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return b"-----BEGIN %b-----\n%b\n-----END %b-----\n" % (label.encode(), lines, label.encode())


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, timeout=COMMAND_SEC_MAX, stdin=subprocess.DEVNULL, check=False)
    except (OSError, subprocess.TimeoutExpired) as fault:
        raise _failed(f"The command cannot be run: {fault}.") from fault
    if done.returncode:
        raise _failed(f"The command ended with {done.returncode}.")


def _send(number: Signals, pid_file: Path) -> None:
    try:
        with pid_file.open("rb") as source:
            # Some write more beneath it, as PostgreSQL does.
            pid = int(source.readline(_PID_BYTES_MAX))
        if pid <= 1:
            # 0 and below mean whole groups of processes.
            raise ValueError(pid)
        os.kill(pid, number)
    except (OSError, ValueError) as fault:
        raise _failed(f"No process of {pid_file} can be told: {fault}.") from fault


def _failed(cause: str) -> CrankError:
    return ConfigurationError(
        f"The files are written, but their program was not told: {cause}",
        code="identity_not_told",
        fix="Correct the command or the file of its number, and start again.",
    )
