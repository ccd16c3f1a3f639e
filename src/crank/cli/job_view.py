"""A job for people and for programs."""

from typing import Any

from crank.cli.show import harmless, say, size_text
from crank.client import JobResult
from crank.errors import CrankError


def job_object(job: JobResult) -> dict[str, Any]:
    """Return the one object that `crank run --json` prints."""
    document = job.document
    shown: dict[str, Any] = {"job_id": job.job_id, "status": job.status, "end": _present(document.get("end"))}
    for name in ("stdout", "stderr", "result", "metrics", "artifacts", "tier"):
        shown[name] = document.get(name)
    shown["artifacts"] = shown["artifacts"] or []
    for name in ("layers", "displays", "skipped", "denials", "notes"):
        if document.get(name):
            shown[name] = document[name]
    return shown


def refusal_object(fault: CrankError, job_id: str | None) -> dict[str, Any]:
    """Return the same object for a job that was refused before it ran."""
    end = {"reason": "refused", "code": fault.error_code, "message": fault.message, "fix": fault.fix}
    return {
        "job_id": job_id,
        "status": "refused",
        "end": _present({**end, "field": fault.field}),
        "stdout": "",
        "stderr": "",
        "result": None,
        "metrics": None,
        "artifacts": [],
        "tier": None,
    }


def _present(end: Any) -> dict[str, Any] | None:
    return None if end is None else {name: value for name, value in end.items() if value is not None}


def end_sentence(job: JobResult) -> str:
    """Return one line on how a job ended."""
    end = job.end
    if end is None:
        return f"job {job.job_id} is {job.status}" + (f": {job.pending}" if job.pending else "")
    parts = {"exit code": end.exit_code, "signal": end.signal, "clock": end.clock, "code": end.code}
    details = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    sentence = f"job {job.job_id} {job.status}: {end.reason}" + (f" ({details})" if details else "")
    return sentence + (f". {end.message}" if end.message else "")


def used_lines(job: JobResult) -> list[str]:
    """Return lines on what a job used and what held it; none where nothing of it ran."""
    if job.metrics is None:
        return []
    used = job.metrics
    peak = "unknown" if used.peak_memory_bytes is None else size_text(used.peak_memory_bytes)
    tasks = "" if used.tasks_peak is None else f", {used.tasks_peak} process(es) and thread(s)"
    ready = "stood ready" if used.pool_hit else "raised for it"
    walls = f": {', '.join(job.layers)}" if job.layers else ""
    return [
        f"used       {used.wall_sec:.2f} s wall, {used.cpu_sec:.2f} s cpu, {peak} memory{tasks}",
        f"sandbox    {job.tier or '-'}{walls} ({ready}, {used.setup_sec * 1000:.1f} ms)",
    ]


def evidence_lines(job: JobResult) -> list[str]:
    """Return a line for each thing that a layer refused, with whose word it is, then the notes."""
    told = {"job": ", told by the job", "kernel": ", counted by the kernel"}
    lines = []
    for denial in job.denials:
        times = f" {denial.count} times" if denial.count > 1 else ""
        lines.append(f"refused    {denial.action}{times} ({denial.layer}{told.get(denial.told_by, '')})")
    return lines + [f"note       {sentence}" for sentence in job.notes]


def tell_job(job: JobResult) -> None:
    """Tell a person everything about a job that is not its output."""
    print(f"job        {job.job_id}")
    print(f"status     {job.status}" + (f" ({job.pending})" if job.pending else ""))
    print(f"capability {job.capability} {job.version or ''}".rstrip())
    if job.session_id is not None:
        print(f"session    {job.session_id}   context {job.context}")
    if job.called_by is not None:
        by = job.called_by
        print(f"called by  {by['job_id']}   call {by['number']} of its attempt {by['epoch']}, handle {harmless(by['handle'])}")
    if job.handles:
        print(f"handles    {', '.join(job.handles)}")
    print(f"submitted  {job.submitted_at}   started {job.started_at or '-'}   ended {job.ended_at or '-'}")
    print(f"worker     {job.worker_id or '-'}   attempts {job.attempts}")
    if job.end is not None:
        print(f"end        {harmless(end_sentence(job))}")
    for line in (*used_lines(job), *evidence_lines(job)):
        print(harmless(line))
    for artifact in job.artifacts:
        print(f"artifact   {harmless(artifact.path)} ({size_text(artifact.size_bytes)})")
    for skipped in job.skipped:
        say(f"not collected: {skipped.path}: {skipped.cause}")
