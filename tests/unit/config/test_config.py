"""Where settings come from, and that every mistake is told at once."""

from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest

from crank.config import child_environment, host_environment, host_folders, load
from crank.domain.isolation import Tier
from crank.domain.trust import Attestation
from crank.errors import ConfigurationError


def test_defaults_need_nothing(tmp_path: Path) -> None:
    """A node runs with no configuration at all, on loopback only."""
    settings = load(environment={"CRANK_HOME": str(tmp_path)})
    assert settings.bind == "127.0.0.1"
    assert (settings.api_port, settings.workers_port) == (7443, 7444)
    assert settings.profiles_builds == tmp_path / "profiles"


def test_home_defaults_to_the_data_folder() -> None:
    """Without CRANK_HOME the state lies in the user's data folder."""
    assert load(environment={}).home.name == "crank"


def test_each_layer_is_stronger_than_the_one_before(tmp_path: Path) -> None:
    """Defaults give way to the file, the file to the environment, the environment to flags."""
    (tmp_path / "crank.toml").write_text("api_port = 1001\nworkers_port = 1002\nworker_slots = 3\n")
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_API_PORT": "2001", "CRANK_WORKERS_PORT": "2002"}
    settings = load({"api_port": 3001, "workers_port": None}, environment=seen)
    assert (settings.api_port, settings.workers_port, settings.worker_slots) == (3001, 2002, 3)


def test_every_mistake_is_told_at_once(tmp_path: Path) -> None:
    """Wrong values of file, environment and flags, and unknown names, come in one fault, each with its place."""
    (tmp_path / "crank.toml").write_text('api_prt = 1\nworker_slots = "many"\nprofiles_builds = "relative"\n')
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_WORKERS_PORT": "70000", "CRANK_BINDD": "::1"}
    with pytest.raises(ConfigurationError) as caught:
        load({"queued_max": 0}, environment=seen)
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {
        "crank.toml: api_prt",
        "crank.toml: worker_slots",
        "crank.toml: profiles_builds",
        "CRANK_WORKERS_PORT",
        "CRANK_BINDD",
        "--queued-max",
    }
    fixes = {problem.field: problem.fix for problem in caught.value.problems}
    assert fixes["crank.toml: api_prt"] == "Did you mean api_port?"
    assert fixes["CRANK_BINDD"] == "Did you mean CRANK_BIND?"


def test_every_wrong_ceiling_is_told_at_once(tmp_path: Path) -> None:
    """Ceilings out of range, of another type, of no limit, and a tier that does not exist: one fault names them all."""
    (tmp_path / "crank.toml").write_text(
        'limit_memory_bytes = 1\nlimit_processes = 2.5\nlimit_memory_byte = 5\nsandbox_tier = "none"\n'
    )
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_LIMIT_WALL_SEC": "0", "CRANK_LIMIT_OPEN_FILE": "100"}
    with pytest.raises(ConfigurationError) as caught:
        load(environment={**seen, "CRANK_LIMIT_CPU_SEC": "inf", "CRANK_LIMIT_IDLE_SEC": "nan"})
    problems = {problem.field: problem for problem in caught.value.problems}
    assert set(problems) == {
        "crank.toml: limit_memory_bytes",
        "crank.toml: limit_processes",
        "crank.toml: limit_memory_byte",
        "crank.toml: sandbox_tier",
        "CRANK_LIMIT_WALL_SEC",
        "CRANK_LIMIT_OPEN_FILE",
        "CRANK_LIMIT_CPU_SEC",
        "CRANK_LIMIT_IDLE_SEC",
    }
    assert "never runs without walls" in problems["crank.toml: sandbox_tier"].cause
    assert problems["CRANK_LIMIT_OPEN_FILE"].fix == "Did you mean CRANK_LIMIT_OPEN_FILES?"


def test_the_strongest_tier_is_the_default(tmp_path: Path) -> None:
    """Nothing weaker than namespaces is allowed unless the operator says so."""
    assert load(environment={"CRANK_HOME": str(tmp_path)}).sandbox_tier is Tier.NAMESPACES
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_SANDBOX_TIER": "landlock"}
    assert load(environment=seen).sandbox_tier is Tier.LANDLOCK


def test_a_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    """A file that is not TOML is a mistake with its line, not a traceback."""
    (tmp_path / "crank.toml").write_text("api_port = \n")
    with pytest.raises(ConfigurationError) as caught:
        load(environment={"CRANK_HOME": str(tmp_path)})
    assert "line 1" in caught.value.problems[0].cause


def test_names_of_other_programs_are_left_alone(tmp_path: Path) -> None:
    """A CRANK_ variable that resembles no setting belongs to somebody else."""
    load(environment={"CRANK_HOME": str(tmp_path), "CRANK_TEST_BUILDS": "x", "CRANK_SOAK_KILLS": "1"})


def test_an_empty_variable_says_nothing(tmp_path: Path) -> None:
    """`CRANK_API_PORT=` in a shell means that it was not set."""
    assert load(environment={"CRANK_HOME": str(tmp_path), "CRANK_API_PORT": ""}).api_port == 7443


def test_two_listeners_cannot_share_a_port(tmp_path: Path) -> None:
    """The same port twice is refused; 0 twice is two free ports."""
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_API_PORT": "5000", "CRANK_WORKERS_PORT": "5000"}
    with pytest.raises(ConfigurationError):
        load(environment=seen)
    load(environment={"CRANK_HOME": str(tmp_path), "CRANK_API_PORT": "0", "CRANK_WORKERS_PORT": "0"})


def test_a_child_reads_back_the_same_settings(tmp_path: Path) -> None:
    """What a child process finds in its environment gives equal settings, flags included."""
    said = {"CRANK_LIMIT_WALL_SEC": "12.5", "CRANK_LIMIT_PROCESSES": "7", "CRANK_SANDBOX_TIER": "landlock", "CRANK_ATTESTATION_MIN": "join"}
    settings = load({"api_port": 0, "drain_sec": 1.5}, environment={"CRANK_HOME": str(tmp_path), **said})
    again = load(environment=child_environment(settings))
    names = (
        "home", "api_port", "workers_port", "drain_sec", "profiles_builds", "worker_slots", "retention_sec",
        "sandbox_tier", "ceilings", "attestation_min",
    )  # fmt: skip
    assert settings.ceilings == {"wall_sec": 12.5, "processes": 7}
    assert settings.attestation_min is Attestation.JOIN
    assert [getattr(again, name) for name in names] == [getattr(settings, name) for name in names]


def test_what_is_public_survives_the_way_to_a_child(tmp_path: Path) -> None:
    """The public address, the certificate and the allowed hosts reach the node's processes as they were said."""
    (tmp_path / "crank.toml").write_text('actions_file_hosts = ["files.example.org", "b.example.org"]\n')
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_PUBLIC_URL": "https://crank.example.org/", "CRANK_TLS_CERT": "/c", "CRANK_TLS_KEY": "/k"}
    settings = load(environment=seen)
    assert settings.public_url == "https://crank.example.org"
    assert settings.actions_file_hosts == ("files.example.org", "b.example.org")
    assert load(environment=child_environment(settings)) == replace(settings, build_environment=ANY)
    assert load(environment=child_environment(load(environment={"CRANK_HOME": str(tmp_path)}))).tls_cert is None


def test_what_is_public_is_checked_with_the_rest(tmp_path: Path) -> None:
    """A certificate without its key, an address with a path or without https, hosts that are addresses: all are told."""
    seen = {"CRANK_HOME": str(tmp_path), "CRANK_TLS_CERT": "/c", "CRANK_ACTIONS_FILE_HOSTS": "ok.example.org,127.0.0.1"}
    for url in ("http://crank.example.org", "https://crank.example.org/x", "https://u@crank.example.org", "crank.example.org"):
        with pytest.raises(ConfigurationError) as caught:
            load(environment={**seen, "CRANK_PUBLIC_URL": url})
        fields = {problem.field for problem in caught.value.problems}
        assert fields == {"tls_key", "CRANK_ACTIONS_FILE_HOSTS", "CRANK_PUBLIC_URL"}


@pytest.mark.parametrize(
    ("platform", "seen", "home", "config"),
    [
        ("linux", {"HOME": "/home/<me>"}, "/home/<me>", "/home/<me>/.config"),
        ("linux", {"HOME": "/home/<me>", "XDG_CONFIG_HOME": "/cfg"}, "/home/<me>", "/cfg"),
        ("linux", {"HOME": "/home/<me>", "XDG_CONFIG_HOME": "relative"}, "/home/<me>", "/home/<me>/.config"),
        ("darwin", {"HOME": "/Users/me", "XDG_CONFIG_HOME": "/cfg"}, "/Users/me", "/Users/me/Library/Application Support"),
        ("win32", {"USERPROFILE": "/C/me", "APPDATA": "/C/roaming"}, "/C/me", "/C/roaming"),
        ("win32", {"USERPROFILE": "/C/me"}, "/C/me", "/C/me/AppData/Roaming"),
    ],
)  # fmt: skip
def test_other_programs_settings_are_found_on_each_system(platform: str, seen: dict[str, str], home: str, config: str) -> None:
    """Each system has a place of its own for what programs remember."""
    assert host_folders(platform=platform, environment=seen) == (Path(home), Path(config))


def test_a_hosts_program_sees_none_of_our_settings() -> None:
    """What a shell says to Crank does not reach the programs that a host starts; only what its file says does."""
    seen = {"PATH": "/bin", "HOME": "/h", "CRANK_API_PORT": "1", "SECRET": "x", "XDG_DATA_HOME": "/d"}
    assert host_environment({"CRANK_HOME": "/c"}, environment=seen) == {
        "PATH": "/bin", "HOME": "/h", "XDG_DATA_HOME": "/d", "CRANK_HOME": "/c",
    }  # fmt: skip


@pytest.mark.parametrize("seconds", ["29", "3601", "soon"])
def test_a_life_of_identities_is_bounded(tmp_path, seconds):
    """Half a minute for drills to an hour; nothing else."""
    with pytest.raises(ConfigurationError) as caught:
        load({"home": str(tmp_path)}, environment={"CRANK_LEAF_TTL_SEC": seconds})
    assert [problem.field for problem in caught.value.problems] == ["CRANK_LEAF_TTL_SEC"]
    assert load({"home": str(tmp_path)}, environment={"CRANK_LEAF_TTL_SEC": "30"}).leaf_ttl_sec == 30


@pytest.mark.parametrize("level", ["JOIN", "2", "tpm"])
def test_a_level_of_attestation_is_one_of_three_words(tmp_path, level):
    """A word that is not understood is told; it never means no level."""
    with pytest.raises(ConfigurationError) as caught:
        load({"home": str(tmp_path)}, environment={"CRANK_ATTESTATION_MIN": level})
    assert [problem.field for problem in caught.value.problems] == ["CRANK_ATTESTATION_MIN"]


def test_an_hsm_is_named_in_full_or_not_at_all(tmp_path):
    """Module, token and the file of the PIN belong together; each that is missing is named."""
    with pytest.raises(ConfigurationError) as caught:
        load({"home": str(tmp_path)}, environment={"CRANK_HSM_TOKEN": "crank"})
    assert {problem.field for problem in caught.value.problems} == {"hsm_module", "hsm_pin_file"}
    named = {"CRANK_HSM_MODULE": "/m.so", "CRANK_HSM_TOKEN": "crank", "CRANK_HSM_PIN_FILE": "/pin"}
    settings = load({"home": str(tmp_path)}, environment=named)
    assert child_environment(settings)["CRANK_HSM_TOKEN"] == "crank"
