"""The tools: few, with the whole node behind them. Their order and words are what a model sees, so they are golden."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from crank.api.mcp import calls, shapes
from crank.api.mcp.calls import Call, Told
from crank.api.wanted import Request


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool. `reads` changes nothing; `destroys` ends or overwrites something that was there."""

    name: str
    title: str
    description: str
    takes: type[Request]
    gives: type[BaseModel]
    act: Callable[[Call, Any], Awaitable[Told]]
    reads: bool = False
    destroys: bool = False
    repeats: bool = False

    @property
    def purpose(self) -> str:
        """Return the first sentence of the description."""
        return self.description.partition(". ")[0].rstrip(".") + "."


_TOOLS = (
    Tool(
        "run_python",
        "Run Python",
        "Run a Python script in a sandbox on the user's own machine and answer with what it printed, its result, its "
        "charts and the files that it left in /out. There is no network. The value of `result`, or of the last "
        "expression, comes back as JSON. Folders of the user are at /in/<mount>, read-only. A script that takes longer "
        "than wait_sec goes on: the answer then has ended=false, and job_wait follows it. session='new' opens a session "
        "whose variables and files later scripts find again by the session's id.",
        shapes.RunPython,
        shapes.JobShown,
        calls.run_python,
    ),
    Tool(
        "job_wait",
        "Wait for a job",
        "Wait for the end of a job that an earlier call started, and answer with it as it stands then. Cancelling this "
        "call ends the wait alone.",
        shapes.JobWait,
        shapes.JobShown,
        calls.job_wait,
        reads=True,
    ),
    Tool(
        "job_cancel",
        "Cancel a job",
        "End a job early. What it printed and left until then is kept; cancelling one that has ended changes nothing.",
        shapes.JobCancel,
        shapes.JobShown,
        calls.job_cancel,
        destroys=True,
        repeats=True,
    ),
    Tool(
        "list_files",
        "List files",
        "List what a job left, a folder of a mount (the user's files, by the mount's name) or a folder of a session, "
        "page by page. Without a place it names the mounts that there are.",
        shapes.ListFiles,
        shapes.FilesShown,
        calls.list_files,
        reads=True,
    ),
    Tool(
        "read_file",
        "Read a file",
        "Read a file that a job left, that lies in a mount or in a session, or what a job printed, a page at a time. "
        "Text comes as text, everything else as base64. To work on many or large files, run a script over the mount "
        "instead of reading them here.",
        shapes.ReadFile,
        shapes.PageShown,
        calls.read_file,
        reads=True,
    ),
    Tool(
        "find_capability",
        "Find a capability",
        "Find out which environments and functions this node offers for something, in words or by name: at most three "
        "candidates with reasons and how to call them, or none when nothing fits.",
        shapes.FindCapability,
        shapes.FoundShown,
        calls.find_capability,
        reads=True,
    ),
    Tool(
        "call_capability",
        "Call a capability",
        "Call a function that find_capability named, with args as its input schema asks. Waits as run_python does.",
        shapes.CallCapability,
        shapes.JobShown,
        calls.call_capability,
    ),
)
TOOLS = {tool.name: tool for tool in _TOOLS}
PURPOSES = tuple((tool.name, tool.purpose) for tool in _TOOLS)
