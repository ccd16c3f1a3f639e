"""Taking ports, and giving them back."""

import asyncio
import socket
import ssl

import httpx2
import pytest

from crank.api.server import Listener, bind
from crank.errors import ConfigurationError
from tests.support.listeners import open_listeners


def test_a_port_that_is_taken_is_named():
    """The refusal names the port, what it was for, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        wanted = Listener(None, "127.0.0.1", port, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "api")  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError) as caught:
            bind(wanted)
    assert caught.value.error_code == "port_taken"
    assert str(port) in caught.value.message
    assert caught.value.field == "api"


async def test_answers_do_not_wait_for_company(tmp_path):
    """Connections are taken with Nagle's algorithm off: an answer in two pieces would wait 40 ms for the other side."""
    own = []

    class Seen(asyncio.Protocol):
        def connection_made(self, transport):
            taken = transport.get_extra_info("socket")
            own.append(taken.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            transport.close()

    with bind(Listener(None, "127.0.0.1", 0, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "api")) as listening:  # type: ignore[arg-type]
        server = await asyncio.get_running_loop().create_server(Seen, sock=listening)
        async with server:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            await reader.read()
            writer.close()
    assert own == [1]


async def test_callers_of_the_api_trust_the_published_authority(desk, tmp_path):
    """The API answers over TLS to who trusts the authority's file, and to nobody who does not."""
    async with open_listeners(desk, tmp_path / "identities") as node:
        url = f"https://localhost:{node.api_port}/healthz"
        async with httpx2.AsyncClient(verify=ssl.create_default_context(cafile=node.authority.ca_file)) as client:
            assert (await client.get(url)).status_code == 200
        async with httpx2.AsyncClient() as stranger:
            with pytest.raises(httpx2.ConnectError):
                await stranger.get(url)


async def test_an_old_connection_ends_with_an_answer(desk, tmp_path, monkeypatch):
    """A kept connection says that it ends once it is old, so that no request meets a closed door."""
    monkeypatch.setattr("tests.support.listeners.AGE_SEC_MAX", 0.0)
    async with open_listeners(desk, tmp_path / "identities") as node:
        context = ssl.create_default_context(cafile=node.authority.ca_file)
        reader, writer = await asyncio.open_connection("127.0.0.1", node.api_port, ssl=context)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        answer = (await asyncio.wait_for(reader.read(), 10)).lower()
        assert b"200 ok" in answer
        assert answer.count(b"connection: close") == 1
        writer.close()
        async with httpx2.AsyncClient(verify=context) as client:
            for _ in range(20):
                assert (await client.get(f"https://127.0.0.1:{node.api_port}/healthz")).status_code == 200


async def test_stopping_ends_endless_answers(desk, worker, tmp_path):
    """A stream that is followed for ever does not keep the servers from stopping; the port is free then."""
    from tests.support.desk import SECRET

    async with open_listeners(desk, tmp_path / "identities") as node:
        port = node.api_port
        context = ssl.create_default_context(cafile=node.authority.ca_file)
        head = f"Host: x\r\nAuthorization: Bearer {SECRET}\r\n"
        async with httpx2.AsyncClient(verify=context, headers={"Authorization": f"Bearer {SECRET}"}) as client:
            worker.live.draining = True
            job = (await client.post(f"https://127.0.0.1:{port}/v1/jobs", json={"code": "1"})).json()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(f"GET /v1/jobs/{job['job_id']}/events HTTP/1.1\r\n{head}\r\n".encode())
        await asyncio.wait_for(reader.readuntil(b"event: status"), 10)
    writer.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


async def test_hanging_up_frees_the_key(desk, worker, tmp_path):
    """A caller that gives up waiting can repeat its request at once and gets the same job."""
    from tests.support.desk import SECRET

    async with open_listeners(desk, tmp_path / "identities") as node:
        context = ssl.create_default_context(cafile=node.authority.ca_file)
        headers = {"Authorization": f"Bearer {SECRET}", "Idempotency-Key": "k1", "Prefer": "wait=40"}
        url = f"https://127.0.0.1:{node.api_port}/v1/jobs"
        async with httpx2.AsyncClient(verify=context, headers=headers, timeout=30) as client:
            first = asyncio.create_task(client.post(url, json={"code": "1"}))
            lease = await worker.lease()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        async with httpx2.AsyncClient(verify=context, headers=headers | {"Prefer": "wait=0"}, timeout=30) as client:
            answer = await client.post(url, json={"code": "1"})
            for _ in range(200):
                if answer.status_code != 409:
                    break
                await asyncio.sleep(0.02)
                answer = await client.post(url, json={"code": "1"})
        assert answer.status_code == 202
        assert answer.json()["job_id"] == lease.job_id
