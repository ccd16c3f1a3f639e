"""What every MCP client does on its visit to a node, and what it saw, as one JSON report; no client is imported here."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

SLOW = "import time\nfor step in range(12):\n    print('step', step, flush=True)\n    time.sleep(0.4)\nresult = 'done'"
SLEEP = "import time; time.sleep(280)"
LEAVES = "open('/out/note.txt', 'w').write('größe' * 40000)\nopen('/out/b.bin', 'wb').write(bytes(range(256)))"
SHOWS = "print('hi'); import sys; print('bad', file=sys.stderr); result = {'total': sum(args['numbers'])}"


class Host(Protocol):
    """A client, wrapped so that both generations are asked alike."""

    version: str

    async def tools(self) -> list[dict[str, Any]]:
        """Return the tools as they come over the wire."""
        ...

    async def call(self, name: str, arguments: dict[str, Any], progress: Any = None) -> dict[str, Any]:
        """Return structured, texts, kinds, error of a call; or fault."""
        ...

    async def call_and_cancel(self, name: str, arguments: dict[str, Any], after_sec: float) -> None:
        """Begin a call and cancel it the way this client does."""
        ...

    async def resources(self) -> dict[str, list[str]]:
        """Return the addresses and the templates."""
        ...

    async def read(self, uri: str) -> dict[str, Any]:
        """Return text or blob; or fault."""
        ...

    async def prompts(self) -> list[str]:
        """Return the names of the prompts."""
        ...

    async def prompt(self, name: str, arguments: dict[str, str]) -> dict[str, Any]:
        """Return the prompt's text; or fault."""
        ...


async def visit(host: Host, mark: str) -> dict[str, Any]:
    """Do everything once. `mark` names this visitor's sleeping jobs."""
    report: dict[str, Any] = {"version": host.version, "took_sec": {}}
    steps: dict[str, Callable[[], Awaitable[Any]]] = {
        "tools": host.tools,
        "run": lambda: host.call("run_python", {"code": SHOWS, "args": {"numbers": [20, 22]}}),
        "progress": lambda: _progress(host),
        "soft_wait": lambda: _soft_wait(host),
        "cancelled": lambda: _cancelled(host, mark),
        "files": lambda: _files(host),
        "session": lambda: _session(host),
        "capabilities": lambda: _capabilities(host),
        "resources": host.resources,
        "prompts": lambda: _prompts(host),
        "bad": lambda: _bad(host),
    }
    for name, step in steps.items():
        begun_sec = time.monotonic()
        report[name] = await step()
        report["took_sec"][name] = round(time.monotonic() - begun_sec, 2)
    return report


async def _progress(host: Host) -> dict[str, Any]:
    begun_sec = time.monotonic()
    seen: list[tuple[float, float, str]] = []

    async def progress(done: float, _total: float | None, message: str | None) -> None:
        seen.append((round(time.monotonic() - begun_sec, 2), done, message or ""))

    answer = await host.call("run_python", {"code": SLOW, "wait_sec": 40}, progress)
    return {"seen": seen, "answer": answer}


async def _soft_wait(host: Host) -> dict[str, Any]:
    begun = await host.call("run_python", {"code": SLEEP, "wait_sec": 0.3})
    job_id = begun["structured"]["job_id"]
    waited = await host.call("job_wait", {"job_id": job_id, "wait_sec": 0.3})
    ended = await host.call("job_cancel", {"job_id": job_id})
    after = await host.call("job_wait", {"job_id": job_id})
    return {"begun": begun, "waited": waited, "ended": ended, "after": after}


async def _cancelled(host: Host, mark: str) -> dict[str, Any]:
    await host.call_and_cancel("run_python", {"code": SLEEP + f"  # {mark} attached", "wait_sec": 40}, 3.0)
    await host.call_and_cancel("run_python", {"code": SLEEP, "wait_sec": 40, "detach": True, "args": mark}, 3.0)
    begun = await host.call("run_python", {"code": SLEEP, "wait_sec": 0})
    job_id = begun["structured"]["job_id"]
    await host.call_and_cancel("job_wait", {"job_id": job_id, "wait_sec": 40}, 0.5)
    after = await host.call("job_wait", {"job_id": job_id, "wait_sec": 0})
    await host.call("job_cancel", {"job_id": job_id})
    return {"after": after}


async def _files(host: Host) -> dict[str, Any]:
    left = await host.call("run_python", {"code": LEAVES})
    job_id = left["structured"]["job_id"]
    text, offset = "", 0
    pages = 0
    while offset is not None:
        page = await host.call("read_file", {"job_id": job_id, "path": "note.txt", "offset_bytes": offset})
        text += page["structured"]["text"]
        offset = page["structured"]["next_offset_bytes"]
        pages += 1
    return {
        "left": left,
        "whole": text == "größe" * 40000,
        "pages": pages,
        "listed": await host.call("list_files", {"job_id": job_id, "limit": 1}),
        "listed_next": await host.call("list_files", {"job_id": job_id, "limit": 1, "after": "b.bin"}),
        "binary": await host.call("read_file", {"job_id": job_id, "path": "b.bin"}),
        "binary_resource": await host.read(f"crank://jobs/{job_id}/files/b.bin"),
        "too_large": await host.read(f"crank://jobs/{job_id}/files/note.txt"),
        "files_resource": await host.read(f"crank://jobs/{job_id}/files"),
        "log": await host.read(f"crank://jobs/{job_id}/log"),
        "mounts": await host.call("list_files", {}),
        "mount": await host.call("list_files", {"mount": "docs"}),
        "mounted": await host.call("read_file", {"mount": "docs", "path": "b.md"}),
        "escape": await host.call("read_file", {"mount": "docs", "path": "link"}),
        "printed": await host.call("read_file", {"job_id": job_id, "stream": "stdout"}),
    }


async def _session(host: Host) -> dict[str, Any]:
    first = await host.call("run_python", {"code": "kept = 41; open('kept.txt', 'w').write('x')", "session": "new"})
    session = first["structured"]["session"]
    second = await host.call("run_python", {"code": "result = kept + 1", "session": session})
    files = await host.call("list_files", {"session": session})
    read = await host.call("read_file", {"session": session, "path": "kept.txt"})
    return {"first": first, "second": second, "files": files, "read": read}


async def _capabilities(host: Host) -> dict[str, Any]:
    return {
        "found": await host.call("find_capability", {"query": "count the words of a text"}),
        "named": await host.call("find_capability", {"query": "python.run.core"}),
        "nonsense": await host.call("find_capability", {"query": "qwertz ploppf xyzzy"}),
        "called": await host.call("call_capability", {"name": "text.count", "args": {"text": "a b a"}}),
        "listed": await host.read("crank://capabilities"),
        "one": await host.read("crank://capabilities/text.count"),
    }


async def _prompts(host: Host) -> dict[str, Any]:
    return {
        "listed": await host.prompts(),
        "text": await host.prompt("process_folder", {"mount": "docs", "goal": "count words"}),
        "incomplete": await host.prompt("process_folder", {"mount": "docs"}),
        "unknown": await host.prompt("nothing", {}),
        "instructions": await host.prompt("instructions", {}),
        "instructions_resource": await host.read("crank://instructions"),
    }


async def _bad(host: Host) -> dict[str, Any]:
    asked: dict[str, tuple[str, dict[str, Any]]] = {
        "missing": ("run_python", {}),
        "misspelt": ("run_python", {"code": "1", "timeout": 3}),
        "wrong_type": ("run_python", {"code": "1", "wait_sec": "long"}),
        "too_long_wait": ("run_python", {"code": "1", "wait_sec": 41}),
        "no_profile": ("run_python", {"code": "1", "profile": "python-none"}),
        "no_mount": ("run_python", {"code": "1", "mounts": ["nowhere"]}),
        "no_session": ("run_python", {"code": "1", "session": "0" * 8}),
        "refused_new_session": ("run_python", {"code": "\u0000", "session": "new"}),
        "no_job": ("job_wait", {"job_id": "01900000-0000-7000-8000-000000000000"}),
        "bad_job": ("job_cancel", {"job_id": "../x"}),
        "two_places": ("list_files", {"job_id": "a", "mount": "docs"}),
        "no_place": ("read_file", {"path": "a"}),
        "dots": ("read_file", {"mount": "docs", "path": "../secret"}),
        "absent": ("read_file", {"mount": "docs", "path": "absent"}),
        "empty_query": ("find_capability", {"query": ""}),
        "no_capability": ("call_capability", {"name": "no.such"}),
        "bad_args": ("call_capability", {"name": "text.count", "args": {"text": 5}}),
        "script_needed": ("call_capability", {"name": "python.run.core"}),
    }
    found = {key: await host.call(name, arguments) for key, (name, arguments) in asked.items()}
    found["no_tool"] = await host.call("no_such_tool", {})
    found["no_resource"] = await host.read("crank://nothing")
    return found


def main(connect: Callable[[dict[str, Any]], Any]) -> None:
    """Read the plan from stdin, visit, and print the report."""
    import sys

    plan = json.load(sys.stdin)

    async def go() -> dict[str, Any]:
        async with connect(plan) as host:
            return await visit(host, plan["mark"])

    print(json.dumps(asyncio.run(go())))
