"""The workload-type extension: one form is written, and no other is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.ids import InstanceId
from crank.domain.trust import Attestation, Workload
from crank.domain.workload_codec import decode_workload, encode_workload
from crank.errors import InvalidRequest

INSTANCE = InstanceId("01890a5d-ac96-774b-bcce-b302099a8057")
WORKLOAD = Workload("worker", INSTANCE, Attestation.JOIN)
KNOWN = bytes.fromhex("301d0c06776f726b6572041001890a5dac96774bbcceb302099a8057020102")


def test_the_form_is_known():
    """The octets are those of `SEQUENCE { UTF8String, OCTET STRING (16), INTEGER }`, written by hand here."""
    assert encode_workload(WORKLOAD) == KNOWN
    assert decode_workload(KNOWN) == WORKLOAD


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    st.integers(0, (1 << 48) - 1),
    st.integers(0, (1 << 74) - 1),
    st.sampled_from(Attestation),
)
def test_what_is_written_is_read(kind, milliseconds, tail, attestation):
    """Every workload comes back as it was."""
    digits = f"{milliseconds:012x}7{tail >> 62:03x}{(0b10 << 62) | (tail & ((1 << 62) - 1)):016x}"
    text = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    workload = Workload(kind, InstanceId(text), attestation)
    assert decode_workload(encode_workload(workload)) == workload


@given(st.integers(0, len(KNOWN) - 1), st.integers(0, 255))
def test_no_two_forms_mean_the_same(position, octet):
    """Whatever octet is changed: it is refused, or it is another workload, whose one form this is."""
    changed = KNOWN[:position] + bytes([octet]) + KNOWN[position + 1 :]
    try:
        read = decode_workload(changed)
    except InvalidRequest as fault:
        assert fault.error_code == "invalid_workload"
        return
    assert encode_workload(read) == changed


@given(st.binary(max_size=80))
def test_noise_is_refused_as_such(octets):
    """Noise never becomes another fault."""
    try:
        assert encode_workload(decode_workload(octets)) == octets
    except InvalidRequest as fault:
        assert fault.error_code == "invalid_workload"


@pytest.mark.parametrize(
    "octets",
    [
        KNOWN + b"\x00",
        KNOWN[:-1],
        b"",
        b"\x30\x80" + KNOWN[2:] + b"\x00\x00",
        b"\x30\x81\x1d" + KNOWN[2:],
        KNOWN[:1] + bytes([KNOWN[1] + 1]) + KNOWN[2:-3] + b"\x02\x02\x00\x02",
        KNOWN.replace(b"\x74\x77\x4b"[1:], b"\x47\x4b"),
        KNOWN.replace(b"worker", b"Worker"),
        KNOWN[:-1] + b"\x03",
    ],
)
def test_other_forms_are_refused(octets):
    """Octets behind the end, an indefinite or long length, a padded number, another version, level or letter case."""
    with pytest.raises(InvalidRequest):
        decode_workload(octets)


@pytest.mark.parametrize(
    "workload",
    [
        Workload("", INSTANCE, Attestation.NONE),
        Workload("x" * 33, INSTANCE, Attestation.NONE),
        Workload("Worker", INSTANCE, Attestation.NONE),
        Workload("worker", InstanceId("01890a5d-ac96-474b-bcce-b302099a8057"), Attestation.NONE),
        Workload("worker", InstanceId("x"), Attestation.NONE),
    ],
)
def test_what_is_no_workload_is_not_written(workload):
    """A type that is empty, long or in capitals, and an instance that is no UUIDv7, never reach a certificate."""
    with pytest.raises(InvalidRequest):
        encode_workload(workload)
