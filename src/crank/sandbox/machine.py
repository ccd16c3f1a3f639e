"""What a job reads about the machine in /proc: its shape, which every job sees alike, never its load.

The real files tell one job when another works, computes or allocates. Written once, when a zygote's cell is
raised, and laid over the real ones in every cell.
"""

import os

_KIB = 1024
_FIELDS = " ".join(["0"] * 10)


def files() -> dict[str, bytes]:
    """Return the content of each file of /proc that is replaced, by name (proc(5))."""
    cpus = range(os.cpu_count() or 1)
    total_kib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _KIB
    memory = {"MemTotal": total_kib, "MemFree": total_kib, "MemAvailable": total_kib}
    memory |= dict.fromkeys(("Buffers", "Cached", "SwapCached", "SwapTotal", "SwapFree", "Shmem"), 0)
    stat = [f"cpu  {_FIELDS}", *(f"cpu{number} {_FIELDS}" for number in cpus)]
    stat += ["intr 0", "ctxt 0", "btime 0", "processes 0", "procs_running 1", "procs_blocked 0"]
    return {
        "loadavg": b"0.00 0.00 0.00 1/1 1\n",
        "meminfo": "".join(f"{name + ':':<16}{value:>8} kB\n" for name, value in memory.items()).encode(),
        "stat": "".join(f"{line}\n" for line in stat).encode(),
        "uptime": b"0.00 0.00\n",
    }
