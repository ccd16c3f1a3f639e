"""The workload-type extension of our certificates, in DER: `SEQUENCE { type, instance, attestation }`.

One form for each value and no other is read: two readers that disagree about a certificate are an attack surface.
"""

import re
from typing import NoReturn

from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation, Workload
from crank.errors import InvalidRequest

# The arc 2.25 holds one identifier for each UUID (ITU-T X.667) and needs no registration. This UUID is
# 7f2c1a52-3b7e-4c55-9d0a-61c7b1f0c4d9; it is ours for good and means this extension alone.
WORKLOAD_OID = "2.25.169040950384231170099418255006383523033"
KIND_CHARS_MAX = 32
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SEQUENCE, _UTF8, _OCTETS, _INTEGER = 0x30, 0x0C, 0x04, 0x02
_INSTANCE_BYTES = 16
# All of it fits lengths of one octet.
_SHORT_BYTES_MAX = 127


def encode_workload(workload: Workload) -> bytes:
    """Return the value of the extension. Raises InvalidRequest (`invalid_workload`)."""
    if not _KIND.fullmatch(workload.kind):
        _refuse("The type of a workload is 1 to 32 lower-case letters, digits or hyphens, a letter first")
    if not _UUID7.fullmatch(workload.instance_id):
        _refuse("The instance of a workload is a UUID of version 7")
    content = (
        _element(_UTF8, workload.kind.encode("ascii"))
        + _element(_OCTETS, bytes.fromhex(workload.instance_id.replace("-", "")))
        + _element(_INTEGER, bytes([int(workload.attestation)]))
    )
    return _element(_SEQUENCE, content)


def decode_workload(value: bytes) -> Workload:
    """Read the value of the extension; only what `encode_workload` writes. Raises InvalidRequest (`invalid_workload`)."""
    content, rest = _take(_SEQUENCE, value)
    kind, content = _take(_UTF8, content)
    instance, content = _take(_OCTETS, content)
    level, content = _take(_INTEGER, content)
    if rest or content:
        _refuse("There are octets after the end")
    if len(instance) != _INSTANCE_BYTES or len(level) != 1 or level[0] not in set(Attestation):
        _refuse("The instance or the level of attestation is none")
    digits = instance.hex()
    text = f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
    workload = Workload(kind.decode("ascii", "replace"), InstanceId(text), Attestation(level[0]))
    if encode_workload(workload) != value:
        _refuse("It is written in another form than ours")
    return workload


def _element(tag: int, content: bytes) -> bytes:
    return bytes([tag, len(content)]) + content


def _take(tag: int, octets: bytes) -> tuple[bytes, bytes]:
    if len(octets) < 2 or octets[0] != tag or octets[1] > _SHORT_BYTES_MAX or len(octets) < 2 + octets[1]:
        _refuse("Its DER is cut short or holds something else")
    end = 2 + octets[1]
    return octets[2:end], octets[end:]


def _refuse(cause: str) -> NoReturn:
    raise InvalidRequest(
        f"The workload-type extension cannot be used: {cause}.",
        code="invalid_workload",
        fix="Ask for a certificate from an authority of Crank.",
    )
