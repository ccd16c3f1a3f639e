"""Sessions: what may follow what, which clock has run out, and who may still use one."""

from dataclasses import dataclass, replace

from crank.domain.job import Refusal
from crank.domain.outcome import Clock, End, Reason
from crank.domain.quantity import KEY_SHARE_PERCENT
from crank.domain.session import SENTENCES, Session, SessionEnd, SessionReason, SessionState

SESSION_ENDED = "session_ended"
# A worker's word for a session that it does not know; its controller believed otherwise.
SESSION_UNKNOWN = "session_unknown"
# What a lasting sandbox outlives; every other end of a job takes it along.
HARMLESS = frozenset({Reason.EXITED, Reason.RAISED})


@dataclass(frozen=True, slots=True)
class Clocks:
    """The two clocks of one session, in seconds of a monotonic clock.

    opened_sec  when its lifetime began
    used_sec    when its idle clock last began anew
    busy        a job runs in it, so that its idle clock stands still
    """

    idle_sec: float
    lifetime_sec: float
    opened_sec: float
    used_sec: float
    busy: bool = False


def expired(clocks: Clocks, now_sec: float) -> SessionReason | None:
    """Return which clock has run out, or None. Lifetime wins: it is the harder promise."""
    if now_sec - clocks.opened_sec >= clocks.lifetime_sec:
        return SessionReason.LIFETIME
    if not clocks.busy and now_sec - clocks.used_sec >= clocks.idle_sec:
        return SessionReason.IDLE
    return None


def begun(clocks: Clocks) -> Clocks:
    """A job begins to run: the idle clock stands still."""
    return replace(clocks, busy=True)


def rested(clocks: Clocks, now_sec: float) -> Clocks:
    """The job has ended: the idle clock begins anew."""
    return replace(clocks, busy=False, used_sec=now_sec)


def touched(clocks: Clocks, now_sec: float, idle_sec: float | None, lifetime_sec: float | None) -> Clocks:
    """Begin the idle clock anew; a number also changes that clock."""
    return replace(
        clocks,
        used_sec=now_sec,
        idle_sec=clocks.idle_sec if idle_sec is None else idle_sec,
        lifetime_sec=clocks.lifetime_sec if lifetime_sec is None else lifetime_sec,
    )


def opened(session: Session, tier: str, now_us: int) -> Session:
    """Note that the sandbox stands; one that is open or ended stays as it is."""
    if session.state is not SessionState.OPENING:
        return session
    return replace(session, state=SessionState.OPEN, tier=tier, opened_us=now_us, used_us=now_us)


def ended(session: Session, end: SessionEnd, now_us: int) -> Session:
    """End a session; the first end holds."""
    if session.ended:
        return session
    return replace(session, state=SessionState.ENDED, end=end, ended_us=now_us)


def used(session: Session, now_us: int) -> Session:
    """Note that its idle clock begins anew."""
    return session if session.ended else replace(session, used_us=max(session.used_us, now_us))


def share(whole: int) -> int:
    """Return what one key may take of so much: its part, rounded up, and never nothing."""
    return max(1, -(-whole * KEY_SHARE_PERCENT // 100))


def is_within_share(held_count: int, count_max: int, *, wanted_bytes: int = 0, bytes_max: int | None = None) -> bool:
    """Tell whether a key may open one more session. Its first is always within its share.

    held_count    sessions that it has open; count_max are all that there may be
    wanted_bytes  memory of those that it has and of the one that it wants; bytes_max is all that there is
    """
    if held_count == 0:
        return True
    return held_count < share(count_max) and (bytes_max is None or wanted_bytes <= share(bytes_max))


def refusal(session: Session) -> Refusal | None:
    """Return why a session takes no job any more, or None while it does."""
    if not session.ended:
        return None
    return Refusal(SESSION_ENDED, ended_sentence(session.end), "Open a new session with POST /v1/sessions.", "session")


def ended_sentence(end: SessionEnd | None) -> str:
    """Return that a session has ended, and why, for a person."""
    why = SENTENCES[SessionReason.CLOSED] if end is None else f"{end.sentence}"
    reason = "closed" if end is None else str(end.reason)
    return f"The session has ended ({reason}): {why}"


def job_end(end: SessionEnd | None) -> End:
    """Return how a job ends that never ran because its session had ended."""
    return End(Reason.REFUSED, code=SESSION_ENDED, message=ended_sentence(end))


def cut_off(end: SessionEnd) -> End:
    """Return how a job ends that ran when its session ended."""
    message = ended_sentence(end)
    if end.reason is SessionReason.LIFETIME:
        return End(Reason.TIMEOUT, clock=Clock.LIFETIME, code=SESSION_ENDED, message=message)
    return End(Reason.CANCELLED, code=SESSION_ENDED, message=message)


def clocks_refusal(
    idle_sec: float | None, lifetime_sec: float | None, *, idle_sec_max: float, lifetime_sec_max: float
) -> Refusal | None:
    """Return why these clocks are not granted, or None; the ceilings are the operator's."""
    for name, wanted, ceiling in (
        ("idle_sec", idle_sec, idle_sec_max),
        ("lifetime_sec", lifetime_sec, lifetime_sec_max),
    ):
        if wanted is not None and wanted > ceiling:
            return Refusal(
                "limit_out_of_range",
                f"{name} is at most {ceiling:g} s on this node.",
                "Ask for less, or let the node's operator raise that ceiling.",
                name,
            )
    return None
