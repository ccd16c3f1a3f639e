"""A folder of documents: each on its own, what is unchanged taken from an earlier job, and every one accounted for."""

import fnmatch
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from documents import bounds, kept, places, work
from documents.bounds import MIB
from documents.faults import Failed, plain
from documents.formats import reader_of
from documents.names import Names

AT_ONCE_MAX = 2
FILES_FOUND_MAX = 20_000
FILE_BYTES_MAX = 256 * MIB
PER_FILE_SEC = 60.0
_PATIENCE = 4.0
# By the clock: on a busy machine a good file waits longer than it works.
_CLOCK_SEC_MIN = 60.0
# Before the job's own clock ends, there must be time to write down what was done.
_CLOSING_SEC = 15.0
_RESULT_BYTES_MAX = 900_000
_SUMMARY_CHARS_MAX = 400
# What may depend on how busy the machine was is tried again the next time.
_TRIED_AGAIN = frozenset({"crashed", "no_room", "not_found"})
_OWN_FILES = 8

Progress = Callable[[float, str], None]


class Room(NamedTuple):
    """What this job may leave: files, and bytes of them."""

    files: int
    bytes: int


class Folder:
    """One run over a folder."""

    def __init__(self, order: Mapping[str, Any], progress: Progress, say: Callable[[str], None]) -> None:
        self._args = order["args"]
        self._given = places.Given(order["files"], order["mounts"])
        self._limits = order["limits"]
        self._progress, self._say = progress, say
        self._began = time.monotonic()
        self._version = order["version"]
        self._operation = self._args.get("operation", "convert")
        self._options = {
            name: self._args[name] for name in ("to", "parts", "sentences", "per_file_sec") if name in self._args
        }
        at_once = min(AT_ONCE_MAX, len(os.sched_getaffinity(0)))
        self._at_once = at_once
        sec = float(self._args.get("per_file_sec", PER_FILE_SEC))
        self._bounds = work.bounds_for(self._limits, at_once=at_once, sec=sec)._replace(
            patience=max(_PATIENCE, _CLOCK_SEC_MIN / sec)
        )
        disk_bytes = int(self._limits["disk_bytes"])
        self._room = Room(int(self._limits["artifacts"]) - _OWN_FILES, disk_bytes * 6 // 10)
        self._earlier = kept.Earlier(places.SCRATCH / places.OWN / "kept.tar")
        self._keeper = kept.Keeper(places.OUT / places.OWN / "kept.tar", disk_bytes * 3 // 10)
        self._names = Names()
        self._entries: list[dict[str, Any]] = []
        self._told_at = 0.0
        self._done = 0

    def run(self) -> dict[str, Any]:
        """Go over every file and return what became of each. Raises Failed when there is nothing to go over."""
        documents, cut = self._find()
        self._entries = [{"file": places.readable(each.name), "status": "not_started"} for each in documents]
        work.prepare(self._operation, [each.path for each in documents], self._options)
        bases = [self._names.of(each.name) for each in documents]
        hashes: dict[int, str] = {}
        orders = self._orders(documents, bases, hashes)
        for ended in bounds.each(orders, self._bounds, self._at_once):
            self._finish(ended, documents[ended.key], bases[ended.key], hashes[ended.key])
            self._tell(ended.key)
        self._keeper.close()
        kept.clear(self._work_root())
        result = self._result(cut)
        self._write(result)
        return result

    def _find(self) -> tuple[list[places.Document], bool]:
        pattern = self._args.get("pattern")
        found: list[places.Document] = []
        for document in places.walk(self._given, self._args.get("source")):
            if pattern is None or fnmatch.fnmatch(places.readable(document.name), pattern):
                if len(found) == FILES_FOUND_MAX:
                    return found, True
                found.append(document)
        if not found:
            raise Failed("not_found", "there is no file to work on" + (f" that matches {plain(pattern)}" if pattern else ""))
        return found, False

    def _orders(
        self, documents: Sequence[places.Document], bases: Sequence[str], hashes: dict[int, str]
    ) -> Iterator[bounds.Order]:
        """Yield the work that is left after what can be said at once."""
        for number, document in enumerate(documents):
            if self._is_late():
                return
            try:
                digest = self._look_at(document)
            except Failed as fault:
                self._fail(number, fault)
                self._tell(number)
                continue
            hashes[number] = digest
            if self._take_earlier(number, bases[number], digest):
                self._tell(number)
                continue
            yield bounds.Order(number, self._work_on(number, document.path, bases[number]))

    def _look_at(self, document: places.Document) -> str:
        reader_of(document.path)
        try:
            size_bytes = document.path.stat().st_size
            if size_bytes > FILE_BYTES_MAX:
                raise Failed("too_large", f"it has {size_bytes // MIB} MiB, {FILE_BYTES_MAX // MIB} are read at most")
            return kept.hash_of(document.path)
        except OSError as fault:
            raise Failed("unreadable", f"it cannot be read: {fault.strerror}") from None

    def _is_late(self) -> bool:
        left_sec = float(self._limits["wall_sec"]) - (time.monotonic() - self._began)
        return left_sec < min(self._bounds.clock_sec, float(self._limits["wall_sec"]) / 4) + _CLOSING_SEC

    def _key(self, digest: str, path: Path) -> str:
        options = {**self._options, "suffix": path.suffix.lower()}
        return kept.key_of(digest, self._operation, options, self._version)

    def _work_root(self) -> Path:
        return places.SCRATCH / places.OWN / "work"

    def _work_on(self, number: int, path: Path, base: str) -> bounds.Work:
        def do(told: Progress) -> dict[str, Any]:
            answer = work.do(
                self._operation,
                path,
                self._options,
                folder=self._work_root() / str(number),
                base=Path(base).name,
                bounds=self._bounds,
                told=told,
            )
            # Read again: what was worked on shall be what the key names.
            return {"made": answer, "sha256": kept.hash_of(path)}

        return do

    def _take_earlier(self, number: int, base: str, digest: str) -> bool:
        key = self._key(digest, Path(self._entries[number]["file"]))
        made = self._earlier.find(key)
        if made is None or not self._fits(made, base):
            return False
        try:
            added = kept.place(self._earlier, made, places.OUT / base)
        except (OSError, ValueError):
            return False
        entry = {name: made.entry[name] for name in made.entry if name not in ("file", "base", "outputs", "cached")}
        self._settle(number, {**entry, "cached": True}, base, added)
        self._keeper.keep(key, made.entry, [(each, places.OUT / f"{base}{each}") for each in added])
        return True

    def _fits(self, made: kept.Made, base: str) -> bool:
        # A text names its folder of pictures, and that is named after the file.
        renamed = len(made.files) > 1 and made.entry.get("base") != Path(base).name
        needed = sum(size for _, _, size in made.files)
        return not renamed and len(made.files) <= self._room.files and needed <= self._room.bytes

    def _finish(self, ended: bounds.Ended, document: places.Document, base: str, digest: str) -> None:
        folder = self._work_root() / str(ended.key)
        try:
            if ended.fault is not None:
                raise ended.fault
            answer = ended.answer
            files = work.left_in(folder, Path(base).name)
            self._take(files, base)
        except Failed as fault:
            self._fail(ended.key, fault, sec=ended.sec)
            if fault.code not in _TRIED_AGAIN:
                self._keep(digest, document, base, ended.key, ())
        else:
            entry = {"status": "done", "sec": round(ended.sec, 2), **_told_of(self._operation, answer["made"])}
            self._settle(ended.key, entry, base, [addition for addition, _ in files])
            if answer["sha256"] == digest:
                self._keep(digest, document, base, ended.key, [addition for addition, _ in files])
        finally:
            kept.clear(folder)

    def _keep(
        self, digest: str, document: places.Document, base: str, number: int, additions: Sequence[str]
    ) -> None:
        entry = {**self._entries[number], "base": Path(base).name}
        files = [(each, places.OUT / f"{base}{each}") for each in additions]
        self._keeper.keep(self._key(digest, document.path), entry, files)

    def _take(self, files: Sequence[tuple[str, Path]], base: str) -> None:
        needed = sum(path.stat().st_size for _, path in files)
        if len(files) > self._room.files:
            raise Failed("no_room", "this job left as many files as one may; work on the rest by a pattern of their own")
        if needed > self._room.bytes:
            raise Failed("no_room", "what this job may leave is full; work on the rest by a pattern of their own")
        for addition, path in files:
            target = places.OUT / f"{base}{addition}"
            target.parent.mkdir(parents=True, exist_ok=True)
            _move(path, target)

    def _settle(self, number: int, entry: dict[str, Any], base: str, additions: Sequence[str]) -> None:
        outputs = [f"{base}{addition}" for addition in additions]
        sizes = sum((places.OUT / each).stat().st_size for each in outputs)
        self._room = Room(self._room.files - len(outputs), self._room.bytes - sizes)
        self._entries[number] |= entry
        if outputs:
            self._entries[number]["outputs"] = outputs

    def _fail(self, number: int, fault: Failed, sec: float = 0.0) -> None:
        self._entries[number] |= {"status": "failed", "code": fault.code, "reason": fault.message, "sec": round(sec, 2)}

    def _tell(self, number: int) -> None:
        self._done += 1
        entry = self._entries[number]
        if entry["status"] == "failed":
            self._say(f"{entry['file']}: {entry['code']}: {entry['reason']}")
        now = time.monotonic()
        if now - self._told_at > 0.25 or self._done == len(self._entries):
            self._told_at = now
            failed = sum(each["status"] == "failed" for each in self._entries)
            self._progress(self._done / len(self._entries), f"{self._done} of {len(self._entries)}, {failed} failed")

    def _result(self, cut: bool) -> dict[str, Any]:
        states = Counter(each["status"] for each in self._entries)
        result: dict[str, Any] = {
            "operation": self._operation,
            "found": len(self._entries),
            "done": states["done"],
            "cached": sum(each["status"] == "done" and bool(each.get("cached")) for each in self._entries),
            "failed": states["failed"],
            "not_started": states["not_started"],
            "notes": _notes(states, cut),
            "sec": round(time.monotonic() - self._began, 2),
            "files": self._entries,
            "files_cut": False,
        }
        while len(json.dumps(result)) > _RESULT_BYTES_MAX:
            result = {**result, "files": result["files"][: len(result["files"]) * 3 // 4], "files_cut": True}
        return result

    def _write(self, result: Mapping[str, Any]) -> None:
        table = json.dumps({**result, "files": self._entries, "files_cut": False}, ensure_ascii=False, indent=1)
        (places.OUT / "files.json").write_text(table, "utf-8")
        (places.OUT / "index.md").write_text("\n".join(_index(result, self._entries)) + "\n", "utf-8")


def _told_of(operation: str, made: Mapping[str, Any]) -> dict[str, Any]:
    told = {"title": made.get("title"), "notes": made.get("notes")}
    if operation == "summarize":
        told |= {"summary": made["summary"][:_SUMMARY_CHARS_MAX], "sentences": made["sentences"]}
    if operation == "extract":
        told |= {name: made[name] for name in ("words", "tables_in_all", "metadata") if name in made}
        told["images"] = len(made.get("images", ()))
    return {name: value for name, value in told.items() if value}


def _notes(states: Mapping[str, int], cut: bool) -> list[str]:
    notes = []
    if states["not_started"]:
        notes.append(
            f"The job's time was nearly over: {states['not_started']} files were not started. Ask again for the same: "
            "it goes on where this one stopped."
        )
    if cut:
        notes.append(f"Only the first {FILES_FOUND_MAX} files were looked at.")
    return notes


def _index(result: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield from ("# Documents", "")
    yield f"{result['found']} files: {result['done']} done ({result['cached']} unchanged), {result['failed']} failed."
    failed = [each for each in entries if each["status"] == "failed"]
    if failed:
        yield from ("", "## Could not be worked on", "")
        yield from (f"- **{plain(each['file'])}**: {each['reason']}" for each in failed)
    yield from ("", "## Done", "")
    for each in entries:
        if each["status"] == "done":
            title = plain(each.get("title") or each["file"])
            links = [output for output in each.get("outputs", ()) if ".media/" not in output and ".images/" not in output]
            yield f"- {f'[{title}](<{links[0]}>)' if links else f'**{title}**'}" + (f" ({plain(each['file'])})")
            if "summary" in each:
                yield f"  {plain(each['summary'])}"


def _move(path: Path, target: Path) -> None:
    try:
        path.rename(target)
    except OSError:
        # /scratch and /out are two places.
        with path.open("rb") as source, target.open("xb") as made:
            while chunk := source.read(1 << 20):
                made.write(chunk)
        path.unlink()
