"""What a node tells agents of itself is true: every example of its page runs on that node, and nobody else reads it."""

import base64
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.instructions import examples, run_examples
from tests.support.node import REPO, Node, running_node

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("instructions"), pytest.mark.U1]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give one running node that shares a folder."""
    folder = tmp_path_factory.mktemp("instructions")
    shared = folder / "shared"
    shared.mkdir()
    (shared / "a.txt").write_text("hello")
    with running_node(folder / "home") as node:
        assert node.crank("mount", "add", "docs", str(shared)).returncode == 0
        yield node


def test_every_example_of_the_page_runs(node: Node) -> None:
    """An agent that copies any example from its node's page gets an answer, and the one that is promised."""
    page = node.client().http.get("/llms.txt").text
    answers = run_examples(page, node.client())
    assert len(answers) >= 8
    results = [answer.get("result") for answer in answers]
    assert {"largest": 3} in results
    assert {"files": 1, "bytes": 5} in results
    assert 42 in results


def test_the_default_page_runs_too(node: Node) -> None:
    """docs/agents.md shows a node as it comes, and its examples run on one."""
    page = (REPO / "docs" / "agents.md").read_text("utf-8")
    assert len(examples(page)) >= 7
    run_examples(page, node.client())


def test_the_page_says_what_this_node_has(node: Node) -> None:
    """Packages with their versions, programs, limits, the shared folder's name: and no path of the machine."""
    page = node.client().http.get("/llms.txt").text
    for promised in ("### python-core", "pydantic 2.", "`pandoc`", "300 s of time", "512 MiB of memory", "`docs`"):
        assert promised in page
    assert str(node.home.parent) not in page


@pytest.mark.parametrize("path", ["/llms.txt", "/.well-known/agent-card.json"])
def test_nobody_learns_anything_without_the_credential(node: Node, path: str) -> None:
    """The public face names no mount, capability or profile; a wrong credential gets no face at all."""
    info = node.info()
    secret = Path(info["token_file"]).read_text().strip()
    verified = ssl.create_default_context(cafile=info["ca_file"])
    with httpx2.Client(base_url=info["api"], verify=verified) as stranger:
        public = stranger.get(path)
        assert public.status_code == 200
        for hidden in ("docs`", "python-core", "python.run", "pandoc", str(node.home), secret):
            assert hidden not in public.text
        wrong = stranger.get(path, headers={"Authorization": "Bearer wrong"})
        assert (wrong.status_code, wrong.json()["code"]) == (401, "not_authenticated")
    assert node.client().http.get(path).text != public.text


def test_the_card_has_the_shape_of_a2a_1_0(node: Node) -> None:
    """Required fields are there, interfaces are absolute HTTPS addresses, each skill has an id of its own."""
    card = node.client().http.get("/.well-known/agent-card.json").json()
    required = {"name", "description", "version", "supportedInterfaces", "capabilities", "defaultInputModes",
                "defaultOutputModes", "skills"}  # fmt: skip
    assert required <= set(card)
    for interface in card["supportedInterfaces"]:
        assert set(interface) == {"url", "protocolBinding", "protocolVersion"}
        assert interface["url"] == f"{node.info()['api']}/v1"
    skills = [skill["id"] for skill in card["skills"]]
    assert "python.run.core" in skills
    assert len(skills) == len(set(skills))
    assert all({"id", "name", "description", "tags"} <= set(skill) and skill["tags"] for skill in card["skills"])


def test_chatgpts_way_is_whole_on_a_real_node(node: Node) -> None:
    """Describe, run over a shared folder, bring the file back: three calls, each short and in time."""
    http = node.client().http
    assert "`docs`" in http.get("/v1/actions/node").json()["instructions"]
    code = "text = open('/in/docs/a.txt').read()\nopen('/out/up.txt', 'w').write(text.upper())\nresult = len(text)"
    told = http.post("/v1/actions/run", json={"code": code, "folders": ["docs"]}).json()
    assert (told["finished"], told["result"], [each["path"] for each in told["files"]]) == (True, 5, ["up.txt"])
    (sent,) = http.get(f"/v1/actions/jobs/{told['job_id']}/files").json()["openaiFileResponse"]
    assert (sent["name"], base64.b64decode(sent["content"])) == ("up.txt", b"HELLO")
    slow = http.post("/v1/actions/run", json={"code": "import time; time.sleep(600)", "wait_sec": 1}).json()
    assert slow["finished"] is False
    assert http.post(f"/v1/actions/jobs/{slow['job_id']}/cancel").status_code == 200
    ended = http.get(f"/v1/actions/jobs/{slow['job_id']}", params={"wait_sec": 30}).json()
    assert (ended["finished"], ended["reason"]) == (True, "cancelled")
