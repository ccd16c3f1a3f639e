"""`crank convert`, `crank summarize` and `crank folder`: the shipped document capabilities, as `crank run` would ask for them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from crank.cli.run import Asked, run
from crank.domain.json import JsonValue, dumps
from crank.errors import InvalidRequest

_Json = Annotated[bool, Parameter(name="--json", help="Print one JSON object at the end.", negative=(), show_default=False)]
_Out = Annotated[Path | None, Parameter(help="Folder for what was made; the current one unless given.")]


def convert(
    file: Annotated[Path, Parameter(help="The document.")],
    /,
    *,
    to: Annotated[str, Parameter(help="Format wanted: pdf, docx, html, gfm, or any other that pandoc writes.")],
    out: _Out = None,
    json: _Json = False,
) -> int:
    """Convert one document, in the sandbox."""
    return _on_file("document.convert", file, {"to": to}, out or Path(), json=json)


def summarize(
    file: Annotated[Path, Parameter(help="The document.")],
    /,
    *,
    sentences: Annotated[int, Parameter(help="How many sentences.")] = 3,
    json: _Json = False,
) -> int:
    """Pick the sentences that say most of a document, each with its place, in the sandbox."""
    return _on_file("document.summarize", file, {"sentences": sentences}, None, json=json)


def folder(
    place: Annotated[str, Parameter(help="A folder, or the name of a mount.")],
    /,
    *,
    operation: Annotated[str, Parameter(help="convert, extract or summarize.")] = "convert",
    to: Annotated[str | None, Parameter(help="With convert: the format wanted; gfm unless given.")] = None,
    pattern: Annotated[str | None, Parameter(help="Only files whose path matches: *.docx")] = None,
    previous: Annotated[
        str | None, Parameter(help="An earlier job to take unchanged results from: its id, latest or none.")
    ] = None,
    out: _Out = None,
    json: _Json = False,
) -> int:
    """Work on every document of a folder; what has not changed since the last time is not done again."""
    args: dict[str, JsonValue] = {"operation": operation, "to": to, "pattern": pattern, "previous": previous}
    is_folder = Path(place).is_dir()
    if not is_folder and "/" in place:
        raise InvalidRequest(f"There is no folder {place[:200]!r}.", code="folder_unreadable", field="place")
    asked = Asked(
        capability="folder.process",
        args=_json(args),
        mount=(f"documents={place}" if is_folder else place,),
    )
    return run(None, asked=asked, out=out or Path("documents"), json=json)


def _on_file(capability: str, file: Path, args: Mapping[str, JsonValue], out: Path | None, *, json: bool) -> int:
    if "=" in str(file):
        raise InvalidRequest(
            "The file's path holds '='.", code="usage", field="file", fix="Rename it, or use 'crank run --file'."
        )
    asked = Asked(capability=capability, args=_json({"source": file.name, **args}), file=(f"{file}={file.name}",))
    return run(None, asked=asked, out=out, json=json)


def _json(args: Mapping[str, JsonValue]) -> str:
    return dumps({name: value for name, value in args.items() if value is not None})
