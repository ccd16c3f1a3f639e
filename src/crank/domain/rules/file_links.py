"""Which links to files a caller may hand over: a closed list of hosts, https, and nothing that is a trick."""

import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from crank.errors import InvalidRequest, NotAllowed, TooLarge

LINKS_MAX = 10
LINK_CHARS_MAX = 4_096
LINKED_FILE_BYTES_MAX = 20 * 1024 * 1024
LINKED_FILES_BYTES_MAX = 40 * 1024 * 1024
NAME_CHARS_MAX = 100
# Scheme, a name of lower-case letters, an optional port that may only be the usual one, a path of visible ASCII.
_LINK = re.compile(r"https://(?P<host>[a-z0-9.-]{1,253})(?::443)?(?P<target>[/?][!-~]*)?")


@dataclass(frozen=True, slots=True)
class FileLink:
    """One file to fetch, and the name under which the job finds it in /scratch."""

    path: str
    url: str


def parse_file_links(entries: Sequence[Any], hosts: Collection[str]) -> tuple[FileLink, ...]:
    """Read what a caller handed over: objects with `name` and `download_link`. Nothing is fetched.

    hosts  that the operator allows, by full name
    Raises NotAllowed (`file_links_off`, `file_link_refused`), InvalidRequest, TooLarge.
    """
    if not entries:
        return ()
    if not hosts:
        raise NotAllowed(
            "This node fetches no files for its callers.",
            code="file_links_off",
            field="openaiFileIdRefs",
            fix="Put the file's text into the code or the args; or the node's owner allows the host: "
            "CRANK_ACTIONS_FILE_HOSTS=files.oaiusercontent.com.",
        )
    if len(entries) > LINKS_MAX:
        raise TooLarge(f"At most {LINKS_MAX} files at once.", code="too_many_files", field="openaiFileIdRefs")
    found: dict[str, FileLink] = {}
    for position, entry in enumerate(entries):
        link = _link(entry, hosts, f"openaiFileIdRefs.{position}", position, {name.casefold() for name in found})
        found[link.path] = link
    return tuple(found.values())


def host_and_target(url: str) -> tuple[str, str]:
    """Return the host of an accepted link, and what to ask it for."""
    match = _LINK.fullmatch(url)
    assert match is not None, "only links that were accepted come here"
    target = match["target"] or "/"
    return match["host"], target if target.startswith("/") else f"/{target}"


def _link(entry: Any, hosts: Collection[str], field: str, position: int, taken: Collection[str]) -> FileLink:
    url = entry.get("download_link") if isinstance(entry, dict) else None
    name = entry.get("name") if isinstance(entry, dict) else None
    if not isinstance(url, str) or not isinstance(name, str | None):
        raise InvalidRequest(
            "Each file is an object with name and download_link, as ChatGPT sends it.",
            code="invalid_file_link",
            field=field,
        )
    match = _LINK.fullmatch(url) if len(url) <= LINK_CHARS_MAX else None
    if match is None or match["host"] not in hosts:
        raise NotAllowed(
            "This link is not https to a host that the node's owner allows.",
            code="file_link_refused",
            field=f"{field}.download_link",
            fix="Hand over a file of the conversation; the owner lists hosts in CRANK_ACTIONS_FILE_HOSTS.",
        )
    return FileLink(_name(name or "", position, taken), url)


def _name(name: str, position: int, taken: Collection[str]) -> str:
    """Make a plain file name of what a stranger calls it: its last part, harmless characters, nothing twice."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name[: 4 * NAME_CHARS_MAX]))[-1]
    kept = "".join(char if char.isalnum() or char in "._- " else "_" for char in last).strip(" .")
    plain = unicodedata.normalize("NFC", kept)[-NAME_CHARS_MAX // 2 :].strip(" .") or f"file-{position + 1}"
    return f"{position + 1}-{plain}" if plain.casefold() in taken else plain
