"""What denials add up to: told once each with a count, bounded, and which hosts a job wanted to reach."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from crank.domain.outcome import Denial

# How the sandbox words that a job wanted to reach a host: by its name, then by its address.
_WANTED = ("look up ", "connect to ")
DENIALS_MAX = 50
HOST_CHARS_MAX = 300
HOSTS_MAX = 20


def merge(denials: Iterable[Denial], *, most: int = DENIALS_MAX) -> tuple[Denial, ...]:
    """Return every different denial once, with its count summed, in the order in which each came first.

    Beyond `most` different ones the rest is summed into one denial of each layer, so that nothing is lost
    but words: a job that tries a million names cannot make its outcome large.
    """
    found: dict[tuple[str, str, str], Denial] = {}
    for denial in denials:
        key = denial.layer, denial.action, denial.told_by
        if key not in found and len(found) >= most:
            key = denial.layer, "more of other kinds", denial.told_by
        before = found.get(key)
        if before is None:
            found[key] = replace(denial, action=key[1])
        else:
            found[key] = replace(before, count=before.count + denial.count)
    return tuple(found.values())


def wanted_hosts(denials: Sequence[Denial]) -> tuple[str, ...]:
    """Return the hosts that a job wanted, each once, `example.com:443`; few, cut, and nothing but plain ASCII."""
    hosts = [
        denial.action.removeprefix(words)
        for denial in denials
        for words in _WANTED
        if denial.layer == "network" and denial.action.startswith(words)
    ]
    return tuple(dict.fromkeys(_plain(host)[:HOST_CHARS_MAX] for host in hosts))[:HOSTS_MAX]


def _plain(text: str) -> str:
    """Escape what could act on a terminal or a log: everything that is not visible ASCII."""
    return text.encode("unicode_escape").decode("ascii")
