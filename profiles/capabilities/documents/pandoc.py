"""pandoc, as it is called here: closed off from other files, with a bound on its memory."""

import json
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from documents.faults import Failed

MIB = 1 << 20
_HEAP_FULL_EXIT = 251
# As its runtime says it: by its own bound, or by that of the process.
_NO_MEMORY = ("eap exhausted", "out of memory", "annot allocate memory", "nable to commit")
_DEPTH_MAX = 150


def run(arguments: Sequence[str], *, folder: Path, heap_bytes: int, text: str | None = None) -> str:
    """Run pandoc in a folder and return what it prints. Raises Failed (`unreadable`, `too_large`)."""
    # --sandbox: a document must not make pandoc open other files or addresses.
    command = ["pandoc", "+RTS", f"-M{heap_bytes // MIB}m", "-RTS", "--sandbox", *arguments]
    octets = None if text is None else text.encode("utf-8", "replace")
    done = subprocess.run(command, cwd=folder, input=octets, capture_output=True, check=False)
    if done.returncode == 0:
        return done.stdout.decode("utf-8", "replace")
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        raise Failed("too_slow", "it took pandoc longer than one file may take")
    said = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode == _HEAP_FULL_EXIT or any(words in said for words in _NO_MEMORY):
        raise Failed("too_large", f"it needs more than {heap_bytes // MIB} MiB of memory to be read")
    raise Failed("unreadable", said or f"pandoc ended with {done.returncode}")


def read(path: Path, reader: str, *, folder: Path, heap_bytes: int, media: str | None = None) -> dict[str, Any]:
    """Return a document as pandoc's tree. Pictures are laid into `folder`/`media`. Raises Failed."""
    extract = [] if media is None else [f"--extract-media={media}"]
    printed = run(["--from", reader, "--to", "json", *extract, str(path)], folder=folder, heap_bytes=heap_bytes)
    tree: dict[str, Any] = json.loads(printed)
    return tree


def plain_tree(paragraphs: Sequence[str], title: str | None = None) -> dict[str, Any]:
    """Return a tree of plain paragraphs, for what pandoc itself cannot read."""
    meta = {"title": {"t": "MetaString", "c": title}} if title else {}
    blocks = [{"t": "Para", "c": _inlines(text)} for text in paragraphs]
    return {"pandoc-api-version": [1, 23, 1], "meta": meta, "blocks": blocks}


def _inlines(text: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for word in text.split():
        found += [{"t": "Space"}] if found else []
        found.append({"t": "Str", "c": word})
    return found


def change(node: Any, visit: Callable[[dict[str, Any]], Any], depth: int = 0) -> Any:
    """Return the tree with every node as `visit` gives it back, from the leaves up. Raises Failed when too deep."""
    if depth > _DEPTH_MAX:
        raise Failed("too_large", "it is nested too deeply")
    if isinstance(node, list):
        return [change(each, visit, depth + 1) for each in node]
    if isinstance(node, dict):
        changed = {key: change(value, visit, depth + 1) for key, value in node.items()}
        return visit(changed) if "t" in changed else changed
    return node


def words(node: Any) -> str:
    """Return the text of inline nodes on one line."""
    parts: list[str] = []
    _gather(node, parts, 0)
    return " ".join("".join(parts).split())


# Where in a node the text lies, for those that hold more than text.
_ONLY_LAST = frozenset({"Code", "Math", "CodeBlock"})
_SECOND = frozenset({"Link", "Image", "Span", "Quoted", "Cite"})
_SPACES = frozenset({"Space", "SoftBreak", "LineBreak"})
_SILENT = frozenset({"Note", "RawInline", "RawBlock"})
_PARTED = frozenset({"Para", "Plain", "Header", "MetaBlocks"})


def _gather(node: Any, parts: list[str], depth: int) -> None:
    if depth > _DEPTH_MAX:
        raise Failed("too_large", "it is nested too deeply")
    if isinstance(node, list):
        for each in node:
            _gather(each, parts, depth + 1)
    elif isinstance(node, dict):
        _gather_node(node.get("t"), node.get("c"), parts, depth)


def _gather_node(kind: Any, content: Any, parts: list[str], depth: int) -> None:
    if kind in ("Str", "MetaString"):
        parts.append(str(content))
    elif kind in _SPACES:
        parts.append(" ")
    elif kind in _ONLY_LAST:
        parts.append(str(content[-1]))
    elif kind in _SECOND:
        _gather(content[1], parts, depth + 1)
    elif kind not in _SILENT:
        _gather(list(content.values()) if isinstance(content, dict) else content, parts, depth + 1)
        parts.append(" " if kind in _PARTED else "")
