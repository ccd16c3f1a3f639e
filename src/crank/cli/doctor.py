"""`crank doctor`: what this machine lacks, and how to mend it."""

from typing import Annotated

from cyclopts import Parameter

from crank.bootstrap.examine import examine
from crank.bootstrap.examine_public import examine_public
from crank.bootstrap.logs import log_to_stderr
from crank.cli.exit_codes import ExitCode
from crank.cli.show import harmless, print_json
from crank.config import load


def doctor(
    *,
    public: Annotated[
        str | None, Parameter(help="Look only at this address, as others reach the node: https://…", show_default=False)
    ] = None,
    json: Annotated[bool, Parameter(help="Print JSON.", negative=(), show_default=False)] = False,
) -> int:
    """Examine this machine and tell what is missing and how to mend it. Exits 1 when something fails."""
    # What is found is the answer; what parts of the program say meanwhile must not stand among it.
    log_to_stderr("doctor", plain=True)
    settings = load()
    findings = examine(settings) if public is None else examine_public(settings, public)
    ok = all(finding.state != "fail" for finding in findings)
    if json:
        shown = [
            {"name": each.name, "state": each.state, "cause": each.cause, "fix": each.fix or None} for each in findings
        ]
        print_json({"ok": ok, "findings": shown})
    else:
        for each in findings:
            print(harmless(f"{each.state:4}  {each.name}: {each.cause}"))
            if each.fix and each.state != "ok":
                print(harmless(f"      fix: {each.fix}"))
    return ExitCode.OK if ok else ExitCode.JOB_FAILED
