"""How refusals and silence of a node become faults, and what is asked again."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from crank.adapters.authority import FileAuthority
from crank.adapters.clock import SystemClock, SystemIdSource
from crank.client import AsyncClient, ClientOptions
from crank.client.link import fault_of, job_id_of
from crank.errors import (
    ConfigurationError,
    Conflict,
    CrankError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    Unavailable,
    UntrustedPeer,
)
from crank.security import bearer_server_context

JOB = {"job_id": "j", "status": "succeeded", "end": {"reason": "exited", "exit_code": 0}}
Answer = Callable[[str, dict[str, str]], list[bytes]]


def authority(folder: Path) -> FileAuthority:
    """Make an authority of its own."""
    return FileAuthority(folder, trust_domain="test.internal", clock=SystemClock(), ids=SystemIdSource())


@asynccontextmanager
async def node(folder: Path, answer: Answer) -> AsyncIterator[ClientOptions]:
    """Give a TLS server that answers each request with bytes and closes the connection after it."""
    own = authority(folder / "authority").issue_controller("c")
    (folder / "token").write_text("secret")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        await reader.readexactly(int(headers.get("content-length", 0)))
        for part in answer(head[0], headers):
            writer.write(part)
        await writer.drain()
        writer.close()

    tls = bearer_server_context(certificate_file=own.certificate_file, key_file=own.key_file)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield ClientOptions(f"https://127.0.0.1:{port}", str(own.ca_file), str(folder / "token"), retry_sec=10)


def plain(body: object, status: str = "200 OK") -> list[bytes]:
    """Return a whole answer of JSON."""
    text = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    return [head.encode(), text]


def events(*lines: str) -> list[bytes]:
    """Return the beginning of a stream that is then cut off."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head, *(f"{len(line.encode()):x}\r\n{line}\r\n".encode() for line in lines)]


def event(position: int, kind: str, body: object) -> str:
    """Return one event as the node writes it."""
    return f"id: {position}\nevent: {kind}\ndata: {json.dumps(body)}\n\n"


async def test_a_cut_stream_goes_on_where_it_was(tmp_path: Path) -> None:
    """After a dropped connection the client asks for what follows the last event, and shows each event once."""
    asked: list[str] = []

    def answer(line: str, headers: dict[str, str]) -> list[bytes]:
        asked.append(headers["last-event-id"])
        if len(asked) == 1:
            return events(event(1, "stdout", {"text": "a"}), event(2, "stdout", {"text": "b"}))
        return [*events(event(3, "stdout", {"text": "c"}), event(4, "end", JOB)), b"0\r\n\r\n"]

    async with node(tmp_path, answer) as options, AsyncClient(options) as client:
        seen = [(each.position, each.text) async for each in client.events("j")]
    assert asked == ["0", "2"]
    assert seen == [(1, "a"), (2, "b"), (3, "c"), (4, "")]


async def test_a_lost_answer_is_asked_for_with_the_same_key(tmp_path: Path) -> None:
    """When the connection breaks before the answer, the request is repeated with its key, so it runs once."""
    keys: list[str] = []

    def answer(line: str, headers: dict[str, str]) -> list[bytes]:
        keys.append(headers["idempotency-key"])
        busy = {"code": "queue_full", "detail": "busy"}
        return ([], plain(busy, "503 Service Unavailable"), plain(JOB))[min(len(keys), 3) - 1]

    async with node(tmp_path, answer) as options, AsyncClient(options) as client:
        assert (await client.submit({"code": "1"})).ok
    assert len(keys) == 3
    assert len(set(keys)) == 1


async def test_a_stranger_is_not_trusted(tmp_path: Path) -> None:
    """A server with another authority's certificate gets no secret: the client refuses and does not try again."""
    stranger = authority(tmp_path / "stranger")
    stranger.ensure()

    def answer(line: str, headers: dict[str, str]) -> list[bytes]:
        raise AssertionError("the request must not arrive")

    async with node(tmp_path, answer) as options:
        wrong = ClientOptions(options.api, str(stranger.ca_file), options.token_file)
        async with AsyncClient(wrong) as client:
            with pytest.raises(UntrustedPeer):
                await client.get("j")


async def test_a_changed_root_is_believed_by_who_runs_on(tmp_path: Path) -> None:
    """A program that holds a client across a change of the root finds the node again, and believes no root that went."""
    stranger = authority(tmp_path / "stranger")
    stranger.ensure()
    believed = tmp_path / "api-ca.pem"
    async with node(tmp_path, lambda *_: plain(JOB)) as options:
        believed.write_bytes(Path(stranger.ca_file).read_bytes())
        async with AsyncClient(replace(options, ca_file=str(believed))) as client:
            with pytest.raises(UntrustedPeer):
                await client.get("j")
            believed.write_bytes(Path(options.ca_file).read_bytes())
            assert (await client.get("j")).ok
            believed.unlink()
            assert (await client.get("j")).ok, "a file that is away for a moment takes nothing"
            believed.write_bytes(Path(stranger.ca_file).read_bytes())
            with pytest.raises(UntrustedPeer):
                await client.get("j")


async def test_silence_is_unavailable(tmp_path: Path) -> None:
    """When nobody listens, the fault says so and how to start the node."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    own = authority(tmp_path / "authority").issue_controller("c")
    (tmp_path / "token").write_text("secret")
    options = ClientOptions(f"https://127.0.0.1:{port}", str(own.ca_file), str(tmp_path / "token"), retry_sec=0)
    async with AsyncClient(options) as client:
        with pytest.raises(Unavailable) as caught:
            await client.get("j")
    assert "crank up" in caught.value.fix


def test_missing_files_are_told(tmp_path: Path) -> None:
    """A token or CA file that cannot be read is a mistake of configuration with its path."""
    with pytest.raises(ConfigurationError):
        AsyncClient(ClientOptions("https://127.0.0.1:1", str(tmp_path / "ca"), str(tmp_path / "token")))


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, {"code": "not_authenticated"}, NotAuthenticated),
        (404, {"code": "job_not_found"}, NotFound),
        (409, {"code": "job_id_taken"}, Conflict),
        (422, {"code": "unknown_field", "field": "cod"}, InvalidRequest),
        (503, {"code": "disk_full"}, Unavailable),
        (500, None, CrankError),
        (418, "not an object", InvalidRequest),
    ],
)
def test_problems_become_faults(status: int, body: object, kind: type) -> None:
    """A problem document becomes the fault of its kind, with its code and field."""
    fault = fault_of(status, body)
    assert type(fault) is kind
    if isinstance(body, dict):
        assert fault.error_code == body["code"]
        assert fault.field == body.get("field")


def test_a_fault_names_its_job() -> None:
    """When a refusal has a job, the caller can find it."""
    assert job_id_of(fault_of(422, {"code": "unsatisfied-capability", "job_id": "j"})) == "j"
    assert job_id_of(fault_of(422, {"code": "x"})) is None
