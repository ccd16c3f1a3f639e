"""Steps of features/sessions.feature: a real node, asked over its own HTTPS API."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from pytest_bdd import given, parsers, scenarios, then, when

from tests.support.node import Node, until

scenarios("sessions.feature")

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("sessions-feature")]

FOREVER = "import time\nwhile True:\n    time.sleep(60)\n"


@dataclass
class Agent:
    """An agent with one session."""

    node: Node
    session_id: str
    job: dict[str, Any] = field(default_factory=dict)

    def run(self, code: str | None, *, session: bool = True, **fields: Any) -> dict[str, Any]:
        """Run a job to its end."""
        body = {"code": code, **({"session": self.session_id} if session else {}), **fields}
        answered = self.node.client().submit(body, Prefer="wait=40")
        assert answered.status_code == 200, answered.text
        self.job = dict(answered.json())
        return self.job

    def ended(self) -> dict[str, Any]:
        """Return how the session ended, waiting for it."""
        path = f"/v1/sessions/{self.session_id}"
        return dict(until(lambda: self.node.client().http.get(path).json()["end"], what="the session to end"))


def opened(node: Node, **fields: Any) -> Agent:
    """Open a session."""
    answered = node.client().http.post("/v1/sessions", json=fields)
    assert answered.status_code == 201, answered.text
    return Agent(node, answered.json()["session_id"])


@given("an open session", target_fixture="agent")
def _(node: Node) -> Agent:
    agent = opened(node)
    agent.run("before = 'kept'")
    return agent


@given("a session that may rest for one second", target_fixture="agent")
def _(node: Node) -> Agent:
    return opened(node, idle_sec=1)


@given("an open session with documents", target_fixture="agent")
def _(node: Node) -> Agent:
    return opened(node, env_profile="python-docs")


@when("a job sets a variable and leaves a file")
def _(agent: Agent) -> None:
    agent.run("x = 20\nopen('a.txt', 'w').write('22')")


@then("the next job finds both")
def _(agent: Agent) -> None:
    assert agent.run("x + int(open('a.txt').read())")["result"] == 42


@then("a job without the session finds neither")
def _(agent: Agent) -> None:
    assert agent.run("import os\n['x' in globals(), os.path.exists('a.txt')]", session=False)["result"] == [
        False,
        False,
    ]


@when("a job that would run for ever is interrupted")
def _(agent: Agent) -> None:
    api = agent.node.client()
    job_id = api.submit({"code": FOREVER, "session": agent.session_id}).json()["job_id"]
    until(lambda: api.job(job_id)["status"] == "running", what="the job to run")
    assert api.http.post(f"/v1/jobs/{job_id}/interrupt").status_code == 200
    agent.job = api.ended(job_id)


@then("it ends as an exception of its own code")
def _(agent: Agent) -> None:
    assert (agent.job["end"]["reason"], agent.job["end"]["message"][:17]) == ("raised", "KeyboardInterrupt")


@then("the next job finds what was there before")
def _(agent: Agent) -> None:
    assert agent.run("before")["result"] == "kept"


@when("a job passes its deadline")
def _(agent: Agent) -> None:
    assert agent.run("while True:\n    pass", constraints={"timeout_sec": 0.5})["status"] == "timed_out"


@then(parsers.parse('the session ends as "{reason}" and names that job'))
def _(agent: Agent, reason: str) -> None:
    end = agent.ended()
    assert (end["reason"], end["job_id"], end["job_end"]["reason"]) == (reason, agent.job["job_id"], "timeout")


@then(parsers.parse('the next job is refused with "{code}"'))
def _(agent: Agent, code: str) -> None:
    answered = agent.node.client().submit({"code": "1", "session": agent.session_id})
    assert (answered.status_code, answered.json()["code"]) == (409, code)


@when("nobody uses it")
def _() -> None:
    """Time passes by itself."""


@then(parsers.parse('the session ends as "{reason}"'))
def _(agent: Agent, reason: str) -> None:
    assert agent.ended()["reason"] == reason


@when("pandoc converts a file of the session")
def _(agent: Agent) -> None:
    agent.run("open('a.md', 'w').write('# Title')")
    done = agent.run(None, program=["pandoc", "-o", "/scratch/a.html", "/scratch/a.md"])
    assert done["status"] == "succeeded", done["stderr"]


@then("the next job reads what pandoc wrote")
def _(agent: Agent) -> None:
    assert "Title</h1>" in agent.run("open('a.html').read()")["result"]


@then("a program that the profile does not list is refused")
def _(agent: Agent) -> None:
    assert agent.run(None, program=["sh", "-c", "id"])["end"]["code"] == "program_not_listed"
