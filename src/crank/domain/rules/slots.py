"""How many more jobs a worker takes, on both sides of the link."""


def free(slots: int, held: int, waiting: int, called: int, *, called_for: bool = False) -> int:
    """Return how many more jobs fit.

    slots, held   places, and jobs that have one
    waiting       of those held, how many wait for a job that they called for: each lends its place
    called        of those held, how many were called for by another job: they fill the lent places first
    called_for    whether it is asked for a job that another one called for; no other gets a lent place
    """
    in_lent = min(waiting, called)
    lent = waiting if called_for else in_lent
    return max(0, slots + lent - held)
