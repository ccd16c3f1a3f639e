"""One TLS handshake in memory, and what each side saw."""

import ssl


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, host: str = "localhost") -> tuple[bytes, bytes | None]:
    """Return the certificates that the server and the client showed. Raises ssl.SSLError of who refused."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server.wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server, server_hostname=host)
    for _ in range(6):
        for side in (two, one):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # TLS 1.3: the server's judgement of the client comes after the client's own end of the handshake.
    one.write(b"x")
    assert two.read(1) == b"x"
    shown = two.getpeercert(binary_form=True)
    assert shown is not None
    return shown, one.getpeercert(binary_form=True)
