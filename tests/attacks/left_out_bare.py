"""What does not hold, or cannot be asked the same way, on the tier without namespaces: a published list with reasons.

docs/explanation/tiers.md says the same to operators. What can be asked differently is, in `cases_bare`.
"""

_SEEN = "Weaker: names and attributes of the host's files and numbers of its processes can be seen, contents cannot (T04, T09)."
_ASKED = "Asked by listing / or /proc, which are closed here; T01, T04 and T06 ask for the same otherwise."
_IDS = "Weaker by name: the job has the account's own id, not a mapped one."
_NAMED = "Weaker: the real place of its folders, and variables that tell it, can be seen by a job."
_DISK = "Different: no write is refused for want of room; the job is ended as `disk` instead."
_COUNTED = "Weaker where no control group counts: the kernel counts the processes of all jobs together, as their account's."
_LOCKS = "Weaker: locks on files of the profile are shared by its jobs."

LEFT_OUT_BARE = {
    "A13 unshare, clone and setns of every namespace": _ASKED,
    "A24 openat2 with every resolve flag, O_PATH, reopening and fchdir end where open ends": _ASKED,
    "B01 own status": _IDS,
    "B04 becoming somebody else": _IDS,
    "B07 only own processes, and killing everybody kills nobody else": _ASKED,
    "B07 the canary cannot be signalled, seen, slowed or stopped": _SEEN,
    "B07 X52 signals to every number do not reach a neighbour": "Its own number is among them here, so it ends itself; T01 leaves that out.",
    "B09 the first process keeps its own": _ASKED,
    "B10 no way out through /proc links and open folders": _ASKED,
    "B10 the canary cannot be reached by its path, from anywhere": _SEEN,
    "B12 I04 no tool of a container, a network or a shell is there, and none can be brought": (
        "A program below Python is started by its real path; that nothing in its folders can be executed is Landlock's, in A25."
    ),
    "B13 what reconnaissance tools look for is not there": _SEEN,
    "X16 stopping, killing and continuing the first process from inside": _ASKED,
    "E07 a new session, a new group and an orphan are still the job's": _ASKED,
    "C01 what can be written cannot be run": "Weaker: what it wrote cannot be executed, but it can be mapped as code.",
    "C03 C06 nothing of the host": _SEEN,
    "C04 the root holds what the profile lists, and the table of mounts names nothing of the host": _ASKED,
    "C07 only five harmless devices": _SEEN,
    "C13 a lock that one job holds on a file of the profile is not seen by another": _LOCKS,
    "C13 X51 a lock on a range of a file of the profile is not seen by another": _LOCKS,
    "G09 an archive with links, absolute names and devices, unpacked as carelessly as can be": (
        "It looks at its own /etc/passwd, which there is none of here."
    ),
    "D09 every folder that can be written filled, errors ignored": _DISK,
    "D10 every kind of descriptor until there are no more": "It opens /, which is closed here.",
    "J01 the environment is the declared list": _NAMED,
    "J01 also in the kernel's own copy": "The kernel's copy is closed here.",
    "J03 no descriptor of ours leads out": _NAMED,
    "J03 a started program inherits nothing more, and a program that is not listed does not start": (
        "A started program may not read /proc/self here, not even its own."
    ),
    "X96 processes that one job has, as many as it may, leave another its own": _COUNTED,
    "H07 numbers of processes, mounts and groups, names and counters do not show the other job": _ASKED,
}
