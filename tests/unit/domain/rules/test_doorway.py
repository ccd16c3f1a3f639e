"""By which names a node is reached, and from which pages."""

import pytest

from crank.domain.rules.doorway import known_names, own_place, refusal


def why(host, origin, names):
    """Return the code of the refusal; None for who is admitted."""
    refused = refusal(host, origin, names)
    return None if refused is None else refused.code


HOME = known_names("127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:7443", "localhost:1", "LOCALHOST:9", "[::1]:7443", "[::1]"])
def test_loopback_is_always_a_name(host):
    """A node on loopback is reached by each name of loopback, with any port."""
    assert refusal(host, None, HOME) is None


@pytest.mark.parametrize(
    "host",
    [None, "", "evil.example", "evil.example:7443", "127.0.0.1.evil.example", "localhost.evil:1", "127.0.0.1:x", "[::1", "[::1]x",
     "127.0.0.1:1:2", "10.0.0.5", ":7443", "localhost:999999"],
)  # fmt: skip
def test_other_names_are_refused(host):
    """A name that is not the node's own is refused, however it is dressed up."""
    assert why(host, None, HOME) == "wrong_host"


def test_an_operator_adds_names():
    """A node that listens elsewhere is reached by that address and by what its operator added, and by nothing else."""
    names = known_names("10.0.0.5", ["crank.example"])
    assert refusal("10.0.0.5:7443", None, names) is None
    assert refusal("Crank.Example", None, names) is None
    assert why("other.example", None, names) == "wrong_host"
    assert why("0.0.0.0:1", None, known_names("0.0.0.0")) == "wrong_host"


@pytest.mark.parametrize(
    ("origin", "admitted"),
    [(None, True), ("https://127.0.0.1:7443", True), ("http://localhost:6274", True), ("https://evil.example", False),
     ("null", False), ("file://", False), ("https://localhost.evil", False), ("ftp://localhost", False), ("", False)],
)  # fmt: skip
def test_pages_of_other_sites_are_refused(origin, admitted):
    """A page of another site may not speak to the node, even by the node's own name."""
    assert why("localhost:7443", origin, HOME) == (None if admitted else "wrong_origin")


@pytest.mark.parametrize(
    ("bind", "port", "place"),
    [
        ("127.0.0.1", 7443, "localhost:7443"), ("0.0.0.0", 1, "localhost:1"), ("::", None, "localhost"),
        ("10.0.0.5", 7443, "10.0.0.5:7443"), ("FD00::5", 7443, "[fd00::5]:7443"),
    ],
)  # fmt: skip
def test_a_node_has_a_name_of_its_own(bind, port, place):
    """Where nobody's word counts, a node names the address it listens at, or this machine."""
    assert own_place(bind, port) == place
