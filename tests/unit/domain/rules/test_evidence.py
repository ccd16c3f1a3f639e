"""Evidence adds up: equal denials once with their count, bounded, and the hosts that were wanted."""

from hypothesis import given
from hypothesis import strategies as st

from crank.domain.outcome import LAYERS, TOLD_BY, Denial
from crank.domain.rules.evidence import HOST_CHARS_MAX, HOSTS_MAX, merge, wanted_hosts

DENIAL = st.builds(
    Denial, st.sampled_from(LAYERS), st.sampled_from("abcdefgh"), st.integers(1, 1000), st.sampled_from(TOLD_BY)
)


def test_equal_denials_are_told_once() -> None:
    """Three refused sockets are one line with the count three, and another witness is another line."""
    told = [Denial("seccomp", "socket", 2), Denial("seccomp", "socket"), Denial("seccomp", "socket", 1, "kernel")]
    assert merge(told) == (Denial("seccomp", "socket", 3), Denial("seccomp", "socket", 1, "kernel"))


@given(st.lists(DENIAL, max_size=60), st.integers(0, 5))
def test_nothing_is_lost_but_words(denials: list[Denial], most: int) -> None:
    """However few are kept, each layer's count by each witness stays the true sum."""

    def sums(entries: object) -> dict[tuple[str, str], int]:
        totals: dict[tuple[str, str], int] = {}
        for entry in entries:  # type: ignore[attr-defined]
            key = entry.layer, entry.told_by
            totals[key] = totals.get(key, 0) + entry.count
        return totals

    merged = merge(denials, most=most)
    assert sums(merged) == sums(denials)
    assert len(merged) <= most + len(LAYERS) * len(TOLD_BY)


def test_hosts_are_found_cut_and_few() -> None:
    """Only what a job wanted to connect to counts; a job cannot make the list long."""
    denials = [Denial("network", f"connect to host{number}:443", 1, "job") for number in range(100)]
    denials += [Denial("mounts", "write /usr/x"), Denial("network", "connect to " + "x" * 900, 1, "job")]
    hosts = wanted_hosts(denials)
    assert hosts[:2] == ("host0:443", "host1:443")
    assert len(hosts) == HOSTS_MAX
    assert wanted_hosts(denials[-1:]) == ("x" * HOST_CHARS_MAX,)
    assert wanted_hosts([denials[0], denials[0]]) == ("host0:443",)
    assert wanted_hosts([Denial("network", "look up example.com:443", 1, "job")]) == ("example.com:443",)
    assert wanted_hosts([Denial("network", "socket"), Denial("mounts", "connect to x")]) == ()


def test_a_host_cannot_forge_a_line_of_the_log() -> None:
    """Controls, line feeds and text that runs backwards are shown as escapes."""
    hostile = Denial("network", "connect to a\r\n{}\x1b[2J\u202e.example:1", 1, "job")
    long = Denial("network", "connect to " + "\u202e" * 300, 1, "job")
    assert len(wanted_hosts([long])[0]) == HOST_CHARS_MAX
    assert wanted_hosts([hostile]) == ("a\\r\\n{}\\x1b[2J\\u202e.example:1",)
