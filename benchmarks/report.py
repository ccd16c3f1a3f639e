"""The report: what was promised beside what was found, ratios to the neighbours, and a table for people."""

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.crank_ways import Rate
from rich.console import Console
from rich.table import Table

_BARE = "python"
_BUBBLEWRAP = "bubblewrap + python"


@dataclass(frozen=True, slots=True)
class Promise:
    """One line of the project's numbers. `found` is None where it could not be measured here.

    at_least  more is better; otherwise less is
    """

    what: str
    unit: str
    must: float
    aim: float
    found: float | None
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Return `aim`, `must`, `missed` or `not measured`."""
        if self.found is None:
            return "not measured"
        for word, bound in (("aim", self.aim), ("must", self.must)):
            if (self.found >= bound) if self.at_least else (self.found <= bound):
                return word
        return "missed"


def rate(measured: Rate) -> dict[str, Any]:
    """Return a rate as the report shows it.

    cpu_ms_per_job  of our own processes, so far as the kernel tells who waited for whom: not more than this truly was
    machine_cpu_ms_per_job  all CPU that the machine used meanwhile, whoever used it: not less than this truly was
    """
    return {
        "jobs": measured.jobs,
        "success": round(measured.jobs / max(1, measured.jobs + measured.failed), 4),
        "per_sec": round(measured.per_sec, 1),
        "per_sec_and_core": round(measured.per_sec / (os.cpu_count() or 1), 1),
        "cpu_ms_per_job": round(measured.cpu_ms_per_job, 2),
        "machine_cpu_ms_per_job": round(measured.machine_cpu_ms_per_job, 2),
    }


def promises(found: dict[str, Any]) -> list[Promise]:
    """Return the lines of the design's numbers that this run can say something about."""
    latency, profiles, rates = found["latency"], found["profiles"], found["end_to_end"]
    lines = []
    for name in profiles:
        short = name.removeprefix("python-")
        miss = (25.0, 12.0) if short == "ml" else (15.0, 8.0)
        fresh = (50.0, 100.0) if short == "ml" else (100.0, 200.0)
        per_core = profiles[name]["fresh_sandboxes"]["per_sec_and_core"]
        lines += [
            Promise(f"parked, {short}: dispatch to result", "ms p50", 2.0, 0.5, _p50(latency, f"Crank {name}, parked")),
            Promise(f"pool miss, {short}", "ms p50", *miss, _p50(latency, f"Crank {name}, pool miss")),
            Promise(f"fresh sandboxes, {short}", "/s and core", *fresh, per_core, at_least=True),
        ]
    noop = rates.get("noop_jobs", {})
    in_flight = rates.get("in_flight")
    lines += [
        Promise("HTTPS and durable store, parked core", "ms p50", 8.0, 4.0, _p50(latency, "Crank end to end")),
        Promise(
            f"no-op capability, {in_flight} in flight", "jobs/s", 600.0, 1000.0, noop.get("per_sec"), at_least=True
        ),
        Promise(
            f"no-op capability, {in_flight} in flight", "CPU ms a job", 2.5, 1.5, noop.get("machine_cpu_ms_per_job")
        ),
        Promise("crank --help", "s p50", 0.4, 0.2, round(found["help_sec"], 3)),
    ]
    return lines + _identity_promises(found["identity_rates"], found["identity"])


def _identity_promises(rates: dict[str, Any], node: dict[str, Any]) -> list[Promise]:
    def each(name: str) -> float | None:
        return rates.get(name, {}).get("per_cpu_sec")

    added = node.get("added_latency", {})
    lines = [Promise("SVIDs issued from requests", "/s of CPU", 400.0, 700.0, each("SVID from CSR"), at_least=True)]
    lines += [
        Promise(f"verified: {name}", "/s of CPU", 1500.0, 4000.0, each(name), at_least=True)
        for name in ("at+jwt, signature and claims", "at+jwt, admitted again", "Biscuit, one block")
    ]
    lines += [
        Promise(f"added by authentication: {name}", "ms p50", 2.0, 0.5, added.get(name, {}).get("added_ms_p50"))
        for name in ("key", "token", "token, proven", "Biscuit, proven")
    ]
    # Who is to be believed is to be known everywhere within a second.
    fed_sec = node.get("watchers", {}).get("rotated_sec")
    revoked = node.get("revocation", {})
    return [
        *lines,
        Promise("500 watchers fed on rotation", "s", 1.0, 0.5, fed_sec),
        Promise("revoked worker cut off", "s", 1.0, 0.3, revoked.get("cut_off_sec")),
        Promise("500 watchers told of a revocation", "s", 1.0, 0.3, revoked.get("told_sec")),
    ]


def _p50(latency: dict[str, Any], name: str) -> float | None:
    return latency.get(name, {}).get("p50_ms")


def finish(found: dict[str, Any], notes: list[str]) -> dict[str, Any]:
    """Return the whole report as JSON."""
    latency = found["latency"]
    for neighbour, key in ((_BARE, "p50_over_python"), (_BUBBLEWRAP, "p50_over_bubblewrap")):
        floor = _p50(latency, neighbour)
        for entry in latency.values():
            if floor and "p50_ms" in entry:
                entry[key] = round(entry["p50_ms"] / floor, 4)
    return {
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "root": os.geteuid() == 0,
            "load_average": list(os.getloadavg()),
        },
        **found,
        "promises": [{**asdict(promise), "verdict": promise.verdict} for promise in promises(found)],
        "notes": notes,
    }


def show(numbers: dict[str, Any]) -> None:
    """Print tables for people."""
    console = Console(width=140)
    machine = numbers["machine"]
    console.print(
        f"{machine['cores']} cores, Linux {machine['kernel']}, Python {machine['python']}, load {machine['load_average']}"
    )
    table = Table(
        "print(1+1)", "p50 ms", "p95 ms", "p99 ms", "× python", "× bubblewrap", "success", "n", "score", "what it is"
    )
    for name, run in sorted(numbers["latency"].items(), key=lambda entry: entry[1].get("p50_ms", 1e9)):
        cells = [run.get(f"p{percent}_ms") for percent in (50, 95, 99)]
        ratios = [run.get(f"p50_over_{other}") for other in ("python", "bubblewrap")]
        table.add_row(
            name, *("–" if cell is None else f"{cell:.2f}" for cell in cells), *("–" if each is None else f"{each:.3f}" for each in ratios),
            f"{run['success']:.1%}", str(run["n"]), f"{run['score']:.2f}", run["note"],
        )  # fmt: skip
    console.print(table)
    _show_rates(console, numbers)
    _show_identity(console, numbers)
    table = Table("promised", "unit", "must", "aim", "found", "reached")
    for promise in numbers["promises"]:
        found = "–" if promise["found"] is None else f"{promise['found']:g}"
        table.add_row(
            promise["what"], promise["unit"], f"{promise['must']:g}", f"{promise['aim']:g}", found, promise["verdict"]
        )
    console.print(table)
    for note in numbers["notes"]:
        console.print(f"note: {note}", markup=False)


def _show_identity(console: Console, numbers: dict[str, Any]) -> None:
    table = Table("identity", "/s of CPU", "/s", "× bare signature", "of")
    for name, found in numbers["identity_rates"].items():
        share = found.get("share")
        cells = (f"{found['per_cpu_sec']:g}", f"{found['per_sec']:g}", "–" if share is None else f"{share:g}")
        table.add_row(name, *cells, found.get("of", "–"))
    console.print(table)
    for part in ("watchers", "revocation", "root_change"):
        if part in numbers["identity"]:
            told = ", ".join(f"{name} {value:g}" for name, value in numbers["identity"][part].items())
            console.print(f"{part.replace('_', ' ')}: {told}", markup=False)


def _show_rates(console: Console, numbers: dict[str, Any]) -> None:
    table = Table("rate", "/s", "/s and core", "CPU ms each (ours)", "(machine)", "success")
    rows = {f"fresh sandboxes, {name}": found["fresh_sandboxes"] for name, found in numbers["profiles"].items()}
    rows |= {name.replace("_", " "): found for name, found in numbers["end_to_end"].items() if isinstance(found, dict)}
    for name, found in rows.items():
        cells = (found["per_sec"], found["per_sec_and_core"], found["cpu_ms_per_job"], found["machine_cpu_ms_per_job"])
        table.add_row(name, *(f"{cell:g}" for cell in cells), f"{found['success']:.1%}")
    console.print(table)
    table = Table("one more parked sandbox", "processes", "private MiB", "Pss MiB", "control group MiB")
    for name, found in numbers["profiles"].items():
        memory = found["memory_per_parked"]
        keys = ("processes", "private_mib", "pss_mib", "cgroup_mib")
        table.add_row(name, *("not readable" if memory[key] is None else f"{memory[key]:g}" for key in keys))
    console.print(table)
