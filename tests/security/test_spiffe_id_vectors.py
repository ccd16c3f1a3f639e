"""The SPIFFE-ID standard as tables: each rule by itself, over every byte; then the names of our own trust domain.

A test's sentence names the section of the standard, or of docs/reference/trust-domain.md, that it holds us to, and its
mark the rule of docs/reference/standards.md.
"""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.identity import (
    SPIFFE_ID_BYTES_MAX,
    TRUST_DOMAIN_BYTES_MAX,
    WorkloadKind,
    WorkloadPath,
    make_spiffe_id,
    parse_spiffe_id,
    parse_trust_domain,
    parse_trust_domain_id,
    parse_workload_path,
)
from crank.errors import InvalidRequest
from tests.support.musts import breaking

IN_DOMAIN = set(string.ascii_lowercase + string.digits + ".-_")
IN_PATH = set(string.ascii_letters + string.digits + ".-_")
# Each of the 256 bytes, as the character that has its number.
EVERY_BYTE = [chr(number) for number in range(256)]


def accepts(text: str) -> bool:
    """Tell whether the parser takes a text; what it refuses, it refuses with its one error."""
    try:
        made = parse_spiffe_id(text)
    except InvalidRequest as fault:
        assert fault.error_code == "invalid_spiffe_id"
        return False
    assert str(made) == text, "what is accepted is written back as it was"
    return True


@pytest.mark.must("SPIFFE-ID 2.1/3", "SPIFFE-ID 2.1/4", "SPIFFE-ID 2.1/5")
def test_every_byte_in_a_trust_domain():
    """SPIFFE-ID 2.1: of all bytes a trust domain holds lower-case letters, digits, dot, hyphen and underscore alone."""
    assert {byte for byte in EVERY_BYTE if accepts(f"spiffe://a{byte}b/path")} == IN_DOMAIN | {"/"}
    assert parse_spiffe_id("spiffe://a/b/path").trust_domain == "a"
    for byte in EVERY_BYTE:
        try:
            parse_trust_domain(f"a{byte}b")
        except InvalidRequest:
            assert byte not in IN_DOMAIN
        else:
            assert byte in IN_DOMAIN


@pytest.mark.must("SPIFFE-ID 2.2/1", "SPIFFE-ID 2.2/4")
def test_every_byte_in_a_path():
    """SPIFFE-ID 2.2: of all bytes a path segment holds letters, digits, dot, hyphen and underscore alone."""
    assert {byte for byte in EVERY_BYTE if accepts(f"spiffe://one.test/a{byte}b")} == IN_PATH | {"/"}
    # At the end a slash would leave an empty segment.
    assert {byte for byte in EVERY_BYTE if accepts(f"spiffe://one.test/a{byte}")} == IN_PATH
    assert {byte for byte in EVERY_BYTE if accepts(f"spiffe://one.test/{byte}")} == IN_PATH - {"."}


@pytest.mark.must("SPIFFE-ID 2.1/6")
@pytest.mark.parametrize(
    "text",
    [
        "spiffe://one.test/a",
        "spiffe://one.test/a/b/c",
        "spiffe://one.test/...",
        "spiffe://one.test/.a",
        "spiffe://one.test/..a/b..",
        "spiffe://one.test/A-Z_0.9",
        "spiffe://127.0.0.1/a",
        "spiffe://1/a",
        "spiffe://-/a",
        "spiffe://_one._test/a",
        "spiffe://one..test/a",
    ],
)
def test_what_is_an_identity(text):
    """SPIFFE-ID 2.1 and 2.2: names that look like addresses or hosts are not treated specially; dots inside are plain."""
    assert accepts(text)


@pytest.mark.parametrize(
    ("rule", "text"),
    breaking([
        ("SPIFFE-ID 2/1: scheme", ""),
        ("SPIFFE-ID 2/1: scheme", "spiffe"),
        ("SPIFFE-ID 2/1: scheme", "spiffe:/one.test/a"),
        ("SPIFFE-ID 2/1: scheme", "//one.test/a"),
        ("SPIFFE-ID 2/1: scheme", "http://one.test/a"),
        ("SPIFFE-ID 2/1: scheme", "Spiffe://one.test/a"),
        ("SPIFFE-ID 2/1: scheme", "SPIFFE://one.test/a"),
        ("SPIFFE-ID 2/1: scheme", " spiffe://one.test/a"),
        ("SPIFFE-ID 2/1, 2.1/1: no trust domain", "spiffe://"),
        ("SPIFFE-ID 2/1, 2.1/1: no trust domain", "spiffe:///a"),
        ("SPIFFE-ID 2.1/3: capitals", "spiffe://One.test/a"),
        ("SPIFFE-ID 2.1/2: user", "spiffe://me@one.test/a"),
        ("SPIFFE-ID 2.1/2: user", "spiffe://me:secret@one.test/a"),
        ("SPIFFE-ID 2.1/2: port", "spiffe://one.test:443/a"),
        ("SPIFFE-ID 2.1/2: port", "spiffe://one.test:/a"),
        ("SPIFFE-ID 2.1/4: address", "spiffe://[::1]/a"),
        ("SPIFFE-ID 2.1/5: percent-encoding", "spiffe://%6fne.test/a"),
        ("SPIFFE-ID 2.1/4: not ASCII", "spiffe://öne.test/a"),
        ("SPIFFE-ID 2.2/2: empty segment", "spiffe://one.test/"),
        ("SPIFFE-ID 2.2/2: empty segment", "spiffe://one.test//"),
        ("SPIFFE-ID 2.2/2: empty segment", "spiffe://one.test//a"),
        ("SPIFFE-ID 2.2/2: empty segment", "spiffe://one.test/a//b"),
        ("SPIFFE-ID 2.2/3: slash at the end", "spiffe://one.test/a/"),
        ("SPIFFE-ID 2.2/2: dots", "spiffe://one.test/."),
        ("SPIFFE-ID 2.2/2: dots", "spiffe://one.test/a/./b"),
        ("SPIFFE-ID 2.2/2: dots", "spiffe://one.test/.."),
        ("SPIFFE-ID 2.2/2: dots", "spiffe://one.test/a/../b"),
        ("SPIFFE-ID 2.2/1: percent-encoding", "spiffe://one.test/%61"),
        ("SPIFFE-ID 2.2/1: percent-encoding", "spiffe://one.test/%2e%2e"),
        ("SPIFFE-ID 2.2/4: not ASCII", "spiffe://one.test/ä"),
        ("SPIFFE-ID 2.2/4: not ASCII", "spiffe://one.test/\ud800"),
        ("SPIFFE-ID 2/2: query", "spiffe://one.test/a?b"),
        ("SPIFFE-ID 2/2: query", "spiffe://one.test?a"),
        ("SPIFFE-ID 2/2: fragment", "spiffe://one.test/a#b"),
        ("SPIFFE-ID 2/2: fragment", "spiffe://one.test#a"),
        ("SPIFFE-ID 2.2/4: line end", "spiffe://one.test/a\n"),
        ("X509-SVID 3.1/1: no path", "spiffe://one.test"),
    ]),
)  # fmt: skip
def test_what_is_no_identity(rule, text):
    """SPIFFE-ID 2, 2.1, 2.2: each of these breaks one rule and is refused."""
    assert not accepts(text), rule


@pytest.mark.must("SPIFFE-ID 2.3/1")
def test_lengths_of_identities():
    """SPIFFE-ID 2.3: 2048 bytes are read and no more; a trust domain has 255 at most."""
    head = "spiffe://one.test/"
    assert accepts(head + "a" * (SPIFFE_ID_BYTES_MAX - len(head)))
    assert not accepts(head + "a" * (SPIFFE_ID_BYTES_MAX - len(head) + 1))
    assert accepts(f"spiffe://{'a' * TRUST_DOMAIN_BYTES_MAX}/a")
    assert not accepts(f"spiffe://{'a' * (TRUST_DOMAIN_BYTES_MAX + 1)}/a")
    assert (SPIFFE_ID_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX) == (2048, 255)


@pytest.mark.must("X509-SVID 3.2/1")
@pytest.mark.parametrize("text", ["spiffe://one.test", "spiffe://1"])
def test_the_identity_of_a_domain_has_no_path(text):
    """SPIFFE-ID 2.2 and X509-SVID 3.2: a domain's own identity is its name alone."""
    assert f"spiffe://{parse_trust_domain_id(text)}" == text


@pytest.mark.parametrize(
    "text", ["", "one.test", "spiffe://", "spiffe://one.test/", "spiffe://one.test/a", "Spiffe://one.test", "spiffe://One.test",
             "spiffe://one.test\n", "spiffe://one.test:1"],
)  # fmt: skip
def test_what_is_no_identity_of_a_domain(text):
    """SPIFFE-ID 2.1 and 2.2: nothing may follow the name, and nothing may be written otherwise."""
    with pytest.raises(InvalidRequest):
        parse_trust_domain_id(text)


@given(st.text(max_size=60) | st.text("spiffe:/ab.-_%?#@1A", max_size=40) | st.text("/.a", max_size=20).map("spiffe://a".__add__))
def test_the_parser_never_surprises(text):
    """Any text is an identity that is written back the same, or refused with the one error."""
    accepts(text)


@given(
    st.text("abz09.-_", min_size=1, max_size=20),
    st.lists(st.text("azAZ09.-_", min_size=1, max_size=10).filter(lambda part: part not in (".", "..")), min_size=1, max_size=6),
)
def test_what_is_made_is_read_back(domain, path):
    """parse(str(id)) is id, whatever it holds."""
    made = make_spiffe_id(domain, *path)
    assert parse_spiffe_id(str(made)) == made


# --- our own trust domain ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("controller/n-0011", WorkloadPath(WorkloadKind.CONTROLLER, "n-0011")),
        ("worker/main-n-0011", WorkloadPath(WorkloadKind.WORKER, "main-n-0011")),
        ("worker/0190163d-8694-739b-aea5-966c26f8ad91", WorkloadPath(WorkloadKind.WORKER, "0190163d-8694-739b-aea5-966c26f8ad91")),
        ("node/n-0011", WorkloadPath(WorkloadKind.NODE, "n-0011")),
        ("agent/claude", WorkloadPath(WorkloadKind.AGENT, "claude")),
        ("tenant/acme/agent/claude", WorkloadPath(WorkloadKind.AGENT, "claude", "acme")),
        ("tenant/acme/web", WorkloadPath(WorkloadKind.WORKLOAD, "web", "acme")),
        ("tenant/acme/shop/web/eu/1", WorkloadPath(WorkloadKind.WORKLOAD, "shop/web/eu/1", "acme")),
    ],
)  # fmt: skip
def test_what_our_domain_knows(path, expected):
    """trust-domain.md, Names: each kind has one shape, and its parts come out."""
    assert parse_workload_path(parse_spiffe_id(f"spiffe://crank.internal/{path}")) == expected


@pytest.mark.parametrize(
    "path",
    [
        "controller",
        "controller/a/b",
        "Controller/a",
        "controller/.hidden",
        "controller/-x",
        "worker",
        "worker/" + "a" * 129,
        "node/_x",
        "agent/Claude",
        "agent/" + "a" * 64,
        "agent/a/b",
        "workload/web",
        "job/1",
        "admin/root",
        "tenant",
        "tenant/acme",
        "tenant/Acme/web",
        "tenant/" + "a" * 64 + "/web",
        "tenant/acme/.web",
        "tenant/acme/a/b/c/d/e",
        "tenant/acme/controller/c1",
        "tenant/acme/worker/w1",
        "tenant/acme/node/n1",
        "tenant/acme/tenant/other",
        "tenant/acme/agent",
        "tenant/acme/agent/Claude",
        "tenant/acme/agent/a/b",
    ],
)
def test_what_our_domain_does_not_know(path):
    """trust-domain.md, Names: no other kind, no other shape, nothing longer, and no tenant's name looks like the node's."""
    with pytest.raises(InvalidRequest) as caught:
        parse_workload_path(parse_spiffe_id(f"spiffe://crank.internal/{path}"))
    assert caught.value.error_code == "invalid_spiffe_id"


@given(st.lists(st.sampled_from(["controller", "worker", "node", "agent", "tenant", "a", "A", ".a", "_", "a" * 130]), min_size=1))
def test_the_parser_of_paths_never_surprises(path):
    """Any valid SPIFFE ID has one of our shapes, or is refused with the one error."""
    try:
        found = parse_workload_path(make_spiffe_id("crank.internal", *path))
    except InvalidRequest as fault:
        assert fault.error_code == "invalid_spiffe_id"
    else:
        assert found.name
