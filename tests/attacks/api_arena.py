"""Runs hostile cases through the public API of a real node, several at a time, each with a neighbour beside it.

A lane is one thread with a canary of its own, so that whatever touches a canary is known by name. What can
only be seen of the node as a whole (processes, mounts, memory, answers) is looked at before the first case
and after the last.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Self

from tests.attacks import judge
from tests.attacks.arena import differences
from tests.attacks.canary import Canary
from tests.attacks.case import Case, Pair
from tests.attacks.profiles import FORKS, TIGHT, TIGHT_WALL_SEC
from tests.attacks.traces import Traces, descendants, memory_bytes, title, traces
from tests.support.node import Api, Node, until

_ENDED_SEC = 90.0
_SETTLE_SEC = 10.0
_COLLECT_SEC = 10.0
_LOOK_SEC = 0.1
_QUIET_LOOKS = 20
_WARM = 12


def request_of(case: Case, canary: Canary) -> dict[str, Any]:
    """Return the body that an agent would send."""
    body: dict[str, Any] = {"code": case.code, "args": {"host": canary.facts}}
    if not case.askable:
        return {**body, "env_profile": TIGHT, "constraints": _constraints(case, TIGHT_WALL_SEC)}
    profile = "python-docs" if case.api_only else FORKS if case.programs else "python-core"
    return {**body, "env_profile": profile, "constraints": _constraints(case, judge.WALL_SEC)}


def _constraints(case: Case, wall_sec: float) -> dict[str, Any]:
    asked: dict[str, Any] = {"timeout_sec": case.limits.get("wall_sec", wall_sec)}
    if "memory_bytes" in case.limits:
        asked["memory_bytes"] = int(case.limits["memory_bytes"])
    return asked


@dataclass(slots=True)
class Answers:
    """How long the node took to answer while it was attacked, in seconds, sampled all the time."""

    node: Node
    took_sec: list[float] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        assert self._thread is not None
        self._thread.join()

    def _sample(self) -> None:
        api = Api(self.node.info())
        while not self._over.wait(_LOOK_SEC):
            began = time.monotonic()
            assert api.ready().get("ready")
            self.took_sec.append(time.monotonic() - began)
        api.http.close()


def _standing(node: Node) -> tuple[int, int] | None:
    """Return a worker and its launcher; None while one that was killed is not replaced yet."""
    workers = node.info().get("worker_pids") or []
    pairs = [(worker, pid) for worker in workers for pid in descendants(worker) if title(pid) == "crank-launcher"]
    return pairs[0] if len(pairs) == 1 else None


class ApiArena:
    """One node and so many lanes as there are canaries."""

    def __init__(self, node: Node, canaries: Sequence[Canary]) -> None:
        self.node = node
        self.api = node.client()
        self._canaries: SimpleQueue[Canary] = SimpleQueue()
        for canary in canaries:
            self._canaries.put(canary)
        self._lanes = len(canaries)
        self.worker, self.launcher = until(lambda: _standing(node), what="a worker and its launcher")

    def warm(self, cases: Sequence[Case]) -> Traces:
        """Run so many jobs of each profile that the pools hold as many as they ever will; return what stands then."""
        canary = self._canaries.get()
        for case in cases:
            for job_id in [self.submit(case, canary) for _ in range(_WARM)]:
                self.ended(job_id)
        self._canaries.put(canary)
        before, quiet = self.traces(), 0
        # On a drowning machine nothing may move for a while before the pools have begun to fill.
        while quiet < _QUIET_LOOKS or before.processes["crank-supervisor"] < len(cases):
            time.sleep(_LOOK_SEC)
            now = self.traces()
            before, quiet = now, quiet + 1 if now == before else 0
        return before

    def traces(self) -> Traces:
        """Look at the host."""
        return traces(self.worker, self.launcher)

    def worker_memory_bytes(self) -> int:
        """Return the worker's resident memory."""
        return memory_bytes(self.worker)

    def settled(self, before: Traces) -> Traces:
        """Return what is left once nothing more goes away."""
        deadline = time.monotonic() + _SETTLE_SEC
        while (after := self.traces()).has_more_than(before) and time.monotonic() < deadline:
            time.sleep(_LOOK_SEC)
        return after

    def run(self, case: Case, canary: Canary) -> dict[str, Any]:
        """Run one job to its end; return its document."""
        return self.ended(self.submit(case, canary))

    def submit(self, case: Case, canary: Canary) -> str:
        """Submit one job; return its id."""
        answer = self.api.submit(request_of(case, canary))
        assert answer.status_code in (200, 202), answer.text
        return str(answer.json()["job_id"])

    def ended(self, job_id: str) -> dict[str, Any]:
        """Return a job's document once it has ended; the node holds the answer until then."""
        deadline = time.monotonic() + _ENDED_SEC
        while True:
            document: dict[str, Any] = self.api.http.get(f"/v1/jobs/{job_id}", headers={"Prefer": "wait=20"}).json()
            if document.get("end") or time.monotonic() > deadline:
                return document

    def all_wrongs(self, cases: Sequence[Case], pairs: Sequence[Pair]) -> dict[str, list[str]]:
        """Run everything, several at a time; return what was wrong with each, by name."""
        with ThreadPoolExecutor(self._lanes) as lanes:
            wrong = list(lanes.map(lambda case: self._in_lane(lambda canary: self.wrongs(case, canary)), cases))
            paired = list(lanes.map(lambda pair: self._in_lane(lambda canary: self.pair_wrongs(pair, canary)), pairs))
        names = [*(case.name for case in cases), *(pair.name for pair in pairs)]
        return dict(zip(names, [*wrong, *paired], strict=True))

    def _in_lane(self, work: Callable[[Canary], list[str]]) -> list[str]:
        canary = self._canaries.get()
        try:
            return work(canary)
        except Exception as fault:
            # One case that cannot be run must not hide what became of the others.
            return [f"it could not be judged: {fault!r}"]
        finally:
            self._canaries.put(canary)

    def judged(self, case: Case, document: dict[str, Any], canary: Canary) -> list[str]:
        """Return what was wrong with one job that has ended."""
        if not document.get("end"):
            return [f"it has not ended: {document}"]
        seen = judge.seen_document(document)
        wall_sec = TIGHT_WALL_SEC if not case.askable else None
        wrong = judge.wrongs(case, seen, wall_sec=wall_sec) + canary.wrongs(seen.everything)
        if document["tier"] != "namespaces":
            wrong.append(f"its tier was {document['tier']}")
        return wrong

    def wrongs(self, case: Case, canary: Canary) -> list[str]:
        """Run one case with a neighbour beside it and a job after it; return everything that was wrong."""
        attack, neighbour = self.submit(case, canary), self.submit(judge.VICTIM, canary)
        wrong = self.judged(case, self.ended(attack), canary)
        wrong += [f"the neighbour: {what}" for what in self.judged(judge.VICTIM, self.ended(neighbour), canary)]
        following = self.run(judge.NEXT, canary)
        return wrong + [f"the next job: {what}" for what in self.judged(judge.NEXT, following, canary)]

    def pair_wrongs(self, pair: Pair, canary: Canary) -> list[str]:
        """Run two jobs, one after or beside the other; return everything that was wrong."""
        if not pair.together:
            first, second = self.run(pair.first, canary), self.run(pair.second, canary)
            if pair.differ:
                return differences(pair, first["result"], second["result"]) + canary.wrongs(repr((first, second)))
            return self.judged(pair.first, first, canary) + self.judged(pair.second, second, canary)
        holding = self.submit(pair.first, canary)
        self._await_word(holding, "ready")
        wrong = [f"the second: {what}" for what in self.judged(pair.second, self.run(pair.second, canary), canary)]
        self.api.http.post(f"/v1/jobs/{holding}/cancel")
        return wrong + [f"the first: {what}" for what in self.judged(pair.first, self.ended(holding), canary)]

    def _await_word(self, job_id: str, word: str) -> None:
        """Follow a job's output until a word has come. Fails when the job ends without it."""
        with self.api.http.stream("GET", f"/v1/jobs/{job_id}/events") as events:
            assert any(word in line for line in events.iter_lines()), self.api.job(job_id)
