"""The socket of workloads under attack: frames that make no sense, floods, readers that do not read, and marks mixed up."""

import asyncio
import contextlib
import os
import resource
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h2.config
import h2.connection
import h2.settings
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from crank.api.spiffe import door, seat, speech
from crank.api.spiffe.messages import workload_pb2
from crank.controller import svids
from crank.domain.workload import Selector, parse_selector
from crank.errors import Unavailable
from tests.support.spiffe_socket import OWN_UID, Socket, next_of, open_socket

SOON_SEC = 10


def head(call: str) -> list[tuple[str, str]]:
    """Return the headers of an honest call."""
    own = {":method": "POST", ":scheme": "http", ":authority": "x", ":path": f"/SpiffeWorkloadAPI/{call}"}
    # The header's short name would be taken for a slip of the pen.
    more = {"content-type": "application/grpc", "t" + "e": "trailers", "workload.spiffe.io": "true"}
    return [*own.items(), *more.items()]



@contextlib.asynccontextmanager
async def raw(at: Socket) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, h2.connection.H2Connection]]:
    """Give a connection on which a test says whatever it likes."""
    reader, writer = await asyncio.open_unix_connection(at.path)
    speaker = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
    speaker.initiate_connection()
    writer.write(speaker.data_to_send())
    try:
        yield reader, writer, speaker
    finally:
        writer.close()


async def refused(reader: asyncio.StreamReader) -> None:
    """Read until the other side ends the connection."""
    async with asyncio.timeout(SOON_SEC):
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass


async def serves_others(at: Socket) -> None:
    """See that an honest caller is served, and soon."""
    async with asyncio.timeout(SOON_SEC), at.client() as client:
        assert (await client.fetch_x509()).svids


@pytest.mark.parametrize(
    "octets",
    [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 64, os.urandom(4096), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 64],
    ids=["http1", "zeros", "noise", "broken frames"],
)
async def test_what_is_no_http2_ends_the_connection(tmp_path: Path, octets: bytes) -> None:
    """Garbage is answered by the end of that connection, and harms nobody else."""
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        reader, writer = await asyncio.open_unix_connection(at.path)
        writer.write(octets)
        writer.write_eof()
        await refused(reader)
        writer.close()
        await serves_others(at)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"\0\xff\xff\xff\xff", Status.RESOURCE_EXHAUSTED),
        (b"\0" + (speech.MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"), Status.RESOURCE_EXHAUSTED),
        (b"\1\0\0\0\0", Status.UNIMPLEMENTED),
        (b"\0\0\0\0\4\xff\xff\xff\xff", Status.INVALID_ARGUMENT),
        (b"\0\0\0\0\4\1", Status.INVALID_ARGUMENT),
        (b"\0\0", Status.INVALID_ARGUMENT),
        (b"", Status.INVALID_ARGUMENT),
    ],
    ids=["four gigabytes", "a byte too long", "compressed", "no protobuf", "cut off", "no length", "nothing"],
)
async def test_messages_that_lie_are_refused(tmp_path: Path, body: bytes, status: Status) -> None:
    """A length beyond the bound, compression and what is no message get a status each, at once; the connection lives."""
    async with open_socket(tmp_path) as at, raw(at) as (reader, writer, speaker):
        await at.register("agent/a")
        speaker.send_headers(1, head("FetchJWTSVID"))
        speaker.send_data(1, body, end_stream=True)
        writer.write(speaker.data_to_send())
        assert await _status(reader, speaker) == str(status.value)
        await serves_others(at)


async def _status(reader: asyncio.StreamReader, speaker: h2.connection.H2Connection) -> str:
    async with asyncio.timeout(SOON_SEC):
        while True:
            octets = await reader.read(65_536)
            assert octets, "the connection ended"
            for event in speaker.receive_data(octets):
                for name, value in getattr(event, "headers", None) or ():
                    if name == b"grpc-status":
                        return str(value.decode())


async def test_a_call_without_its_request_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a call and says nothing holds its place for so long and no longer."""
    monkeypatch.setattr(speech, "HEAR_SEC_MAX", 0.1)
    async with open_socket(tmp_path) as at, raw(at) as (reader, writer, speaker):
        await at.register("agent/a")
        speaker.send_headers(1, head("FetchX509SVID"))
        writer.write(speaker.data_to_send())
        assert await _status(reader, speaker) == str(Status.DEADLINE_EXCEEDED.value)
        assert at.door._crowd._all == 0


async def test_metadata_that_is_none_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Binary metadata that cannot be read is passed over, and leaves no trace in a log."""
    async with open_socket(tmp_path) as at, raw(at) as (reader, writer, speaker):
        await at.register("agent/a")
        speaker.send_headers(1, [*head("FetchJWTSVID"), ("x-bin", "%%%"), ("grpc-trace-bin", "=")])
        speaker.send_data(1, b"\0\0\0\0\4\n\2db", end_stream=True)
        writer.write(speaker.data_to_send())
        assert await _status(reader, speaker) == str(Status.OK.value)
    assert [record for record in caplog.records if record.name.startswith("grpclib") and record.levelname == "ERROR"] == []


async def test_a_connection_opens_so_many_streams(tmp_path: Path) -> None:
    """Beyond its share a connection is told Unavailable, and others are served."""
    async with open_socket(tmp_path) as at, at.client() as client, contextlib.AsyncExitStack() as open_streams:
        await at.register("agent/a")
        for _ in range(seat.STREAMS_OF_CONNECTION_MAX):
            stream = await open_streams.enter_async_context(client.watch_x509())
            assert (await next_of(stream)).svids
        one_more = await open_streams.enter_async_context(client.watch_x509())
        with pytest.raises(GRPCError) as caught:
            await next_of(one_more)
        assert caught.value.status is Status.UNAVAILABLE
        await serves_others(at)


async def test_one_account_never_has_every_place(tmp_path: Path) -> None:
    """Calls are counted in all and for each account; what is given back is free again."""
    crowd = seat.Crowd(streams_max=8, streams_of_connection_max=100)
    with contextlib.ExitStack() as held:
        for _ in range(4):
            held.enter_context(crowd.place(1, of_connection=0))
        with pytest.raises(Exception, match="Too many"), crowd.place(1, of_connection=0):
            pass
        with crowd.place(2, of_connection=0):
            pass
    with crowd.place(1, of_connection=0):
        pass
    assert crowd._open == {}


class Slow:
    """A process that takes long to look at, as one whose program is huge."""

    def __init__(self, uid: int, goes_on: threading.Event) -> None:
        self.uid = uid
        self._goes_on = goes_on

    def marks(self, *, digest: bool) -> frozenset[Selector]:
        """Look for as long as the test wants."""
        assert self._goes_on.wait(SOON_SEC)
        return frozenset({parse_selector(f"unix:uid:{self.uid}")})


async def test_one_account_never_has_every_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose processes take long to look at waits for its own; another account's are looked at meanwhile."""
    monkeypatch.setattr(seat, "LOOK_SEC_MAX", 3.0)
    crowd, slow, quick = seat.Crowd(), threading.Event(), threading.Event()
    quick.set()
    async with open_socket(tmp_path) as at:
        with ThreadPoolExecutor(seat.LOOKERS_MAX) as lookers:
            mine, other = (
                seat.Seat(Slow(uid, goes_on), at.svids, crowd, lookers) for uid, goes_on in ((1, slow), (2, quick))
            )
            for _ in range(2):
                # Given up on the first time, and its threads are still busy.
                looks = [asyncio.create_task(mine.marks()) for _ in range(20)]
                await asyncio.sleep(0)
                assert await other.marks() == {parse_selector("unix:uid:2")}
                assert {type(one) for one in await asyncio.gather(*looks, return_exceptions=True)} == {Unavailable}
            slow.set()
            assert await mine.marks() == {parse_selector("unix:uid:1")}


async def test_thousands_of_streams_opened_and_taken_back(tmp_path: Path) -> None:
    """Who opens and resets streams without end loses the connection; the others notice nothing."""
    async with open_socket(tmp_path) as at, raw(at) as (reader, writer, speaker):
        await at.register("agent/a")
        with contextlib.suppress(ConnectionError):
            for number in range(1, 2 * 2 * door.RESETS_MAX, 2):
                speaker.send_headers(number, head("FetchX509SVID"))
                speaker.reset_stream(number)
                writer.write(speaker.data_to_send())
                await writer.drain()
        await refused(reader)
        await serves_others(at)


async def test_answers_that_nobody_reads_are_not_kept(tmp_path: Path) -> None:
    """Who asks for answers by the million (pings) and reads none loses the connection."""
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        _, writer = await asyncio.open_unix_connection(at.path, limit=1024)
        speaker = h2.connection.H2Connection()
        speaker.initiate_connection()
        ping = b"\0\0\x08\x06\0\0\0\0\0" + b"p" * 8
        ended = False
        try:
            async with asyncio.timeout(SOON_SEC * 2):
                writer.write(speaker.data_to_send())
                for _ in range(400):
                    writer.write(ping * 1000)
                    await writer.drain()
        except (ConnectionError, TimeoutError):
            ended = True
        writer.close()
        assert ended
        await serves_others(at)


async def test_a_reader_that_does_not_read_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watcher with no room for an answer holds its call for so long and no longer; rotation goes on for the others."""
    monkeypatch.setattr(speech, "SEND_SEC_MAX", 0.2)
    async with open_socket(tmp_path) as at, raw(at) as (_, writer, speaker), at.client() as client:
        await at.register("agent/a")
        # A window of nothing: every answer has to wait.
        speaker.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        speaker.send_headers(1, head("FetchX509SVID"))
        speaker.send_data(1, b"\0" * 5, end_stream=True)
        writer.write(speaker.data_to_send())
        async with client.watch_x509() as stream:
            await next_of(stream)
            async with asyncio.timeout(SOON_SEC):
                while at.door._crowd._all != 1:
                    await asyncio.sleep(0.01)
            at.authority.change_root()
            assert (await next_of(stream)).svids


async def test_marks_are_never_mixed(tmp_path: Path) -> None:
    """All marks must hold, each for its own kind: a group is no account, and a part of a path is no path."""
    own = str(os.geteuid())
    async with open_socket(tmp_path) as at, at.client() as client:
        wrong = [
            (OWN_UID, "unix:gid:4294967290"),
            (OWN_UID, "unix:path:/usr"),
            (OWN_UID, f"unix:path:{os.readlink('/proc/self/exe')}x"),
            (OWN_UID, "unix:sha256:" + "0" * 64),
            (OWN_UID, "systemd:unit:nothing.service"),
            (f"unix:uid:1{own}",),
            (f"unix:gid:1{own}",),
        ]
        for number, selectors in enumerate(wrong):
            await at.register(f"agent/wrong-{number}", *selectors)
        with pytest.raises(GRPCError) as caught:
            await client.fetch_x509()
        assert caught.value.status is Status.PERMISSION_DENIED
        await at.register("agent/right", OWN_UID, f"unix:path:{os.readlink('/proc/self/exe')}")
        assert [svid.spiffe_id for svid in (await client.fetch_x509()).svids] == ["spiffe://test.internal/agent/right"]


async def test_a_connection_that_is_passed_on_is_worth_nothing(tmp_path: Path) -> None:
    """A child that inherits a connection and asks through it gets no answer, though its parent would."""
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        # Of this very process, and served; then a child writes one octet into it.
        reader, writer = await asyncio.open_unix_connection(at.path)
        async with at.client() as client:
            assert (await client.fetch_x509()).svids
        _write_in_a_child(writer.get_extra_info("socket").fileno(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        await refused(reader)
        writer.close()


def _write_in_a_child(descriptor: int, octets: bytes) -> None:
    child = os.fork()
    if child == 0:
        os.write(descriptor, octets)
        os._exit(0)
    os.waitpid(child, 0)


async def test_a_workload_asks_for_so_many_tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens for ever other audiences come to an end; the same one again costs nothing."""
    monkeypatch.setattr(svids, "TOKENS_A_MINUTE_MAX", 20)
    async with open_socket(tmp_path) as at, at.client() as client:
        await at.register("agent/a")
        for number in range(20):
            await client.tokens(f"audience-{number}")
        with pytest.raises(GRPCError) as caught:
            await client.tokens("one-more")
        assert caught.value.status is Status.UNAVAILABLE
        assert (await client.tokens("audience-1")).svids


async def test_no_connection_outlives_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound connections are closed at once; when some end, others are let in."""
    monkeypatch.setattr(door, "CONNECTIONS_MAX", 8)
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        held = [await asyncio.open_unix_connection(at.path) for _ in range(20)]
        async with asyncio.timeout(SOON_SEC):
            while len(at.door._connections) > 4 or at.door._admitting:
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()
        async with asyncio.timeout(SOON_SEC):
            while at.door._connections:
                await asyncio.sleep(0.01)
        await serves_others(at)


async def test_running_out_of_descriptors_is_no_end(tmp_path: Path) -> None:
    """When no connection can be accepted for want of descriptors, those that wait are served once there are some."""
    async with open_socket(tmp_path) as at:
        await at.register("agent/a")
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        waiting = socket.socket(socket.AF_UNIX)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 8, hard))
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            waiting.connect(at.path)
            await asyncio.sleep(0.05)
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            waiting.close()
        await serves_others(at)


async def test_the_door_closes_whatever_is_open(tmp_path: Path) -> None:
    """A node that stops ends its streams; nobody waits for ever, and nothing is left running."""
    async with open_socket(tmp_path) as at, at.client() as client:
        await at.register("agent/a")
        async with client.watch_x509() as stream:
            await next_of(stream)
            await at.door.close()
            with pytest.raises((GRPCError, StreamTerminatedError)):
                await next_of(stream)
        assert not at.door._connections


async def test_nothing_of_a_key_is_shown_by_accident(tmp_path: Path) -> None:
    """What a program's log may show of an identity holds no private key."""
    async with open_socket(tmp_path) as at, at.client() as client:
        await at.register("agent/a")
        svid = (await client.fetch_x509()).svids[0]
        (held,) = at.svids._held.values()
        shown: Any = repr(held)
        assert repr(svid.x509_svid_key)[2:20] not in shown
        assert "private_key" not in shown
        assert workload_pb2.X509SVID.FromString(svid.SerializeToString()) == svid
