"""Selectors: one writing each, and nothing else is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crank.domain.workload import SelectorKind, is_plain_path, parse_selector
from crank.errors import InvalidRequest

GOOD = [
    "unix:uid:0",
    "unix:uid:4294967294",
    "unix:gid:100",
    "unix:path:/usr/bin/python3.11",
    "unix:path:/opt/a b/ü:x",
    "unix:sha256:" + "0a" * 32,
    "unix:cgroup:/",
    "unix:cgroup:/system.slice/nginx.service",
    "systemd:unit:nginx.service",
    "systemd:unit:user@1000.service",
    r"systemd:unit:dev-disk\x2d1.service",
]
BAD = [
    "", "unix", "unix:uid", "unix:uid:", "unix:uid:-1", "unix:uid:01", "unix:uid:+1", "unix:uid: 1", "unix:uid:1 ", "unix:uid:١",
    "unix:uid:4294967295", "unix:uid:99999999999", "unix:uid:root", "UNIX:uid:1", "unix:pid:1", "docker:label:a", "unix:path:",
    "unix:path:bin", "unix:path:/a/", "unix:path://a", "unix:path:/a/../b", "unix:path:/a/./b", "unix:path:/a\n", "unix:path:/a\0",
    "unix:path:/" + "a" * 5000, "unix:sha256:" + "0A" * 32, "unix:sha256:" + "0" * 63, "unix:cgroup:a", "systemd:unit:",
    "systemd:unit:nginx", "systemd:unit:a/b.service", "systemd:unit:a.socket", "systemd:unit:" + "a" * 300 + ".service",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_a_selector_reads_back_as_it_was_written(text: str) -> None:
    """What is accepted is written the same way again."""
    assert str(parse_selector(text)) == text


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_selector_is_refused(text: str) -> None:
    """Numbers have one writing, paths no detours, kinds are a closed set."""
    with pytest.raises(InvalidRequest) as caught:
        parse_selector(text)
    assert (caught.value.error_code, caught.value.field) == ("invalid_selector", "selectors")
    assert caught.value.fix


@given(st.text(max_size=60), st.sampled_from(list(SelectorKind)))
def test_any_text_is_a_selector_or_refused(text: str, kind: SelectorKind) -> None:
    """No text ends in anything but a selector that reads back equal, or the one fault."""
    try:
        found = parse_selector(f"{kind}:{text}")
    except InvalidRequest:
        return
    assert parse_selector(str(found)) == found


@given(st.text(max_size=40))
def test_a_plain_path_leads_where_it_says(path: str) -> None:
    """A path that counts as plain is absolute and has no detour."""
    if is_plain_path(path):
        assert path.startswith("/")
        assert path == "/" or not {"", ".", ".."} & set(path.split("/")[1:])
