"""A publisher of trust bundles on loopback, over real TLS, that shows whatever a test tells it to."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.x509 import load_der_x509_certificate

from crank.security import bundles
from tests.support.svids import Issuer


def tls_of(issuer: Issuer, folder: Path, *, side: int = ssl.PROTOCOL_TLS_SERVER) -> ssl.SSLContext:
    """Return what serves, or calls, with this certificate, its key, and what signed it."""
    folder.mkdir(exist_ok=True)
    private = issuer.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    chain = b"".join(load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in issuer.chain)
    file = folder / f"{issuer.certificate.serial_number:x}.pem"
    file.write_bytes(private + chain)
    context = ssl.SSLContext(side)
    context.load_cert_chain(file)
    return context


def pem_of(issuer: Issuer) -> str:
    """Return a certificate as PEM."""
    return issuer.certificate.public_bytes(serialization.Encoding.PEM).decode()


def shows(bundle) -> bytes:
    """Return the answer of a publisher that shows a bundle."""
    return ok(bundles.write_bundle(bundle))


def ok(body: bytes) -> bytes:
    """Return a good answer with any body."""
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def moved(location: str, status: int = 302) -> bytes:
    """Return an answer that leads elsewhere."""
    return f"HTTP/1.1 {status} Elsewhere\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode("latin-1")


class Publisher:
    """Answers each path with what stands under it."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Return where the bundle is."""
        return f"https://127.0.0.1:{self.port}/bundle"

    def show(self, bundle) -> None:
        """Show this bundle from now on."""
        self.answers["/bundle"] = shows(bundle)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        with contextlib.suppress(OSError, EOFError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            writer.write(self.answers.get(path, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"))
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def publishing(tls: Callable[[], ssl.SSLContext] | ssl.SSLContext) -> AsyncIterator[Publisher]:
    """Give a publisher that serves until the test is over."""
    publisher = Publisher()
    context = tls if isinstance(tls, ssl.SSLContext) else tls()
    listening = await asyncio.start_server(publisher.serve, "127.0.0.1", 0, ssl=context)
    publisher.port = listening.sockets[0].getsockname()[1]
    try:
        yield publisher
    finally:
        listening.close()
        await listening.wait_closed()
