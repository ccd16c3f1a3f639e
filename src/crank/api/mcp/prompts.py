"""Prompts: what a person picks in a host's menu to get a piece of work started well."""

from collections.abc import Mapping, Sequence
from typing import Any

from crank.api.mcp.tools import PURPOSES
from crank.api.peer import Caller
from crank.controller.desk import Desk
from crank.controller.instruct import instruct
from crank.controller.mounts import list_mounts
from crank.domain.ids import parse_name
from crank.errors import InvalidRequest, NotFound

GOAL_CHARS_MAX = 4_000

LISTED: Sequence[dict[str, Any]] = (
    {
        "name": "process_folder",
        "title": "Process a folder",
        "description": "Do something to every file of a folder that the node's owner has mounted.",
        "arguments": [
            {"name": "mount", "description": "The mount's name, as list_files names it.", "required": True},
            {"name": "goal", "description": "What shall be done to the files.", "required": True},
            {"name": "pattern", "description": "Which files: *.md, *.docx; all unless given.", "required": False},
        ],
    },
    {
        "name": "instructions",
        "title": "Work with this node",
        "description": "What this node offers and how jobs are made, as it stands now.",
        "arguments": [],
    },
)
_PROCESS = """\
Process the folder that is mounted as {mount}. What shall be done: {goal}

Work like this:
1. Call list_files with mount={mount} to see what is there; take a look at one or two files with read_file.
2. Call find_capability with what shall be done. Prefer a candidate that does it; otherwise write one script for
   run_python with mounts=[{mount!r}].
3. In the script, walk /in/{mount} for {pattern}. Treat each file by itself: catch its error, note the file's name and
   the reason, and go on with the next. Write what comes out to /out under a name made from the input's, and set
   result to a list of one entry for each file: its name, "ok" or the reason, and the output's name.
4. When the answer has ended=false, call job_wait until it has ended.
5. Tell the user how many files went well, which failed and why, and what lies in the artifacts. The files in the
   folder itself are read-only and stay as they are.
"""


async def get(desk: Desk, caller: Caller, name: str, arguments: Mapping[str, str], *, version: str) -> str:
    """Return a prompt's text. Raises NotFound, InvalidRequest."""
    if name == "process_folder":
        return await _process_folder(desk, caller, arguments)
    if name == "instructions" and not arguments:
        return await instruct(desk, tenant=caller.tenant, version=version, tools=PURPOSES)
    if name == "instructions":
        raise InvalidRequest("The prompt takes no arguments.", code="unknown_field", field=min(arguments)[:80])
    raise NotFound(f"There is no prompt {name[:80]!r}.", code="prompt_not_found", field="name",
                   fix=f"Known: {', '.join(entry['name'] for entry in LISTED)}.")  # fmt: skip


async def _process_folder(desk: Desk, caller: Caller, arguments: Mapping[str, str]) -> str:
    for needed in ("mount", "goal"):
        if not arguments.get(needed, "").strip():
            raise InvalidRequest(f"The prompt needs {needed}.", code="missing_field", field=needed)
    unknown = sorted(set(arguments) - {"mount", "goal", "pattern"})
    if unknown or max(map(len, arguments.values())) > GOAL_CHARS_MAX:
        raise InvalidRequest(
            f"The prompt takes mount, goal and pattern, of at most {GOAL_CHARS_MAX} characters each.",
            code="unknown_field" if unknown else "invalid_field",
            field=unknown[0][:80] if unknown else "goal",
        )
    mount = parse_name(arguments["mount"].strip(), field="mount")
    known = {entry.name for entry in await list_mounts(desk, tenant=caller.tenant)}
    if mount not in known:
        raise NotFound(f"There is no mount {mount!r}.", code="mount_not_found", field="mount",
                       fix="Call list_files without a place to see the mounts.")  # fmt: skip
    pattern = arguments.get("pattern", "").strip() or "every file"
    return _PROCESS.format(mount=mount, goal=arguments["goal"].strip(), pattern=pattern)
