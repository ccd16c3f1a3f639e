"""SPIFFE identities: only well formed ones exist."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.identity import make_spiffe_id, parse_spiffe_id, parse_trust_domain
from crank.errors import InvalidRequest


@given(
    st.from_regex(r"[a-z0-9._-]{1,30}", fullmatch=True),
    st.lists(st.from_regex(r"[A-Za-z0-9_-]{1,20}", fullmatch=True), min_size=1, max_size=4),
)
def test_what_is_made_is_parsed_back(domain: str, path: list[str]) -> None:
    """Text and value are two forms of one identity."""
    made = make_spiffe_id(domain, *path)
    assert parse_spiffe_id(str(made)) == made
    assert (made.kind, made.name) == (path[0], path[-1])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://",
        "spiffe://td",
        "spiffe://td/",
        "spiffe://td/a//b",
        "spiffe://td/a/",
        "spiffe://td/a/../b",
        "spiffe://td/./a",
        "spiffe://TD/a",
        "SPIFFE://td/a",
        "https://td/a",
        "spiffe://td:80/a",
        "spiffe://user@td/a",
        "spiffe://td/a?b",
        "spiffe://td/a#b",
        "spiffe://td/%61",
        "spiffe://td/a\n",
        "spiffe://td/a b",
        "spiffe://td/" + "a" * 2048,
    ],
)
def test_malformed_identities_do_not_exist(text: str) -> None:
    """No value is made of a text that the standard does not allow."""
    with pytest.raises(InvalidRequest):
        parse_spiffe_id(text)


@pytest.mark.parametrize("text", ["", "Upper", "a b", "a/b", "a" * 256])
def test_malformed_trust_domains_are_refused(text: str) -> None:
    """A trust domain is a short lower-case name."""
    with pytest.raises(InvalidRequest):
        parse_trust_domain(text)
