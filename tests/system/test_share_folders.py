"""Folders of a user, keys for agents, and what a job left written back: a real node, the real command line."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crank import Client
from crank.errors import NotAllowed, NotAuthenticated, NotFound
from tests.support.node import Node, running_node, until

EDIT = """
from pathlib import Path
import os
for path in Path('/in/docs').glob('*.md'):
    (Path('/out') / path.name).write_text(path.read_text().replace('draft', 'final'))
Path('/out/sub').mkdir()
Path('/out/sub/new.txt').write_text('new\\n')
Path('/out/tool.sh').write_text('#!/bin/sh\\n')
os.chmod('/out/tool.sh', 0o755)
Path('/out/picture.bin').write_bytes(bytes(range(256)))
"""
EVIL = """
import os
for name in ('.bashrc', 'a\\x1b[2Jb', 'x\\u202ey', 'twin', 'TWIN', ' space', 'back\\\\slash'):
    open('/out/' + name, 'w').write('evil')
os.makedirs('/out/.git')
open('/out/.git/config', 'w').write('[core] fsmonitor = evil')
open('/out/good.txt', 'w').write('\\x1b]0;title\\x07\\rgood\\u202e\\n')
open('/out/huge.txt', 'w').write('line\\n' * 500_000)
os.symlink('/etc/passwd', '/out/link')
"""

pytestmark = [pytest.mark.system, pytest.mark.timeout(300), pytest.mark.xdist_group("share")]


@pytest.fixture(scope="module")
def node(tmp_path_factory) -> Iterator[Node]:
    """Give one node to all tests of this module."""
    with running_node(tmp_path_factory.mktemp("share") / "home") as running:
        yield running


@pytest.fixture
def docs(node: Node, tmp_path: Path) -> Iterator[Path]:
    """Give a folder of the user that is mounted as docs."""
    folder = tmp_path / "very-private-place" / "Documents"
    folder.mkdir(parents=True)
    for above in (tmp_path.parent, tmp_path, folder.parent, folder):
        above.chmod(0o755)
    (folder / "a.md").write_text("draft first\nsecond\n")
    (folder / "b.md").write_text("fine\n")
    assert node.crank("mount", "add", "docs", str(folder)).returncode == 0
    yield folder
    node.crank("mount", "remove", "docs")


def agent(node: Node, secret: str, folder: Path) -> Client:
    """Return a client that has nothing but a key."""
    token = folder / "agent.token"
    token.write_text(secret)
    info = node.info()
    return Client(api=info["api"], ca_file=info["ca_file"], token_file=str(token))


def test_an_agent_sees_what_its_key_allows_and_no_path(node: Node, docs: Path, tmp_path: Path) -> None:
    """By name, read-only, once it is allowed; nothing in the sandbox or in an answer tells where the folder lies."""
    minted = node.crank("key", "mint", "reader", "--expires", "2h")
    assert minted.returncode == 0, minted.stderr
    code = (
        "import os\ntold = [open(f'/proc/self/{name}').read() for name in ('mountinfo', 'mounts', 'mountstats')]\n"
        "told.append(os.readlink(f\"/proc/self/fd/{os.open('/in/docs', os.O_RDONLY)}\"))\n"
        "try:\n    open('/in/docs/b', 'w')\nexcept OSError as fault:\n    told.append(repr(fault))\n"
        "print(open('/in/docs/a.md').read(), *told)\n"
    )
    with agent(node, minted.stdout.strip(), tmp_path) as client:
        with pytest.raises(NotAllowed) as caught:
            client.run(code, mounts=["docs"])
        assert caught.value.error_code == "mount_not_allowed"
        assert node.crank("mount", "allow", "docs", "reader").returncode == 0
        listed = node.crank("mount", "list", "--json")
        assert json.loads(listed.stdout)["mounts"][0]["keys"] == ["reader"]
        job = client.run(code, mounts=["docs"])
        assert job.status == "succeeded", job.stderr
        assert "draft first" in job.stdout
        assert "Read-only" in job.stdout
        assert "very-private" not in json.dumps(job.document) + json.dumps(client.get(job.job_id).document)
        with pytest.raises(NotAllowed) as caught:
            client.keys.mint("more", kind="owner")
        assert caught.value.error_code == "owner_only"
        assert node.crank("mount", "deny", "docs", "reader").returncode == 0
        with pytest.raises(NotAllowed):
            client.run(code, mounts=["docs"])
        assert node.crank("key", "revoke", "reader").returncode == 0
        with pytest.raises(NotAuthenticated):
            client.get(job.job_id)
    assert "very-private" not in listed.stdout


def test_a_folder_that_is_gone_is_told_without_its_path(node: Node, tmp_path: Path) -> None:
    """A job whose mount was moved away fails with a reason that names the mount alone."""
    folder = tmp_path / "very-private-place"
    folder.mkdir()
    assert node.crank("mount", "add", "gone", str(folder)).returncode == 0
    folder.rename(tmp_path / "elsewhere")
    done = node.crank("run", "-", "--json", "--mount", "gone", stdin="1")
    found = json.loads(done.stdout)
    assert found["status"] == "failed"
    assert "gone" in found["end"]["message"]
    assert "very-private" not in done.stdout + done.stderr
    assert node.crank("mount", "remove", "gone").returncode == 0


def test_two_agents_do_not_see_each_other(node: Node, tmp_path: Path) -> None:
    """Jobs, artifacts and sessions of one key do not exist for the other, on a real node."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, two = [
        agent(node, node.crank("key", "mint", name).stdout.strip(), tmp_path / name) for name in ("one", "two")
    ]
    with one, two:
        session = one.session()
        session.open()
        session.run("x = 1")
        job = one.run("open('/out/a', 'w').write('mine')")
        for look in (two.get, two.cancel, two.artifacts, two.interrupt):
            with pytest.raises(NotFound):
                look(job.job_id)
        with pytest.raises(NotFound):
            two.run("print(x)", session=session.session_id)
        assert (two.list().jobs, two.sessions()) == ((), ())
        assert [state.session_id for state in one.sessions()] == [session.session_id]
        # A revocation ends what is under way.
        node.crank("key", "revoke", "one")
        with pytest.raises(NotAuthenticated):
            session.run("x")
    owners = json.loads(node.crank("session", "list", "--json").stdout)["sessions"]
    assert [each["state"] for each in owners if each["session_id"] == session.session_id] == ["ended"]
    node.crank("key", "revoke", "two")


def run_job(node: Node, code: str, *mounts: str) -> str:
    """Run a script to its end and return its job's id."""
    asked = [part for mount in mounts for part in ("--mount", mount)]
    done = node.crank("run", "-", "--json", *asked, stdin=code)
    assert done.returncode == 0, done.stdout + done.stderr
    job_id: str = json.loads(done.stdout)["job_id"]
    return job_id


def test_a_result_is_shown_then_written_where_it_belongs(node: Node, docs: Path) -> None:
    """A dry run changes nothing; --yes writes, keeps the original, makes nothing runnable; again is unchanged."""
    job_id = run_job(node, EDIT, "docs")
    shown = node.crank("apply", job_id, "--dry-run")
    assert shown.returncode == 0, shown.stderr
    assert "    -draft first\n    +final first\n" in shown.stdout
    assert "(not text; 256 B " in shown.stdout
    assert shown.stdout.splitlines()[-1].startswith("3 new, 1 changed, 1 unchanged in ")
    assert (docs / "a.md").read_text() == "draft first\nsecond\n"
    assert node.crank("apply", job_id).stdout == shown.stdout
    assert not (docs / "sub").exists()
    only = node.crank("apply", job_id, "--only", "*.md", "--only", "tool*", "--yes", "--json")
    found = json.loads(only.stdout)
    assert (only.returncode, found["written"]) == (0, ["a.md", "tool.sh"])
    assert (docs / "a.md").read_text() == "final first\nsecond\n"
    assert not (docs / "tool.sh").stat().st_mode & 0o111
    assert (Path(found["backup"]) / "a.md").read_text() == "draft first\nsecond\n"
    rest = node.crank("apply", job_id, "--yes")
    assert rest.returncode == 0
    assert rest.stdout.splitlines()[-1].startswith("2 new, 3 unchanged in ")
    assert (docs / "sub/new.txt").read_text() == "new\n"


def test_what_changed_since_the_job_began_is_left(node: Node, docs: Path) -> None:
    """The user's later edit stays, is told as a conflict, and the other files are written."""
    job_id = run_job(node, EDIT, "docs")
    (docs / "a.md").write_text("my own edit\n")
    done = node.crank("apply", job_id, "--yes", "--json")
    found = {file["path"]: file for file in json.loads(done.stdout)["files"]}
    assert done.returncode == 8
    assert (found["a.md"]["change"], found["a.md"]["written"]) == ("conflict", False)
    assert found["sub/new.txt"]["written"]
    assert (docs / "a.md").read_text() == "my own edit\n"


def test_a_hostile_job_writes_no_more_than_what_is_shown(node: Node, tmp_path: Path) -> None:
    """Dot files, ways out, twins and hidden characters are conflicts; nothing it left moves the terminal."""
    job_id = run_job(node, EVIL)
    folder = tmp_path / "target"
    folder.mkdir()
    done = node.crank("apply", job_id, "--to", str(folder), "--yes")
    assert done.returncode == 8
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == ["good.txt", "huge.txt"]
    for text in (done.stdout, done.stderr):
        assert all(char.isprintable() or char in "\n\t" for char in text)
    assert len(done.stdout) < 100_000
    assert node.crank("apply", job_id, "--yes").returncode == 2
    assert node.crank("apply", job_id, "--to", str(node.home), "--yes").returncode == 4
    assert node.crank("apply", job_id, "--to", str(tmp_path / "nothing"), "--yes").returncode == 2


@contextlib.contextmanager
def asked(node: Node, job_id: str, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run apply in a terminal, and give it and the terminal once it has asked about a.md."""
    master, slave = pty.openpty()
    asking = subprocess.Popen(
        [sys.executable, "-m", "crank", "apply", job_id, *options],
        env=node.environment, stdin=slave, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    told = asking.stdout
    assert told is not None
    os.set_blocking(told.fileno(), False)
    heard: list[bytes] = []

    def has_asked() -> bool:
        heard.append(told.read() or b"")
        return b"write a.md?" in b"".join(heard)

    try:
        until(has_asked, what="the question", deadline_sec=30)
        yield asking, master
    finally:
        asking.kill()
        asking.wait()
        told.close()
        os.close(master)


def test_an_interrupt_at_the_question_writes_nothing(node: Node, docs: Path) -> None:
    """Ctrl-C ends the command at once, with its own exit code, and the folder is as it was."""
    job_id = run_job(node, EDIT, "docs")
    with asked(node, job_id) as (asking, _):
        asking.send_signal(signal.SIGINT)
        assert asking.wait(timeout=30) == 130
    assert sorted(path.name for path in docs.iterdir()) == ["a.md", "b.md"]
    assert (docs / "a.md").read_text().startswith("draft")


def test_a_link_swapped_in_while_the_user_reads_leads_nowhere(node: Node, docs: Path, tmp_path: Path) -> None:
    """In a terminal it asks; what became a link between question and answer is left, the rest is written."""
    job_id = run_job(node, EDIT, "docs")
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "a.md").write_text("draft first\nsecond\n")
    with asked(node, job_id, "--only", "a.md", "--only", "sub/*", "--only", "tool.sh") as (asking, terminal):
        (docs / "a.md").unlink()
        (docs / "a.md").symlink_to(victim / "a.md")
        (docs / "sub").symlink_to(victim)
        os.write(terminal, b"y\ny\ny\n")
        assert asking.wait(timeout=60) == 8
    assert (victim / "a.md").read_text() == "draft first\nsecond\n"
    assert [path.name for path in victim.iterdir()] == ["a.md"]
    assert (docs / "a.md").is_symlink()
    assert (docs / "tool.sh").read_text() == "#!/bin/sh\n"
