"""LangChain's sandbox backend on E2B, as deep agents use it: commands, and files that it does by commands."""

import json
import traceback

from e2b import Sandbox
from langchain_e2b import E2BSandbox

box = Sandbox.create(timeout=120)
backend = E2BSandbox(sandbox=box)


def commands_run():
    """A command's output and status come back."""
    done = backend.execute("echo one; exit 3")
    assert "one" in done.output, done
    assert done.exit_code == 3, done


def files_come_and_go():
    """Bytes are uploaded and downloaded."""
    backend.upload_files([("/home/user/notes.txt", b"alpha\nbeta\n")])
    found = backend.download_files(["/home/user/notes.txt"])[0]
    assert found.content == b"alpha\nbeta\n", found


def files_are_read_edited_and_searched():
    """What an agent does to files, which the backend does by commands in the sandbox."""
    backend.write("/home/user/made.txt", "first\nsecond\n")
    assert "second" in str(backend.read("/home/user/made.txt"))
    backend.edit("/home/user/made.txt", "second", "third")
    assert "third" in str(backend.read("/home/user/made.txt"))
    assert "made.txt" in str(backend.grep("third", path="/home/user"))
    assert "made.txt" in str(backend.ls("/home/user"))


for check in (commands_run, files_come_and_go, files_are_read_edited_and_searched):
    fault = None
    try:
        check()
    except BaseException:
        fault = traceback.format_exc()
    print(json.dumps({"check": check.__name__, "fault": fault}), flush=True)
box.kill()
