"""A private key that is honest and none of ours: whoever proves it before looking at its kind is busy for a long time."""

import base64

# Of 2^n - 1 it is known that these are primes.
_EXPONENTS = (4423, 4253)
_LARGER = (11213, 9941)


def costly_key(*, large: bool = False) -> bytes:
    """Return an RSA key as PEM; to prove one of these takes a processor 10 s, a large one over a minute."""
    first, second = (2**each - 1 for each in (_LARGER if large else _EXPONENTS))
    exponent = 65537
    private = pow(exponent, -1, (first - 1) * (second - 1))
    parts = (
        0, first * second, exponent, private, first, second, private % (first - 1), private % (second - 1), pow(second, -1, first),
    )  # fmt: skip
    text = base64.encodebytes(_tagged(0x30, b"".join(map(_integer, parts))))
    return b"-----BEGIN RSA PRIVATE KEY-----\n" + text + b"-----END RSA PRIVATE KEY-----\n"


def _integer(value: int) -> bytes:
    return _tagged(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def _tagged(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content
