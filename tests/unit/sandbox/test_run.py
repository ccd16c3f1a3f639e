"""One run as it is counted: which clock is late, what the guest may say, and evidence that stays small."""

import time
from typing import Any

import pytest

from crank.domain.json import dumps, loads_strict
from crank.domain.outcome import Clock
from crank.domain.profile import Limits
from crank.errors import ProtocolError
from crank.sandbox.frames import encode
from crank.sandbox.run import Run

TOKEN = b"0123456789abcdef"
END: dict[str, Any] = {"how": "done", "code": 0, "error": None, "hint": None, "note": None, "told": []}


def run(**limits: float) -> Run:
    """Return a run that has just begun, and whose guest said so."""
    begun = ordered(**limits)
    begun.take_words(TOKEN + encode("b", b""))
    return begun


def ordered(**limits: float) -> Run:
    """Return a run whose guest has not come to its first line."""
    return Run(Limits(**limits), TOKEN)  # type: ignore[arg-type]


def say(told: Run, kind: str, word: Any) -> None:
    """Let the guest say something."""
    told.take_words(TOKEN + encode(kind, dumps(word).encode()))


@pytest.mark.parametrize(
    ("limits", "after_sec", "clock"),
    [
        ({"wall_sec": 3, "idle_sec": 9, "no_output_sec": 9}, 2.9, None),
        ({"wall_sec": 3, "idle_sec": 9, "no_output_sec": 9}, 3, Clock.WALL),
        ({"wall_sec": 9, "idle_sec": 9, "no_output_sec": 2}, 2, Clock.NO_OUTPUT),
        ({"wall_sec": 9, "idle_sec": 2, "no_output_sec": 9}, 2, Clock.IDLE),
        ({"wall_sec": 2, "idle_sec": 2, "no_output_sec": 2}, 2, Clock.WALL),
        ({"wall_sec": 9, "idle_sec": 2, "no_output_sec": 2}, 2, Clock.NO_OUTPUT),
    ],
)
def test_the_clock_that_ran_out_is_told(limits: dict[str, float], after_sec: float, clock: Clock | None) -> None:
    """Each clock is late at its own limit and not before; of several the plainest is told."""
    begun = run(**limits)
    assert begun.late_clock(begun.began + after_sec) is clock
    assert begun.next_moment() <= begun.began + min(limits.values())


def test_output_moves_two_clocks_and_work_only_one() -> None:
    """Printing begins silence and idleness anew, CPU time only idleness; neither moves the wall clock."""
    printed = run(wall_sec=1_000, idle_sec=5, no_output_sec=5)
    printed.began -= 500
    printed._wrote_at = printed._worked_at = printed.began
    now = printed.began + 500
    assert printed.late_clock(now) is Clock.NO_OUTPUT
    printed.take_output("O", b"x")
    assert printed.late_clock(now) is None
    worked = run(wall_sec=1_000, idle_sec=5, no_output_sec=600)
    worked.began -= 500
    worked._wrote_at = worked._worked_at = worked.began
    assert worked.late_clock(now) is Clock.IDLE
    worked.worked(0.0001)
    assert worked.late_clock(now) is Clock.IDLE
    worked.worked(0.5)
    assert worked.late_clock(now) is None


def test_the_guests_last_word_is_its_claim() -> None:
    """An end of the agreed form is taken, and nothing may follow it."""
    ended = run()
    say(ended, "e", {**END, "how": "raised", "code": 1, "error": "E: x", "told": [["network", "look up a:1"]]})
    assert ended.claim is not None
    assert (ended.claim.how, ended.claim.code, ended.claim.error) == ("raised", 1, "E: x")
    assert ended.evidence() == [{"layer": "network", "action": "look up a:1", "count": 1, "told_by": "job"}]
    with pytest.raises(ProtocolError):
        say(ended, "g", {"fraction": 1, "message": ""})


@pytest.mark.parametrize(
    "word",
    [
        {**END, "how": "won"},
        {**END, "code": "0"},
        {**END, "code": True},
        {**END, "error": 3},
        {**END, "told": [["moat", "x"]]},
        {**END, "told": [["network", 3]]},
        {**END, "told": [["network"]]},
        {**END, "told": 3},
        {name: value for name, value in END.items() if name != "told"},
        [],
        None,
    ],
)
def test_an_end_of_another_form_is_refused(word: Any) -> None:
    """Evidence of a layer that nobody knows, too, is a broken word: its reader would lose the whole outcome."""
    with pytest.raises(ProtocolError):
        say(run(), "e", word)


def test_evidence_stays_small_and_keeps_the_kernels_word() -> None:
    """A job that tells a thousand things fills its own share only; equal ones are counted."""
    told = run()
    say(told, "e", {**END, "told": [["network", f"look up host{number}:1"] for number in range(1_000)]})
    own = len(told.evidence())
    assert own <= 20
    told.deny("cgroup", "more memory", told_by="kernel", count=2)
    told.deny("cgroup", "more memory", told_by="kernel")
    assert told.evidence()[own:] == [{"layer": "cgroup", "action": "more memory", "count": 3, "told_by": "kernel"}]


def test_a_run_has_one_beginning_before_its_words() -> None:
    """What the guest says before it told of its beginning, or a second beginning, is a broken word."""
    early = ordered()
    assert not early.reached
    with pytest.raises(ProtocolError):
        say(early, "g", {"fraction": None, "message": ""})
    begun = run()
    assert begun.reached
    with pytest.raises(ProtocolError):
        begun.take_words(TOKEN + encode("b", b""))


def test_what_the_kernel_is_asked_for_is_counted_and_not_kept_without_bound() -> None:
    """Thousands of different refusals are a hundred lines and a sum, so that the end can always be told."""
    told = run()
    for number in range(5_000):
        told.deny("seccomp", f"socket family {number} " + "ü" * 280, told_by="kernel")
    say(told, "e", {**END, "how": "raised", "code": 1, "error": "ü" * 25_000, "told": [["network", "ü" * 300]] * 20})
    evidence = told.evidence()
    assert len(evidence) <= 110
    assert sum(each["count"] for each in evidence if each["told_by"] == "kernel") == 5_000
    assert len(dumps(evidence).encode()) < 128 << 10


def test_a_flood_of_progress_costs_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what comes at once only the last is read, so that no flood keeps the supervisor from its clocks; it must hold."""
    read: list[bytes] = []

    def counted(octets: bytes) -> Any:
        read.append(octets)
        return loads_strict(octets)

    monkeypatch.setattr("crank.sandbox.run.loads_strict", counted)
    told, words = run(), [dumps({"fraction": n / 1_000, "message": "x"}).encode() for n in range(1_000)]
    told.take_words(b"".join(TOKEN + encode("g", word) for word in words))
    assert read == words[-1:]
    assert told.progress is not None
    assert loads_strict(told.progress) == {"fraction": 0.999, "message": "x"}
    for wrong in (b"[]", b'{"fraction": 2, "message": ""}', b'{"fraction": 1}', b"{"):
        with pytest.raises(ProtocolError):
            told.take_words(TOKEN + encode("g", words[0]) + TOKEN + encode("g", wrong))


@pytest.mark.parametrize("how", ["words", "bytes", "chunk"])
def test_who_has_us_read_without_end_is_not_heard_for_a_moment(how: str) -> None:
    """Thousands of reads of one word or byte are a flood, as are thousands of words in one; honest code is no flood."""
    word = TOKEN + encode("g", dumps({"fraction": 0.5, "message": "x"}).encode())
    told, now = run(), time.monotonic()
    for _ in range(20):
        told.take_words(word)
        told.take_output("O", b"x" * 64_000)
    assert told.quiet_until == 0.0
    if how == "words":
        for _ in range(60):
            told.take_words(word)
    elif how == "bytes":
        for _ in range(60):
            told.take_output("E", b"x")
    else:
        told.take_words(word * 1_200)
    assert now < told.quiet_until <= time.monotonic() + 0.1
