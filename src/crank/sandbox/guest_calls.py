"""Inside the sandbox: the module `crank` that a job imports, to call for other jobs with the handles in its hand.

No wall. What it checks saves a way; the supervisor, the worker and the controller check everything again. Standard library only.
A job's own file `crank.py` is found first, as any module's would be.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import struct
import sys
import threading
from collections import deque
from importlib.machinery import ModuleSpec
from types import ModuleType

from crank.sandbox.guest_plain import NotJson, dumps, encode, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

NAME = "crank"
_HEADER = struct.Struct("!BI")
_CHUNK = 64 * 1024
# What `domain.handle` says on the other side.
_CALL_BYTES_MAX = 1 << 20
_ANSWER_BYTES_MAX = 4 << 20
_AT_ONCE_MAX = 8
_SCRATCH = "/scratch"
_STAGED = ".crank-calls"
_PATH_CHARS = 512


class CallError(Exception):
    """A call that brought nothing: `code` is a stable word, `cause` says why in a sentence, `fix` what to do."""

    __module__ = NAME

    def __init__(self, code: str, cause: str, fix: str | None = None) -> None:
        super().__init__(code, cause, fix)
        self.code = code
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        """Say all three."""
        return f"{self.code}: {self.cause}" + (f" {self.fix}" if self.fix else "")


class CallRefused(CallError):
    """Nothing was run: no handle allows the call, too many were made, or the node would not take it."""

    __module__ = NAME


class CallFailed(CallError):
    """The called job ended without success; `answer` holds what it left all the same."""

    __module__ = NAME

    def __init__(self, code: str, cause: str, fix: str | None = None, answer: Any = None) -> None:
        super().__init__(code, cause, fix)
        self.answer = answer


class Answer:
    """What became of a call: `result`, and `files`: each file that the called job left, by its path, and where it lies now.

    status, reason  how the called job ended
    left_out        how many files were not brought: too many, too large, or there was no room
    """

    __module__ = NAME

    def __init__(self, word: Mapping[str, Any]) -> None:
        self.result = word["result"]
        self.status = word["status"]
        self.reason = word["reason"]
        self.left_out = word["left_out"]
        self.files = {path: f"{_SCRATCH}/{word['folder']}/{path}" for path in word["files"]}

    def __repr__(self) -> str:
        """Show how it ended and what there is."""
        return f"<crank.Answer {self.status}, {len(self.files)} file(s)>"


class _Line:
    """The way out and back: numbered calls on the channel of the result, answers where the order came from."""

    def __init__(self, channel: Any, descriptor: int) -> None:
        self._channel = channel
        self._descriptor = descriptor
        # Held while something is read: whoever has it is alone with the descriptor.
        self._gate = threading.Lock()
        self._chunks: deque[bytes] = deque()
        self._turns = threading.BoundedSemaphore(_AT_ONCE_MAX)
        self._sending = threading.Lock()
        self._ready = threading.Condition()
        self._number = 0
        self._buffer = bytearray()
        self._answers: dict[int, Mapping[str, Any]] = {}
        self._forgotten: set[int] = set()
        self._reading = self._broken = False

    def ask(self, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make a call and wait for its answer."""
        if not self._channel.is_ours():
            raise CallRefused("not_this_process", "Only the process that the job began in calls.", "Call from there.")
        with self._turns:
            number = self._send(body)
            try:
                return self._await(number)
            except BaseException:
                # Interrupted: the answer, when it comes, is nobody's.
                with self._ready:
                    if self._answers.pop(number, None) is None:
                        self._forgotten.add(number)
                raise

    def _send(self, body: Mapping[str, Any]) -> int:
        with self._sending:
            if self._broken:
                raise CallRefused("channel_closed", "The run that this call belongs to is over.")
            number = self._number + 1
            octets = dumps({"number": number, **body})
            if len(octets) > _CALL_BYTES_MAX:
                raise CallRefused("call_too_large", f"A call is at most {_CALL_BYTES_MAX} bytes.", "Send large input as files.")
            self._number = number
            self._channel.send("c", octets)
            return number

    def _await(self, number: int) -> Mapping[str, Any]:
        with self._ready:
            while number not in self._answers:
                if self._broken:
                    raise CallRefused("channel_closed", "The channel that answers come by was closed or disturbed by the job.")
                if self._reading:
                    self._ready.wait()
                    continue
                # One thread reads for all of them.
                self._reading = True
                self._ready.release()
                try:
                    self._read()
                finally:
                    self._ready.acquire()
                    self._reading = False
                    self._ready.notify_all()
                self._take()
            return self._answers.pop(number)

    def _read(self) -> None:
        waiting = select.poll()
        waiting.register(self._descriptor, select.POLLIN)
        try:
            waiting.poll()
            with self._gate:
                if not self._broken:
                    # One step of the interpreter: an interrupt comes before it or after, and no byte is lost between.
                    self._chunks.extend(map(os.read, (self._descriptor,), (_CHUNK,)))
        except OSError:
            self._broken = True

    def close(self) -> bytes:
        """End the run's calls; return what was read and is not a whole answer, for whoever reads on."""
        with self._sending, self._gate:
            self._broken = True
        with self._ready:
            self._take()
            self._ready.notify_all()
            return bytes(self._buffer)

    def _take(self) -> None:
        while self._chunks:
            self._broken = self._broken or not self._chunks[0]
            self._buffer += self._chunks.popleft()
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            if chr(kind) != "a" or length > _ANSWER_BYTES_MAX:
                self._broken = True
                return
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            word = json.loads(bytes(self._buffer[_HEADER.size : end]))
            del self._buffer[:end]
            if word["number"] in self._forgotten:
                self._forgotten.discard(word["number"])
            else:
                self._answers[word["number"]] = word


class _Hand:
    """The job's handles, and the functions of the module."""

    def __init__(self, remember: Callable[[str, str], None]) -> None:
        self._remember = remember
        self._line: _Line | None = None
        self._handles: dict[str, Mapping[str, Any]] = {}
        self._staged = itertools.count(1)

    def take(self, told: Sequence[Mapping[str, Any]], channel: Any, descriptor: int) -> None:
        """Put these handles into the hand."""
        self._line = _Line(channel, descriptor)
        self._handles = {handle["name"]: dict(handle) for handle in told}

    def drop(self) -> bytes:
        """Leave the hand empty: the run is over. Return what was read of an answer that had not come whole."""
        line, self._line, self._handles = self._line, None, {}
        return b"" if line is None else line.close()

    def handles(self) -> dict[str, dict[str, Any]]:
        """Return this job's handles by name: what each is for. Without any, nothing can be called for."""
        return {name: dict(handle) for name, handle in self._handles.items()}

    def call(self, capability: str, args: Any = None, **more: Any) -> Any:
        """Run a capability as a job of its own and return its result; takes what `ask` takes.

        Raises CallRefused when nothing was run, CallFailed when it ended without success.
        """
        return self.ask(capability, args, **more).result

    def ask(
        self,
        capability: str,
        args: Any = None,
        *,
        code: str | None = None,
        files: Mapping[str, Any] | None = None,
        mounts: Mapping[str, str] | Sequence[str] | None = None,
        timeout_sec: float | None = None,
        **more: Any,
    ) -> Answer:
        """Run a capability as a job of its own; return its result and the files that it left.

        code         the script, for a capability that runs scripts
        files        {path in the called job's /scratch: a path here, or bytes}
        mounts       handles of kind mount that it may read at /in/<name>, as names or as {name there: handle here}
        timeout_sec  how long it may run
        more         `handle`: which one to use, the first that is for this capability unless given; `version`;
                     `handles`: names of handles that its own code shall have too
        """
        odd = sorted(set(more) - {"handle", "version", "handles"})
        if odd:
            raise TypeError(f"A call takes no {odd[0]!r}.")
        handle, version = more.get("handle"), more.get("version")
        if self._line is None:
            self._remember("handle", f"call {capability!s}")
            raise CallRefused(
                "no_handle", "This job was given no handles, so it can call for nothing.",
                "Submit it with handles: [{'name': …, 'kind': 'call', 'capability': …}].",
            )  # fmt: skip
        body = {
            "handle": self._found(capability) if handle is None else text(handle),
            "capability": text(capability),
            "version": None if version is None else text(version),
            "args": self._plain(args),
            "code": code if code is None else text(code, _CALL_BYTES_MAX),
            "files": {text(path, _PATH_CHARS): self._place(source) for path, source in (files or {}).items()},
            "mounts": {text(name): text(held) for name, held in _pairs(mounts)},
            "handles": [text(name) for name in more.get("handles") or ()],
            "timeout_sec": None if timeout_sec is None else float(timeout_sec),
        }
        word = self._line.ask(body)
        if word["verdict"] == "refused":
            raise CallRefused(word["code"], word["message"], word["fix"])
        answer = Answer(word)
        if word["verdict"] == "failed":
            told = word["message"] or f"The called job ended as {word['status']}."
            raise CallFailed(word["code"] or word["reason"] or "failed", told, word["fix"], answer)
        return answer

    def _found(self, capability: str) -> str:
        for name, handle in self._handles.items():
            pattern = handle.get("capability")
            if pattern in ("*", capability) or (pattern and pattern.endswith(".*") and capability.startswith(pattern[:-1])):
                return name
        return ""

    def _plain(self, args: Any) -> Any:
        try:
            return encode(args, _CALL_BYTES_MAX)
        except NotJson as fault:
            raise TypeError(f"The args of the call are not JSON: {fault}.") from None

    def _place(self, source: Any) -> str:
        """Return where a file lies below /scratch, laying it there first if it does not."""
        octets = source if isinstance(source, bytes | bytearray | memoryview) else None
        path = "" if octets is not None else str(os.path.abspath(os.fsdecode(source)))
        if path.startswith(f"{_SCRATCH}/"):
            return path[len(_SCRATCH) + 1 :]
        os.makedirs(f"{_SCRATCH}/{_STAGED}", exist_ok=True)
        staged = f"{_STAGED}/{next(self._staged)}"
        with open(f"{_SCRATCH}/{staged}", "wb") as target:
            if octets is not None:
                target.write(octets)
            else:
                with open(path, "rb") as opened:
                    shutil.copyfileobj(opened, target)
        return staged


def _pairs(mounts: Mapping[str, str] | Sequence[str] | None) -> list[tuple[Any, Any]]:
    if isinstance(mounts, dict):
        return list(mounts.items())
    return [(name, name) for name in mounts or ()]


class _Finder:
    """Finds the module where nothing else is found under its name."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module

    def find_spec(self, name: str, _path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Return where the module is, or None for every other name."""
        return ModuleSpec(name, self, origin="the sandbox") if name == NAME else None  # type: ignore[arg-type]

    def create_module(self, _spec: ModuleSpec) -> ModuleType:
        """Return the module, which is made already."""
        return self._module

    def exec_module(self, _module: ModuleType) -> None:
        """Do nothing: it is filled already."""


def offer(remember: Callable[[str, str], None]) -> _Hand:
    """Let a job import the module; its hand is empty until `take`. Done where a sandbox is made ready, on no job's way."""
    hand = _Hand(remember)
    module = ModuleType(NAME, "What this job may call for: `call`, `ask`, `handles`.")
    named = {"Answer": Answer, "CallError": CallError, "CallFailed": CallFailed, "CallRefused": CallRefused}
    module.__dict__.update(named, call=hand.call, ask=hand.ask, handles=hand.handles)
    module.__dict__["__all__"] = [*named, "ask", "call", "handles"]
    sys.meta_path.append(_Finder(module))
    return hand
