"""Where every document capability begins: from an order to an answer with a result or a declared code.

The order is made by the worker: `capability`, `args` (which fit the input schema), `files` and `mounts` by name,
`limits` of this job, and `version` of what works here. The answer has the form that a function's answer has.
"""

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from documents import bounds, places, work
from documents.faults import Failed
from documents.formats import reader_of
from documents.names import safe

Progress = Callable[[float, str], None]
# Before the job's own clock ends the failure must be told.
_CLOSING_SEC = 5.0


def answer(order: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do what the order asks for; return the answer's document."""
    try:
        result = _result(order, progress)
    except Failed as fault:
        return {"reason": "raised", "exit_code": 1, "code": fault.code, "message": fault.message}
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            raise
        message = "what it made does not fit into what one job may leave"
        return {"reason": "raised", "exit_code": 1, "code": "no_room", "message": message}
    return {"reason": "exited", "exit_code": 0, "has_result": True, "result": result}


def _result(order: Mapping[str, Any], progress: Progress) -> Any:
    operation = order["capability"].partition(".")[2]
    if operation == "process":
        from documents.folder import Folder

        return Folder(order, progress, lambda line: print(line, flush=True)).run()
    return _one(operation, order, progress)


def _one(operation: str, order: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    args = order["args"]
    document = _document(order)
    reader_of(document.path, args.get("from"))
    limits = order["limits"]
    sec = max(1.0, float(limits["wall_sec"]) - _CLOSING_SEC)
    most = work.bounds_for(limits, at_once=1, sec=sec)
    work.prepare(operation, [document.path], args)
    folder = places.SCRATCH / places.OWN / "work"
    base = safe(Path(document.name).stem if operation == "convert" else Path(document.name).name)

    def do(told: Progress) -> dict[str, Any]:
        return work.do(operation, document.path, args, folder=folder, base=base, bounds=most, told=told)

    made: dict[str, Any] = bounds.one(do, most, progress)
    outputs = []
    for addition, path in work.left_in(folder, base):
        target = places.OUT / f"{base}{addition}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        path.unlink()
        outputs.append(f"{base}{addition}")
    progress(1.0, f"{len(outputs)} files" if outputs else "done")
    return {"source": places.readable(document.name), **made, "outputs": outputs}


def _document(order: Mapping[str, Any]) -> places.Document:
    text = order["args"].get("text")
    if text is None:
        return places.find(places.Given(order["files"], order["mounts"]), order["args"].get("source"))
    path = places.SCRATCH / places.OWN / "text.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return places.Document("text.md", path)
