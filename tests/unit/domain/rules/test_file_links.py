"""Links that callers hand over: only https to listed hosts, and names that cannot act."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.rules.file_links import LINKS_MAX, host_and_target, parse_file_links
from crank.domain.rules.request import parse_relative_path
from crank.errors import CrankError, InvalidRequest, NotAllowed, TooLarge

HOSTS = ("files.example.org",)


def ref(url: str = "https://files.example.org/a?b=c%20d", name: str | None = "a.txt") -> dict:
    """Return a file as ChatGPT hands it over."""
    return {"name": name, "id": "file-1", "mime_type": "text/plain", "download_link": url}


def test_a_listed_host_is_accepted() -> None:
    """The link is kept as it came, the name stays readable."""
    (link,) = parse_file_links([ref(name="2023 Bericht.pdf")], HOSTS)
    assert (link.path, link.url) == ("2023 Bericht.pdf", "https://files.example.org/a?b=c%20d")
    assert host_and_target(link.url) == ("files.example.org", "/a?b=c%20d")
    assert host_and_target("https://files.example.org?x") == ("files.example.org", "/?x")


def test_without_hosts_it_is_off() -> None:
    """A node that was told nothing fetches nothing, and says how to allow it."""
    with pytest.raises(NotAllowed) as caught:
        parse_file_links([ref()], ())
    assert caught.value.error_code == "file_links_off"
    assert "CRANK_ACTIONS_FILE_HOSTS" in caught.value.fix
    assert parse_file_links([], ()) == ()


@pytest.mark.parametrize(
    "url",
    [
        "http://files.example.org/a",
        "file:///etc/passwd",
        "https://evil.test/a",
        "https://files.example.org.evil.test/a",
        "https://evil.test/https://files.example.org/",
        "https://files.example.org@evil.test/a",
        "https://user:secret@files.example.org/a",
        "https://files.example.org:8443/a",
        "https://files.example.org:443@evil.test/",
        "https://127.0.0.1/a",
        "https://[::1]/a",
        "https://2130706433/a",
        "https://FILES.example.org/a",
        "https://files.example.org/a\r\nHost: evil.test",
        "https://files.example.org/a b",
        "https://files.example.org\\@evil.test/",
        "https://files.example.org./a",
        "https://files.example.org/" + "x" * 5_000,
        " https://files.example.org/a",
        "https://files.example.org#@evil.test/",
        "",
    ],
)
def test_every_other_link_is_refused(url: str) -> None:
    """Other schemes, hosts, ports, users, addresses, line breaks and lookalikes are refused alike."""
    with pytest.raises(NotAllowed) as caught:
        parse_file_links([ref(url)], HOSTS)
    assert caught.value.error_code == "file_link_refused"


@pytest.mark.parametrize("entry", ["file-123", 7, None, {}, {"download_link": 5}, {"download_link": "x", "name": []}])
def test_what_is_no_file_is_refused(entry: object) -> None:
    """An id alone, as older documents show it, cannot be fetched."""
    with pytest.raises((InvalidRequest, NotAllowed)):
        parse_file_links([entry], HOSTS)


def test_there_are_ten_at_most() -> None:
    """One more than ChatGPT sends is too many."""
    with pytest.raises(TooLarge):
        parse_file_links([ref()] * (LINKS_MAX + 1), HOSTS)


@given(st.lists(st.text(max_size=300), min_size=1, max_size=LINKS_MAX))
def test_every_name_becomes_a_plain_path(names: list[str]) -> None:
    """Whatever files are called, the job gets plain relative paths, each its own, that a request accepts."""
    links = parse_file_links([ref(name=name) for name in names], HOSTS)
    assert len({link.path.casefold() for link in links}) == len(names)
    for link in links:
        assert parse_relative_path(link.path, field="path") == link.path
        assert "/" not in link.path


@given(st.text(max_size=200))
def test_no_text_breaks_the_reader(url: str) -> None:
    """Any text is accepted or refused, never a defect."""
    with contextlib.suppress(CrankError):
        parse_file_links([ref(url)], HOSTS)
