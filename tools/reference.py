"""Writes the pages of docs/reference that follow from the code, so that they cannot lie.

`make reference` writes them; tests/test_docs.py compares. What a person must say (the sentences around
the tables) stands in this file.
"""

import ast
import dataclasses
import inspect
import re
import typing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from crank import __version__, errors, wire
from crank.adapters.profile_store.source import read_profile
from crank.api.app import build_api
from crank.api.metrics import FAMILIES
from crank.api.problem import status_of
from crank.bootstrap.profiles import FIRST_PROFILES
from crank.cli import main as cli
from crank.cli.exit_codes import MEANINGS
from crank.config import FILE_NAME, Settings
from crank.controller.desk import Policy
from crank.domain import quantity
from crank.domain.ids import Digest
from crank.domain.isolation import Tier
from crank.domain.job import status_of as job_status_of
from crank.domain.outcome import LAYERS, TOLD_BY, Clock, Denial, End, Outcome, Reason
from crank.domain.profile import LIMIT_RANGES, Limits, Profile
from crank.domain.rules.instructions import Facts, instructions
from crank.errors import CrankError
from crank.ports import ProfileBuild
from crank.worker.offers import script_offers

REPO = Path(__file__).resolve().parents[1]
SOURCE = REPO / "src" / "crank"
FOLDER = REPO / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py; change the code or that file, then run: make reference -->\n"


def row(*cells: object) -> str:
    """Return a line of a Markdown table."""
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(*heads: str) -> list[str]:
    """Return the head of a Markdown table."""
    return [row(*heads), "|" + "---|" * len(heads)]


def doc_fields(kind: type) -> dict[str, str]:
    """Return what a class's docstring says of its fields: lines `name   sentence`, `a, b   sentence`."""
    found: dict[str, str] = {}
    for line in (inspect.getdoc(kind) or "").splitlines():
        match = re.match(r"([a-z_0-9]+(?:, [a-z_0-9]+)*) {2,}(\S.*)", line)
        if match:
            found.update(dict.fromkeys(match.group(1).split(", "), match.group(2)))
    return found


# --- errors ----------------------------------------------------------------------------------

# A refusal is a value: who raises it says of what kind it is, which is the same for all of a file of rules.
REFUSED_AS = {
    **dict.fromkeys(("enrolment", "exchange", "grant", "role", "standing"), "NotAllowed"),
    **dict.fromkeys(("federation", "root_rotation", "session"), "Conflict"),
    **dict.fromkeys(("delegation", "token"), "NotAuthenticated"),
}


def raised_codes() -> dict[str, tuple[str, str]]:
    """Return every code that the source raises or refuses with: its kind, and an example of its sentence."""
    kinds = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, CrankError)}
    found: dict[str, tuple[str, str]] = {}
    for name in sorted(kinds):
        found[str(getattr(errors, name).code)] = (name, (inspect.getdoc(getattr(errors, name)) or "").splitlines()[0])
    for file in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            kind = getattr(node.func, "id", getattr(node.func, "attr", ""))
            code = next((word.value for word in node.keywords if word.arg == "code"), None)
            if kind == "Refusal" and node.args:
                code, kind = node.args[0], REFUSED_AS.get(file.stem, "InvalidRequest")
            if isinstance(code, ast.Constant) and isinstance(code.value, str) and kind in kinds:
                # A refusal says its code first, a fault its sentence.
                said = node.args[1:] if code in node.args else node.args
                before, told = found.get(code.value, (kind, ""))
                found[code.value] = (before, told or _sentence(said) or _sentence(node.args))
    return found


def _sentence(arguments: list[ast.expr]) -> str:
    first = arguments[0] if arguments else None
    if isinstance(first, ast.Constant):
        return str(first.value)
    if isinstance(first, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in first.values)
    return ""


def errors_page() -> str:
    """Return the page of fault codes."""
    lines = [
        "# Errors",
        "",
        "Every fault has a stable `code` that is never used again for something else. Over HTTPS it is a problem document (RFC 9457),",
        "`application/problem+json`: `type`, `title`, `status`, `detail` (the sentence), `code`, `field`, `fix`, and `problems` (one entry",
        '`{field, cause, fix}` for each thing that is wrong). `crank … --json` prints the same as `{"error": {…}}`.',
        "",
        *table("Code", "HTTP", "Kind", "What it says"),
    ]
    refusals = {"unsatisfied-capability": "No known worker can ever run this; `field` is the constraint that failed.",
                "no-local-satisfier": "No worker on the node that owns the mounts could run this."}  # fmt: skip
    codes = raised_codes()
    codes.update({code: ("InvalidRequest", sentence) for code, sentence in refusals.items()})
    # Codes whose sentence, or whose name, is put together where they are raised.
    codes |= {
        "invalid_revocations": ("InvalidRequest", "A list of revocations names a serial, a number or a time that cannot be."),
        "request_refused": ("InvalidRequest", "A host sends its bridge an id that is in use, or too much at once."),
        "session_dead": ("SandboxError", "This sandbox has ended."),
        "session_ended": ("Conflict", "The session has ended; the sentence says for which reason."),
        "session_mismatch": ("InvalidRequest", "What `field` names was said when the session was opened."),
    }
    for code, (kind, sentence) in sorted(codes.items()):
        lines.append(row(f"`{code}`", _http_status(kind, code), kind, sentence))
    lines += [
        "",
        "A sandbox layer that cannot be raised has the code `layer_<name>`; `crank doctor` names the layer and what to do. What ends a",
        "job is not an error of the API: see [reasons](job.md#reasons). Exit codes of the command line are in [cli](cli.md#exit-codes).",
    ]
    return "\n".join(lines) + "\n"


def _http_status(kind: str, code: str) -> str:
    if kind == "CapabilityError":
        return "–"  # ends a job; never an answer of the API
    return str(status_of(getattr(errors, kind)("", code=code)))


# --- command line ----------------------------------------------------------------------------


def cli_page() -> str:
    """Return the page of verbs."""
    lines = [
        "# Command line",
        "",
        "Data goes to stdout, talk to stderr. `--json` prints one JSON object, also for errors. Every verb explains itself with `--help`.",
        "",
        *table("Command", "What it does"),
    ]
    lines += [row(f"`crank {name}`", summary) for name, _, summary in cli._VERBS]
    lines += [row(f"`crank {group} {name}`", text) for group, _, verbs in cli._GROUPS for name, _, text in verbs]
    lines += [
        "",
        "`crank run --json` prints the job's document: `job_id`, `status`, `end`, `stdout`, `stderr`, `result`, `metrics`, `artifacts`, `tier` and the rest of",
        "[its fields](job.md). `crank run -` reads the script from stdin. `--arg n=10` is JSON if it parses, else text.",
        "",
        "## Exit codes",
        "",
        *table("Code", "Meaning"),
    ]
    lines += [row(int(code), meaning) for code, meaning in MEANINGS.items()]
    return "\n".join(lines) + "\n"


# --- HTTP ------------------------------------------------------------------------------------


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document that a node serves."""
    desk: Any = SimpleNamespace(clock=None)
    document: dict[str, Any] = build_api(desk, version="0").openapi()
    return document


def http_page() -> str:
    """Return the page of HTTP routes."""
    lines = [
        "# HTTP API",
        "",
        "TLS with `Authorization: Bearer <secret>`; `crank node info --json` names the address, the `ca_file` that proves it and the `token_file` with",
        "the secret. The whole contract is `/openapi.json` (OpenAPI 3.1), to be tried out at `/docs`. Bodies are strict JSON: unknown fields, duplicate",
        "names and guessed types are refused.",
        "",
        *table("Method and path", "What it does", "Answers"),
    ]
    for path, methods in sorted(openapi_document()["paths"].items()):
        for method, operation in methods.items():
            if method in {"get", "put", "post", "delete", "head"}:
                answers = ", ".join(sorted(operation["responses"]))
                what = operation.get("summary") or operation.get("description", "").splitlines()[0]
                lines.append(row(f"`{method.upper()} {path}`", what, answers))
    lines += [
        "",
        "`POST /v1/jobs` takes `Idempotency-Key` ([meaning](../adr/0006-idempotency.md)), `traceparent`, and `Prefer: wait=N` (N ≤ "
        f"{quantity.WAIT_SEC_MAX}): 200 with the end, or 202 with the job as it stands.",
        "",
        "`GET /v1/jobs/{job_id}/events` is a stream of server-sent events: `id` is the position, `event` is `stdout`, `stderr`, `progress`, `status` or",
        "`end`, `data` is JSON. `Last-Event-ID` or `?after=` resumes after a position. `end` comes last and carries the job.",
    ]
    return "\n".join(lines) + "\n"


# --- configuration ---------------------------------------------------------------------------


def configuration_page() -> str:
    """Return the page of settings."""
    from crank.config import _defaults, _said

    defaults = {name: _said(value) for name, value in _defaults(Path("$CRANK_HOME")).items()}
    defaults |= {"profiles_source": "the shipped profiles", "worker_slots": "number of processors, at least 2"}
    said = doc_fields(Settings)
    also = {
        "home": "folder that holds all state of the node",
        "worker_name": "name of this node's own worker",
        "trust_domain": "SPIFFE trust domain of the node's authority",
        "queued_max": "jobs that may wait; more are answered with 503 `queue_full`",
        "blobs_quota_bytes": "bytes of blobs that are kept; beyond, 503 `quota_exceeded`",
        "api_port": "port of the API; 0 takes any free one",
        "workers_port": "port for workers; 0 takes any free one",
    }
    lines = [
        "# Configuration",
        "",
        f"A value comes from, weakest first: the default, `$CRANK_HOME/{FILE_NAME}`, the environment, a flag. Every mistake is found before any is told.",
        "",
        *table("Variable", f"Key in {FILE_NAME}", "Default", "Meaning"),
        row("`CRANK_HOME`", "–", "the user's data directory (XDG), `crank`", also["home"]),
    ]
    for entry in dataclasses.fields(Settings):
        if entry.name in {"home", "build_environment", "ceilings"}:
            continue
        meaning = also.get(entry.name) or said.get(entry.name, "")
        default = defaults.get(entry.name) or "–"
        lines.append(row(f"`CRANK_{entry.name.upper()}`", f"`{entry.name}`", default, meaning))
    lines += [
        "",
        "## Ceilings",
        "",
        "`CRANK_LIMIT_<NAME>` (`limit_<name>` in crank.toml) is the most that any profile may give a job on this machine, for each limit of",
        "[limits](limits.md#of-a-job). A profile that gives more is lowered when the worker starts; `crank profile list` says where, `GET /v1/capabilities`",
        "shows what holds, and a request for more is refused. Ranges are those of the limits; there is no value for \"unlimited\".",
        "",
        *table("Variable", f"Key in {FILE_NAME}", "Range"),
    ]
    for name, (low, high) in LIMIT_RANGES.items():
        lines.append(row(f"`CRANK_LIMIT_{name.upper()}`", f"`limit_{name}`", f"{_spaced(low)} to {_spaced(high)}"))
    lines += [
        "",
        "Profile builds use pip, and pip's own settings (`PIP_*`, proxies) are passed on to it; nothing else of the environment is.",
    ]
    return "\n".join(lines) + "\n"


def _spaced(value: float) -> str:
    """Return a number in full, with its thousands apart."""
    return f"{value:,.12g}".replace(",", " ")


# --- limits, profiles, job, wire ------------------------------------------------------------


def limits_page() -> str:
    """Return the page of ceilings."""
    lines = ["# Limits", "", "## Of a request", "", *table("Limit", "Value")]
    for name, value in vars(quantity).items():
        if name.isupper() and name not in {"KIB", "MIB", "GIB"}:
            lines.append(row(f"`{name}`", f"{value:,}".replace(",", " ")))
    lines += [
        "",
        "## Of a job",
        "",
        "A profile sets them, an operator may set [ceilings](configuration.md#ceilings) over all profiles, and a request may lower `timeout_sec` (the wall clock),",
        "`cpu_sec`, `idle_sec`, `no_output_sec` and `memory_bytes`. Only how much output is kept (`max_output_bytes`) may be asked for beyond the profile,",
        "up to `OUTPUT_BYTES_MAX` and the operator's ceiling. None can be switched off.",
        "",
        *table("Limit", "Default", "Range", "Meaning"),
    ]
    said = doc_fields(Limits)
    for field in dataclasses.fields(Limits):
        low, high = LIMIT_RANGES[field.name]
        lines.append(
            row(
                f"`{field.name}`",
                _spaced(field.default),
                f"{_spaced(low)} to {_spaced(high)}",
                said.get(field.name, ""),
            )
        )
    return "\n".join(lines) + "\n"


def profiles_page() -> str:
    """Return the page of profile files."""
    said = doc_fields(Profile) | {
        "schema": "1",
        "locks": "files of hashed requirements beside the profile, per accelerator: `cpu`, `gpu`",
        "self_test": "`[[self_test]]` tables: `name`, `code`, and `expect` (`ok`, or the exception that it must end with)",
        "limits": "`[limits]`: see [limits](limits.md#of-a-job)",
        "name": "`python-core`; the file has the same name",
    }
    keys = ["schema", *(field.name for field in dataclasses.fields(Profile) if field.name != "self_tests"), "self_test"]
    lines = [
        "# Profiles",
        "",
        "A profile is `profiles/<name>.toml`. All its mistakes are told at once.",
        "",
        *table("Key", "Meaning"),
    ]
    lines += [row(f"`{key}`", said.get(key, "")) for key in keys]
    lines += ["", "## Shipped", "", *table("Profile", "Capability", "Summary")]
    for file in sorted((REPO / "profiles").glob("*.toml")):
        import tomllib

        source = tomllib.loads(file.read_text("utf-8"))
        lines.append(row(f"`{source['name']}`", f"`{source['capability']}`", source["summary"]))
    return "\n".join(lines) + "\n"


def job_page() -> str:
    """Return the page of a job's request and answer."""
    schemas = openapi_document()["components"]["schemas"]
    lines = ["# Job", "", "## Request", "", *table("Field", "Meaning")]
    for part, prefix in (
        ("JobWanted", ""),
        ("Constraints", "constraints."),
        ("FileWanted", "files[]."),
        ("MountWanted", "mounts[]."),
    ):
        for name, schema in schemas[part]["properties"].items():
            lines.append(row(f"`{prefix}{name}`", schema.get("description") or REQUEST.get(prefix + name, "")))
    lines += [
        "",
        "In the job: `args` is a global. The result is the global `result`, else the value of the last expression. `display(value)` adds a [rich result](rich-results.md),",
        "`progress(fraction, message)` tells how far it is. Mounts are `/in/<name>` (read-only), artifacts are what it leaves in `/out`, input files and scratch are",
        "`/scratch`.",
        "",
        "## Answer",
        "",
        *table("Field", "Meaning"),
    ]
    meanings = {**ANSWER, **doc_fields(Outcome), "end": "how it ended; null while it has not", "pending": "why it waits, as a sentence",
                "epoch": "counts the leases that were given", "tier": "the isolation that really held",
                "skipped": "what of /out was not collected, with the cause"}  # fmt: skip
    lines += [
        row(f"`{name}`", schema.get("description") or meanings.get(name, ""))
        for name, schema in schemas["JobDocument"]["properties"].items()
    ]
    lines += ["", "## End", "", *table("Field", "Meaning")]
    said = doc_fields(End) | {
        "reason": "one of the reasons below",
        "clock": f"for `timeout`: {', '.join(f'`{c}`' for c in Clock)}",
    }
    lines += [row(f"`{field.name}`", said.get(field.name, "")) for field in dataclasses.fields(End)]
    lines += ["", "## Reasons", "", *table("Reason", "Status", "Meaning")]
    lines += [row(f"`{reason}`", _statuses(reason), REASONS[reason]) for reason in Reason]
    lines += ["", "What counts, strongest first: a kill by Crank, what the kernel killed or refused, a broken word of the job, how its process",
              "ended. What the job says of itself only makes a plain end more precise."]  # fmt: skip
    lines += ["", "## Clocks", "", *table("Clock", "Ended because", "Limit")]
    lines += [row(f"`{clock}`", *CLOCKS[clock]) for clock in Clock]
    lines += ["", "## Denials", "", "Each entry of `denials` is one thing that a wall refused.", "", *table("Field", "Meaning")]
    said = doc_fields(Denial) | {"count": "how often", "layer": f"one of {', '.join(f'`{layer}`' for layer in LAYERS)}",
                                 "action": "what was tried: `connect to example.com:443`; the job's own words when told_by is `job`",
                                 "told_by": "whose word it is, below"}  # fmt: skip
    lines += [row(f"`{field.name}`", said[field.name]) for field in dataclasses.fields(Denial)]
    lines += ["", *table("`told_by`", "Meaning"), *(row(f"`{witness}`", WITNESSES[witness]) for witness in TOLD_BY)]
    lines += ["", "A host that a job wanted to reach is also kept in the audit trail (`refused_hosts` of its `job.ended` record) and logged as",
              "`job_network_refused`, cut and escaped."]  # fmt: skip
    return "\n".join(lines) + "\n"


REQUEST = {
    "constraints": "what the job needs and the limits it sets itself, below",
    "code": "the script; for a capability that is a function, none",
    "files": "input files: each with `path` and exactly one of `text`, `base64`, `sha256`",
    "mounts": "mounted folders: a name or id, or `{name, mount}`",
    "idempotency_key": "the same as the Idempotency-Key header",
    "effects": "`pure`, `idempotent` or `external` (default): what running twice would mean",
    "constraints.accelerator": "`cpu` or `gpu`",
    "constraints.gpu_model": "the model's name, as `GET /v1/capabilities` shows it",
    "constraints.memory_bytes": "of the whole process tree, files in /scratch and /out included",
    "files[].path": "where the job finds it, relative to /scratch",
    "files[].text": "its content as text",
    "files[].base64": "its content in base64",
    "mounts[].name": "the job finds it at /in/<name>",
}
ANSWER = {
    "job_id": "its id",
    "status": "`queued`, `leased`, `running`, or one of the six ends",
    "capability": "what runs it",
    "version": "the version that was asked for",
    "env_profile": "the profile that it runs in; null for a function",
    "accelerator": "what was asked for",
    "effects": "what running twice would mean",
    "session_id": "the session that it ran in; null for a sandbox of its own",
    "context": "the named globals that it used there",
    "mounts": "the folders that it may read, each at `/in/<name>`; those of a session are the session's",
    "submitted_at": "UTC, ISO 8601",
    "started_at": "when its own code began",
    "ended_at": "when its end was committed",
    "attempts": "how often it was tried",
    "worker_id": "who has it or had it last",
    "cancel_requested": "somebody asked for its end",
    "stdout": "what was kept of it: head, a marker line, tail",
    "stderr": "as stdout",
    "has_result": "tells a result of null from none",
    "result": "the result, any JSON",
    "artifacts": "files that it left in /out: `path`, `size_bytes`, `sha256`, `media_type`",
    "metrics": "`wall_sec`, `cpu_sec`, `peak_memory_bytes`, `tasks_peak`, `setup_sec`, `pool_hit`, and bytes seen and kept of each stream",
}


CLOCKS = {
    Clock.WALL: ("the run took longer than `wall_sec` (or the request's `timeout_sec`)", "`wall_sec`"),
    Clock.CPU: ("the whole tree used more CPU time", "`cpu_sec`"),
    Clock.IDLE: ("the whole tree used no CPU time and wrote nothing for so long", "`idle_sec`"),
    Clock.NO_OUTPUT: ("not a byte came on stdout or stderr for so long", "`no_output_sec`"),
    Clock.LIFETIME: ("a session reached the end of its lifetime while the job ran", "of the session"),
}
WITNESSES = {
    "kernel": "the kernel counted it: the job cannot have made it up",
    "sandbox": "Crank's own supervisor or filter saw it, from outside of the job",
    "job": "the job says so itself: good to know, proof of nothing",
}


def _statuses(reason: Reason) -> str:
    found = {str(job_status_of(End(reason, exit_code=code))) for code in (0, 1)}
    return " or ".join(f"`{status}`" for status in sorted(found, reverse=True))


REASONS = {
    Reason.EXITED: "the code ended by itself; `exit_code` 0 is success",
    Reason.RAISED: "an exception was not caught; `message` is its last line",
    Reason.SIGNALLED: "a signal ended it, `signal` says which",
    Reason.TIMEOUT: "a deadline passed, `clock` says which",
    Reason.MEMORY: "the tree needed more memory than it may have",
    Reason.PROCESSES: "it needed more processes and threads than it may have",
    Reason.OUTPUT: "it flooded stdout and stderr",
    Reason.DISK: "/scratch or /out had no room for more bytes and the code did not cope",
    Reason.INODES: "/scratch or /out had no room for more files and folders and the code did not cope",
    Reason.FILES: "a process needed more open files than it may have and did not cope",
    Reason.FILE_SIZE: "one file grew beyond what a file may have and the code did not cope",
    Reason.POLICY: "it did what the profile forbids and was ended for it",
    Reason.PROTOCOL_VIOLATION: "it tampered with the channel that reports its end",
    Reason.CANCELLED: "somebody asked for its end",
    Reason.SANDBOX_FAILED: "the sandbox could not be raised or proven; no line of the job ran",
    Reason.WORKER_LOST: "the worker stopped; the code did not finish",
    Reason.OUTCOME_UNKNOWN: "the worker fell silent; whether the code finished is not known",
    Reason.REFUSED: "after it was accepted it turned out that nobody can run it",
}


def wire_page() -> str:
    """Return the page of messages."""
    lines = [
        "# Wire",
        "",
        f"Controller and worker exchange JSON texts over one WebSocket with mutual TLS. Versions {wire.VERSION_MIN} to {wire.VERSION_MAX}; a message is at most",
        f"{wire.MESSAGE_BYTES_MAX} bytes; `t` names its kind. Every field is present, nothing else is; one that a later version added is left out while it says nothing.",
        "A controller serves workers of the version before, so renew controllers first. Frozen examples: `tests/golden/wire/`.",
        "",
        *table("`t`", "Meaning", "Fields"),
    ]
    for kind in typing.get_args(wire.Message):
        fields = ", ".join(f"`{field.name}`" for field in dataclasses.fields(kind)) or "–"
        lines.append(row(f"`{kind.__name__.lower()}`", (inspect.getdoc(kind) or "").splitlines()[0], fields))
    return "\n".join(lines) + "\n"


def metrics_page() -> str:
    """Return the page of metrics."""
    lines = [
        "# Metrics",
        "",
        "`GET /metrics` answers in the Prometheus text format, version 0.0.4, to whoever holds the node's token. Gauges are of now; counters and",
        "histograms count since the controller started (`crank_sandboxes_burnt_total` since its worker started). Labels take known words only, or `other`,",
        "so that no job and no worker can make the number of series grow.",
        "",
        *table("Metric", "Kind", "Meaning"),
    ]
    lines += [row(f"`{name}`", kind, meaning) for name, (kind, meaning) in FAMILIES.items()]
    return "\n".join(lines) + "\n"


def agents_page() -> str:
    """Return what a node as it comes tells agents, with a shared folder named docs."""
    found = [read_profile(REPO / "profiles", name) for name in FIRST_PROFILES]
    builds = [ProfileBuild(profile, Path(), "", "", Digest("0" * 64), "cpu") for profile in found]
    capabilities = [offer.capability for offer in script_offers(builds, (), Tier.NAMESPACES)]
    policy = Policy("n", "c", "d", ())
    facts = Facts(__version__, capabilities, {profile.name: profile for profile in found}, ["docs"],
                  policy.session_idle_sec, policy.session_lifetime_sec)  # fmt: skip
    unrun = "<!-- not run: it is the code of a job, which tests/system/test_instructions.py runs -->\n"
    return instructions(facts).replace("```python\n", f"{unrun}```python\n")


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        shown = ", ".join(f"`{word}`" for word in schema["enum"])
        return f"one of {shown}"
    kind = schema.get("type", "any")
    kind = " or ".join(kind) if isinstance(kind, list) else kind
    if kind == "array":
        inner = schema.get("items", {})
        return f"list of {_kind(inner) if 'enum' in inner else inner.get('type', 'any')}"
    bounds = [f"{schema[name]:g}" for name in ("minimum", "maximum") if name in schema]
    return f"{kind}, {' to '.join(bounds)}" if len(bounds) == 2 else str(kind)


def capabilities_page() -> str:
    """Return the page of the capabilities that come with Crank."""
    import json
    import runpy

    folder = REPO / "profiles" / "capabilities"
    lines = [
        "# Capabilities that come with Crank",
        "",
        "A node's own worker offers them where the profile is built that they run in. They take files (`files`) and mounts",
        "(`mounts`) beside their args, run behind the walls of that profile, and leave files as artifacts. `GET /v1/capabilities`",
        "holds their JSON Schemas.",
    ]
    for path in sorted(folder.glob("*.json")):
        declared = json.loads(path.read_text("utf-8"))
        lines += ["", f"## {declared['name']}", "", declared["summary"], ""]
        lines += [f"Version {declared['version']}, effects {declared['effects']}, profile {declared['profile']}."]
        for title, key in (("Arg", "input_schema"), ("Result", "output_schema")):
            lines += ["", *table(title, "Kind", "Meaning")]
            for name, schema in declared[key]["properties"].items():
                default = f" Default: {json.dumps(schema['default'])}." if "default" in schema else ""
                said = schema.get("description", "")
                lines.append(row(f"`{name}`", _kind(schema), f"{said}{default}".strip() or "as its name says"))
    codes = runpy.run_path(str(folder / "documents" / "faults.py"))["CODES"]
    lines += ["", "## Error codes", "", "A call ends `failed` with one of these in `end.code`; in a folder, each file has its own.", ""]
    lines += [*table("Code", "Meaning"), *(row(f"`{code}`", meaning) for code, meaning in codes.items())]
    return "\n".join(lines) + "\n"


def pages() -> dict[Path, str]:
    """Return every generated page by its path."""
    made = {
        "capabilities": capabilities_page,
        "cli": cli_page,
        "http-api": http_page,
        "configuration": configuration_page,
        "errors": errors_page,
        "limits": limits_page,
        "profiles": profiles_page,
        "job": job_page,
        "metrics": metrics_page,
        "wire": wire_page,
    }
    written = {FOLDER / f"{name}.md": NOTE + make() for name, make in made.items()}
    return {**written, REPO / "docs" / "agents.md": NOTE + agents_page()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")
        print(f"wrote {path.relative_to(REPO)}")
