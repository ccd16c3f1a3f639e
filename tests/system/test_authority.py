"""A node of an older version starts anew, changes its root while its worker works, and renews each identity."""

import datetime as dt
import json
import ssl
import urllib.request

import pytest

from tests.support.flat_authority import make_flat
from tests.support.node import Node, until

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("authority")]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Start a node that has the authority of an older version, and whose identities live half a minute."""
    home = tmp_path_factory.mktemp("authority") / "home"
    make_flat(home / "controller" / "authority", "crank.internal", dt.datetime.now(dt.UTC))
    started = Node(home, {"CRANK_LEAF_TTL_SEC": "30"})
    started.start()
    yield started
    started.stop()


def rotate(node, *words):
    """Run `crank identity rotate`; return its exit code and what it printed."""
    done = node.crank("identity", "rotate", *words, "--json")
    return done.returncode, json.loads(done.stdout or done.stderr)


def work(node):
    """Run a job and return what it printed."""
    return node.crank("run", "-", stdin="print(6 * 7)").stdout


def test_who_has_the_old_ca_pem_still_finds_the_node(node):
    """A copy of the old authority's certificate, and nothing else, proves the API; the published roots are two."""
    old = ssl.create_default_context(cafile=node.home / "controller" / "authority" / "ca.pem")
    with urllib.request.urlopen(f"{node.info()['api']}/healthz", context=old, timeout=20) as answer:
        assert answer.status == 200
    assert (node.home / "api-ca.pem").read_bytes().count(b"BEGIN CERTIFICATE") == 2


def test_the_root_changes_under_a_working_node(node):
    """Prepared, acknowledged by the worker, activated, retired: jobs run at each step, and the API stays proven."""
    first = json.loads(node.crank("identity", "show", "--json").stdout)
    assert [each["tier"] for each in first["certificates"]] == ["root", "authority", "issuing", "flat"]
    # From here on the root's key is elsewhere, as it should be; nothing below needs it.
    (key,) = (node.home / "controller" / "authority" / "offline").iterdir()
    assert first["root_keys"] == [str(key)]
    away = node.home.parent / "away"
    away.mkdir()
    # Under the running node; for a test the same disk does.
    moved = node.crank("identity", "root-key", "move", str(away), "--same-disk")
    assert (moved.returncode, moved.stdout.strip(), key.exists()) == (0, str(*away.iterdir()), False)
    code, prepared = rotate(node, "prepare")
    assert (code, prepared["phase"]) == (0, "prepared")
    code, activated = until(
        lambda: (done := rotate(node, "activate"))[0] == 0 and done, what="the worker to acknowledge the new root"
    )
    assert activated["signs"] == prepared["other"]
    assert "42" in work(node)
    code, refused = rotate(node, "retire")
    assert (code != 0, refused["error"]["code"]) == (True, "leaves_alive")
    until(
        lambda: not json.loads(node.crank("identity", "show", "--json").stdout)["unaware"],
        what="everybody to believe both roots",
    )
    # Renewed below the new root, by the worker itself and by the controller for its own.
    until(lambda: _issued_since(node, activated), what="both to hold a certificate of the new root")
    assert rotate(node, "retire", "--force")[1]["phase"] == "settled"
    assert "42" in work(node)
    # Settled on one root: the first one's key is of no more use.
    assert first["signs"] not in json.dumps(json.loads(node.crank("identity", "show", "--json").stdout)["certificates"])


def _issued_since(node, activated):
    begin = max(each["valid_from"] for each in activated["certificates"])
    found = json.loads(node.crank("identity", "list", "--json").stdout)["identities"]
    kinds = {each["kind"] for each in found if each["issued_at"] > begin}
    return {"controller", "worker"} <= kinds


def test_the_log_warns_of_short_lives(node):
    """Half a minute is for drills: the controller says so when it starts."""
    assert "leaf_ttl_short" in (node.home / "logs" / "controller.log").read_text()

