"""Roles from files: read strictly, every mistake told at once, beside those that come with Crank."""

import dataclasses

import pytest

from crank.bootstrap.roles import read_ceiling, read_roles
from crank.config import load
from crank.domain.grant import Right
from crank.domain.rules.role import OPEN
from crank.domain.trust import Attestation
from crank.errors import ConfigurationError

GOOD = """
summary = "Converts papers."
lifetime_sec = 300
depth = 1
who = ["claude", "owner"]

[[rights]]
identifier = "document.*"
mounts = ["papers"]
calls_max = 10

[[rights]]
identifier = "python.run.core"
constraints = [{ required = ["n"] }]
"""


@pytest.fixture
def settings(tmp_path):
    """Give settings whose home is empty but for the roles."""
    (tmp_path / "roles").mkdir()
    return dataclasses.replace(load({"home": tmp_path}), home=tmp_path)


def test_a_file_is_a_role_beside_the_shipped_ones(settings):
    """What is left out is nothing: no bearer, no passing on."""
    (settings.home / "roles" / "papers.toml").write_text(GOOD)
    roles = read_roles(settings)
    assert set(roles) == {"default", "operator", "papers"}
    papers = roles["papers"]
    assert (papers.lifetime_sec, papers.bearer_sec, papers.depth, papers.who) == (300, 0, 1, ("claude", "owner"))
    assert papers.rights == (
        Right("document.*", mounts=("papers",), calls_max=10),
        Right("python.run.core", constraints=({"required": ["n"]},)),
    )


def test_workloads_act_by_the_authority_of_a_key(settings):
    """Identities come with a key; the one without the other, and a prefix of a whole world, are mistakes."""
    path = settings.home / "roles" / "agents.toml"
    rights = '[[rights]]\nidentifier = "python.*"\n'
    path.write_text('summary = "x"\nkey = "claude"\nidentities = ["spiffe://example.org/agent/*"]\n' + rights)
    assert read_roles(settings)["agents"].identities == ("spiffe://example.org/agent/*",)
    for wrong in ('identities = ["spiffe://example.org/a"]', 'key = "claude"\nwho = ["*"]',
                  'key = "claude"\nidentities = ["spiffe://*"]', 'key = "claude"\nidentities = ["spiffe://example.org/*"]'):  # fmt: skip
        path.write_text(f'summary = "x"\n{wrong}\n{rights}')
        with pytest.raises(ConfigurationError):
            read_roles(settings)


def test_a_role_may_ask_for_a_level_of_attestation(settings):
    """One of three words, none where it is left out; anything else is a mistake, and never no level."""
    path = settings.home / "roles" / "papers.toml"
    path.write_text(GOOD)
    assert read_roles(settings)["papers"].attestation is None
    path.write_text('attestation = "join"\n' + GOOD)
    assert read_roles(settings)["papers"].attestation is Attestation.JOIN
    for wrong in ('"tpm"', '""', "2", "false", "[]"):
        path.write_text(f"attestation = {wrong}\n{GOOD}")
        with pytest.raises(ConfigurationError) as caught:
            read_roles(settings)
        assert [problem.field for problem in caught.value.problems] == ["papers.attestation"]


def test_a_file_takes_the_place_of_a_shipped_role(settings):
    """The operator narrows what everybody gets."""
    (settings.home / "roles" / "default.toml").write_text(GOOD)
    assert read_roles(settings)["default"].summary == "Converts papers."


def test_every_mistake_of_every_file_is_told_at_once(settings):
    """One start tells all that is to be mended."""
    folder = settings.home / "roles"
    (folder / "a.toml").write_text(
        'summary = ""\nlifetime_sec = 9999\ndepth = true\nwho = []\nadmin = true\n[[rights]]\nidentifier = "Bad"\n'
    )
    (folder / "b.toml").write_text("not toml")
    (folder / "C.toml").write_text(GOOD)
    (folder / "d.toml").write_bytes(b"\xff")
    (folder / "e.toml").write_text('summary = "x"\nwho = ["*"]\nrights = "all"\n')
    with pytest.raises(ConfigurationError) as caught:
        read_roles(settings)
    places = {problem.field for problem in caught.value.problems}
    assert {"a.summary", "a.lifetime_sec", "a.depth", "a.who", "a.admin", "a.rights[0]"} <= places
    assert {"b.toml", "C.toml", "d.toml", "e.rights"} <= places


def test_the_nodes_ceiling_is_read_from_its_file(settings):
    """Without one all is open; what a file leaves out stays so, and every mistake is told at once."""
    assert read_ceiling(settings) == OPEN
    path = settings.home / "policy.toml"
    path.write_text('lifetime_sec = 60\n')
    assert read_ceiling(settings) == dataclasses.replace(OPEN, lifetime_sec=60)
    path.write_text('depth = 0\n[[rights]]\nidentifier = "document.*"\n')
    assert read_ceiling(settings) == dataclasses.replace(OPEN, depth=0, rights=(Right("document.*"),))
    path.write_text('lifetime_sec = 0\ndepth = 99\nwho = ["*"]\n[[rights]]\nidentifier = "Bad"\n')
    with pytest.raises(ConfigurationError) as caught:
        read_ceiling(settings)
    places = {problem.field for problem in caught.value.problems}
    assert places == {"policy.lifetime_sec", "policy.depth", "policy.who", "policy.rights[0]"}
    path.write_text("not toml")
    with pytest.raises(ConfigurationError):
        read_ceiling(settings)
