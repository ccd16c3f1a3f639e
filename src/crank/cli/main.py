"""The `crank` command: a tree of verbs, each loaded when it is used, and one way for all of them to fail."""

import difflib
import sys
import traceback
from collections.abc import Sequence

import cyclopts

from crank import __version__
from crank.cli.exit_codes import ExitCode, of_fault
from crank.cli.show import say, tell_fault
from crank.errors import ConfigurationError, CrankError, InvalidRequest

_SUMMARY = "Run the Python that AI agents write, on machines you own."

# name, where it lives, one line of help. The help stands here so that `crank --help` loads none of them.
_VERBS = (
    ("up", "crank.cli.up:up", "Start this machine's node; it runs until Ctrl-C, or in the background."),
    ("down", "crank.cli.node:down", "Stop the node; its worker finishes what it runs first."),
    ("run", "crank.cli.run:run", "Run a script in the sandbox and bring back what it leaves."),
    ("apply", "crank.cli.apply:apply", "Show what a job's files would change in a folder, and write what you accept."),
    ("mcp", "crank.cli.mcp:bridge", "Speak MCP on stdin and stdout, for hosts that start their servers."),
    ("connect", "crank.cli.connect:connect", "Connect Claude, Cursor, VS Code, ChatGPT and others to this node."),
    ("convert", "crank.cli.documents:convert", "Convert one document, in the sandbox."),
    ("summarize", "crank.cli.documents:summarize", "Pick the sentences that say most of a document."),
    ("folder", "crank.cli.documents:folder", "Work on every document of a folder; unchanged ones are not done again."),
    ("doctor", "crank.cli.doctor:doctor", "Examine this machine and tell what is missing and how to mend it."),
    ("version", "crank.cli.version:version", "Print the version."),
)
_GROUPS = (
    (
        "job",
        "Look at jobs and act on them.",
        (
            ("list", "crank.cli.job:list_jobs", "List jobs, newest first."),
            ("show", "crank.cli.job:show", "Show one job."),
            ("logs", "crank.cli.job:logs", "Print what a job printed; -f follows it."),
            ("wait", "crank.cli.job:wait", "Wait until a job has ended, and show it."),
            ("cancel", "crank.cli.job:cancel", "Ask for the end of a job."),
            ("interrupt", "crank.cli.job:interrupt", "Interrupt a running job's code, as Ctrl-C would."),
            ("fetch", "crank.cli.job:fetch", "Download the files that a job left."),
        ),
    ),
    (
        "session",
        "Sandboxes that live on between jobs.",
        (
            ("open", "crank.cli.session:open_one", "Open a session and print its id."),
            ("list", "crank.cli.session:list_sessions", "List sessions, newest first."),
            ("show", "crank.cli.session:show", "Show one session."),
            ("run", "crank.cli.session:run_in", "Run a script with the state that earlier ones left."),
            ("files", "crank.cli.session:files", "List a session's files; or get, put or remove one."),
            ("close", "crank.cli.session:close", "End a session, with what runs in it."),
        ),
    ),
    (
        "profile",
        "The environments that jobs run in.",
        (
            ("list", "crank.cli.profile:list_profiles", "List the profiles and whether they are built."),
            ("build", "crank.cli.profile:build", "Build profiles on this machine."),
            ("check", "crank.cli.profile:check", "Prove what profiles promise, in the sandbox."),
        ),
    ),
    (
        "mount",
        "Folders of this node that jobs may read.",
        (
            ("add", "crank.cli.mount:add", "Give a folder a name by which jobs may read it."),
            ("list", "crank.cli.mount:list_mounts", "List the folders that jobs may read, and for whom."),
            ("allow", "crank.cli.mount:allow", "Let a key name a mount."),
            ("deny", "crank.cli.mount:deny", "Take a mount from a key."),
            ("remove", "crank.cli.mount:remove", "Take a folder away from later jobs."),
        ),
    ),
    (
        "key",
        "Keys for agents and programs.",
        (
            ("mint", "crank.cli.key:mint", "Make a key and print its secret, this once."),
            ("list", "crank.cli.key:list_keys", "List the keys, the revoked ones too."),
            ("revoke", "crank.cli.key:revoke", "Revoke a key at once, and end what it has under way."),
        ),
    ),
    (
        "identity",
        "Who may speak for this node, its workers and its programs.",
        (
            ("show", "crank.cli.authority:show", "Show the tiers of the authority, its bundle, and a change of root."),
            ("rotate", "crank.cli.authority:rotate", "Change the root: prepare, activate, retire; abort goes back."),
            ("root-key", "crank.cli.root_key:root_key", "Move the root's key to where it is kept offline."),
            ("list", "crank.cli.identity:list_identities", "List the certificates that were issued, and what is revoked."),
            ("revoke", "crank.cli.identity:revoke", "Take an identity back at once."),
            ("allow", "crank.cli.identity:allow", "Let a revoked identity get certificates again."),
            ("fetch", "crank.cli.fetch_identity:fetch", "Write this process's identity as files, and keep them fresh."),
        ),
    ),
    (
        "workload",
        "Programs of this machine, and the identities that they get.",
        (
            ("add", "crank.cli.workload:add", "Register a workload by marks that its process bears."),
            ("list", "crank.cli.workload:list_workloads", "List the registered workloads."),
            ("remove", "crank.cli.workload:remove", "Take an identity away."),
        ),
    ),
    (
        "federation",
        "Other trust domains whose identities can be checked here.",
        (
            ("add", "crank.cli.federation:add", "Federate with a trust domain by where its bundle is published."),
            ("list", "crank.cli.federation:list_domains", "List the domains, and whether they are believed now."),
            ("show", "crank.cli.federation:show", "Show one domain with its bundle."),
            ("refresh", "crank.cli.federation:refresh", "Fetch a domain's bundle now."),
            ("remove", "crank.cli.federation:remove", "End a federation; nobody of that domain is believed any more."),
        ),
    ),
    (
        "token",
        "Short-lived tokens that allow less than what they are made of.",
        (
            ("mint", "crank.cli.token:mint", "Make a token of the owner's authority, and print it this once."),
            ("exchange", "crank.cli.token:exchange", "Exchange a token or a key for a token that allows less."),
            ("inspect", "crank.cli.token:inspect", "Show what a token says, unchecked."),
            ("verify", "crank.cli.token:verify", "Ask the node whether a token is good now."),
            ("revoke", "crank.cli.token:revoke", "Revoke a token with all that came of it."),
            ("list", "crank.cli.token:list_tokens", "List the last tokens, the ended ones too."),
            ("attenuate", "crank.cli.attenuate:attenuate_one", "Make less of a token, or pass it on; needs no node."),
            ("keygen", "crank.cli.attenuate:keygen", "Make a key to hold tokens with."),
            ("roles", "crank.cli.token:list_roles", "List the roles that a token may be made under."),
        ),
    ),
    (
        "worker",
        "Workers and what they offer.",
        (
            ("serve", "crank.cli.worker:serve", "Offer your own capabilities (module:app) to this node."),
            ("list", "crank.cli.worker:list_workers", "List the workers."),
        ),
    ),
    (
        "node",
        "The node itself, and machines that work for it.",
        (
            ("info", "crank.cli.node:info", "Tell where the running node is."),
            ("invite", "crank.cli.node_invite:invite", "Print the one command that joins another machine."),
            ("register", "crank.cli.node_invite:register", "Let a machine join by its own certificate."),
            ("list", "crank.cli.node_invite:list_nodes", "List the other machines."),
            ("forget", "crank.cli.node_invite:forget", "Take a machine's right to be here, and cut it off."),
            ("join", "crank.cli.node_join:join", "Work for a controller elsewhere, until Ctrl-C."),
            ("thumbprint", "crank.cli.node_join:show_thumbprint", "Print by what this machine can be registered."),
        ),
    ),
)
# Started by the keeper, not by people.
_INTERNAL = (
    ("internal-keeper", "crank.cli.internal.keeper:alone"),
    ("internal-bound-keeper", "crank.cli.internal.keeper:bound"),
    ("internal-controller", "crank.cli.internal.controller:main"),
    ("internal-worker", "crank.cli.internal.worker:main"),
    ("internal-member", "crank.cli.internal.member:main"),
)


def build_app() -> cyclopts.App:
    """Return the tree of commands."""
    app = cyclopts.App(
        name="crank", help=_SUMMARY, version=__version__, help_format="plaintext", result_action="return_value"
    )
    for name, target, summary in _VERBS:
        app.command(target, name=name, help=summary)
    for group, group_summary, verbs in _GROUPS:
        family = cyclopts.App(name=group, help=group_summary)
        for name, target, summary in verbs:
            family.command(target, name=name, help=summary)
        app.command(family)
    for name, target in _INTERNAL:
        app.command(target, name=name, show=False)
    return app


def main(tokens: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Never shows a traceback for anything it knows."""
    given = list(sys.argv[1:] if tokens is None else tokens)
    head = given[: given.index("--")] if "--" in given else given
    as_json = "--json" in head
    try:
        outcome = build_app()(given, exit_on_error=False, print_error=False, result_action="return_value")
        return outcome if isinstance(outcome, int) else ExitCode.OK
    except cyclopts.CycloptsError as fault:
        tell_fault(_usage_fault(fault, given), as_json=as_json)
        return ExitCode.USAGE
    except CrankError as fault:
        tell_fault(fault, as_json=as_json)
        return of_fault(fault)
    except BrokenPipeError:
        # Whoever read our output left; the entry point ends quietly.
        raise
    except OSError as fault:
        tell_fault(_machine_fault(fault), as_json=as_json)
        return ExitCode.CONFIGURATION
    except KeyboardInterrupt:
        say("interrupted")
        return ExitCode.INTERRUPTED
    except Exception:  # noqa: BLE001 - the last border: exit code 1 would blame the job for our defect
        say(traceback.format_exc())
        tell_fault(CrankError("Crank itself failed."), as_json=as_json)
        return ExitCode.DEFECT


def _usage_fault(fault: cyclopts.CycloptsError, given: Sequence[str]) -> InvalidRequest:
    fix = "Read what the command takes: add --help to it."
    if not isinstance(fault, cyclopts.UnknownCommandError):
        return InvalidRequest(str(fault).strip(), code="usage", fix=fix)
    # Said in our own words, because the library would load every command to look for likely ones.
    families = {name: [verb for verb, _, _ in verbs] for name, _, verbs in _GROUPS}
    group = given[0] if given and given[0] in families else None
    known = families[group] if group else [*families, *(name for name, _, _ in _VERBS)]
    word = next((token for token in given[1 if group else 0 :] if not token.startswith("-")), "")
    close = difflib.get_close_matches(word, known, n=1)
    return InvalidRequest(
        f"There is no command {' '.join(filter(None, ('crank', group, word)))[:120]!r}.",
        code="usage",
        fix=f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(sorted(known))}.",
    )


def _machine_fault(fault: OSError) -> ConfigurationError:
    where = f": {fault.filename}" if fault.filename else ""
    return ConfigurationError(
        f"This machine refused: {fault.strerror or fault}{where}.",
        code="machine_refused",
        fix="Check the disk and the permissions of that path; 'crank doctor' helps.",
    )
