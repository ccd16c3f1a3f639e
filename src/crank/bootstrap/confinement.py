"""How the process that talks to the network shuts itself in: what it needs to see, and who owns its folders.

`crank.sandbox.confine` raises the walls and `confine_proof` tries them; this file knows Crank's own folders.
Run as a program (`python -m crank.bootstrap.confinement`) it confines itself, tries everything and prints what
holds: that is how `crank doctor` looks without being shut in.
"""

import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from urllib.parse import urlsplit

import structlog

import crank
from crank.bootstrap.leash import fault_document, parse_fault
from crank.config import Settings, child_environment, interpreter, load
from crank.domain.json import JsonObject
from crank.errors import CrankError, SandboxError
from crank.sandbox.confine import SYSTEM, Abilities, Layer, View, abilities, confine
from crank.sandbox.confine_proof import prove, witnesses
from crank.sandbox.dialer import Dialer, start_dialer

TRIAL_SEC = 60.0
_log = structlog.get_logger(__name__)


def own_code() -> tuple[Path, ...]:
    """Return what the running program is loaded from: its interpreter, and the folders where its modules lie."""
    folders = {Path(each) for each in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)}
    folders.add(Path(sys.executable).resolve().parent)
    folders.add(Path(crank.__file__).parent)
    entries = sorted((entry for entry in sys.path if len(entry) > 1), key=len, reverse=True)
    files = [file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))]
    for file in files:
        found = next((entry for entry in entries if file.startswith(f"{entry}/")), None)
        folders.update([Path(found)] if found else [])
    # A folder may be reached through a link; both names must lead there. Single modules may be links, too.
    both = {*folders, *(folder.resolve() for folder in folders)}
    both.update(Path(file).resolve() for file in files if os.path.islink(file))
    both.update(_library_folders())
    return tuple(sorted(path for path in both if path.is_absolute() and os.path.exists(path)))


def _library_folders() -> set[Path]:
    """Return the folders of loaded shared libraries that lie where no system keeps them, as some systems do."""
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as source:
        mapped = {line.split(maxsplit=5)[5].strip() for line in source if len(line.split(maxsplit=5)) > 5}
    libraries = {Path(name) for name in mapped if name.startswith("/") and ".so" in name and os.path.exists(name)}
    folders = {path.parent for path in libraries if not any(path.is_relative_to(known) for known in SYSTEM)}
    return {folder for folder in folders if not Path.home().is_relative_to(folder)}


def spool_dir(settings: Settings) -> Path:
    """Return the one folder that a worker writes to."""
    return settings.worker_dir / "spool"


def worker_view(settings: Settings) -> View:
    """Return what the node's own worker needs: its code, its identity and its spool.

    The way to its controller is not among it: each connection is handed to it by its dialer.
    """
    return View(
        readable=(*own_code(), settings.identity_dir),
        writable=(spool_dir(settings),),
        hidden=(settings.home,),
    )


def module_view(settings: Settings, target: str) -> View:
    """Return what an author's functions need: this program's code, and their module with what lies beside it.

    Where the module lies in a home itself, or above one, the module alone is shown and nothing beside it.
    """
    spec = importlib.util.find_spec(target.partition(":")[0].partition(".")[0])
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    module = [Path(place) for place in places if place and Path(place).exists()]
    module = [path.parent if path.name == "__init__.py" else path for path in module]
    beside = {path if _is_a_home(path.parent, settings) else path.parent for path in module}
    alone = tuple(sorted(path.parent for path in beside if path in module))
    here = Path.cwd()
    libraries = {Path(entry) for entry in sys.path if Path(entry).is_dir() and Path(entry) != here}
    shown = {*beside, *(path for path in libraries if path.is_absolute() and not _is_a_home(path, settings))}
    return View(
        readable=(*own_code(), *sorted(shown - set(own_code()))),
        listed=alone,
        hidden=(settings.home,),
        programs=True,
        temporary=True,
    )


def _is_a_home(folder: Path, settings: Settings) -> bool:
    """Tell whether a folder is or holds the home of the owner, or is Crank's own."""
    home = Path.home()
    return folder == home or folder in home.parents or folder == settings.home


def author_view(settings: Settings, target: str) -> View:
    """Return what the worker of an author's functions needs: the module's view, and what every worker has."""
    module = module_view(settings, target)
    return replace(
        module,
        readable=(*module.readable, settings.identity_dir),
        writable=(spool_dir(settings),),
    )


def dialer_to(url: str, able: Abilities) -> Dialer:
    """Start the process that connects to the controller at this address (`wss://host:port/…`)."""
    address = urlsplit(url)
    return start_dialer(address.hostname or "", address.port or 443, own_code(), able)


def shut_in(settings: Settings, view: View, able: Abilities) -> tuple[Layer, ...]:
    """Confine this process for good and try it from inside; return the layers. Call it in a single thread.

    Raises SandboxError when a layer that this machine can have does not stand.
    """
    view = replace(view, hidden=_under_every_name(view))
    if len(os.listdir("/proc/self/task")) > 1:
        raise SandboxError(
            "The worker cannot confine itself: a library has started threads.",
            code="confinement_threads",
            fix="Report this with the output of 'crank doctor'; it is a defect in Crank.",
        )
    with witnesses(_not_for_workers(settings, view)) as seen:
        layers = confine(view, able)
        prove(view, able, seen)
    return layers


def _under_every_name(view: View) -> tuple[Path, ...]:
    """Return where the hidden folders would show: as named, and inside what is readable, whatever links lead there."""
    found = {path for path in view.hidden if path.is_dir()}
    for secret in [path.resolve() for path in found]:
        for shown in view.readable:
            real = shown.resolve()
            if secret.is_relative_to(real):
                found.add(shown / secret.relative_to(real))
    return tuple(sorted(found))


def log_layers(layers: Sequence[Layer]) -> None:
    """Say in the log what holds and what this machine cannot have."""
    _log.info("worker_confined", layers=[layer.name for layer in layers if layer.holds])
    for layer in layers:
        if not layer.holds:
            _log.warning("confinement_layer_missing", layer=layer.name, why=layer.text)


def _not_for_workers(settings: Settings, view: View) -> Iterator[Path]:
    """Name files that a worker has no business with."""
    yield from (settings.database, settings.token_file, settings.node_file)
    yield from settings.authority_dir.rglob("*")
    # What proves this machine to a controller that it joined.
    yield from (settings.home / "member").glob("*key.pem")
    yield Path("/etc/shadow")
    home = Path.home()
    shown = {*view.readable, *view.writable}
    # One file of the owner's is enough; a module that lies in the home itself shows the home.
    if home.is_dir() and os.access(home, os.R_OK) and not shown & {home, *home.parents}:
        yield from (path for path in sorted(home.iterdir()) if path.is_file() and path not in shown)


def document(layers: Sequence[Layer]) -> list[JsonObject]:
    """Return the layers as `crank node info` shows them."""
    return [
        {"layer": layer.name, "holds": layer.holds, "text": layer.text, "fix": layer.fix or None} for layer in layers
    ]


def give_folders(settings: Settings, account: int | None) -> None:
    """Make the worker's own folders and, when it becomes an account of its own, give them to that account.

    The spool is the account's. The identity stays the controller's, who renews it: the account may read it.
    """
    spool = spool_dir(settings)
    spool.mkdir(mode=0o700, parents=True, exist_ok=True)
    if account is None:
        return
    _give(spool, account)
    for _, folders, files, at in os.fwalk(spool):
        for name in (*folders, *files):
            _give_entry(name, at, account)
    identity = settings.identity_dir
    os.chown(identity, -1, account, follow_symlinks=False)
    identity.chmod(0o750)
    _give(identity / "key.pem", account)
    for name in ("cert.pem", "ca.pem"):
        (identity / name).chmod(0o644)


def _give(path: Path, account: int) -> None:
    _give_entry(str(path), None, account)


def _give_entry(name: str, at: int | None, account: int) -> None:
    try:
        found = os.stat(name, dir_fd=at, follow_symlinks=False)
        # The account writes here, so an entry may be a trap: a link is not followed, and a file that has a
        # second name may be somebody else's.
        if found.st_uid == account or (stat.S_ISREG(found.st_mode) and found.st_nlink > 1):
            return
        os.chown(name, account, account, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return


# --- the trial -------------------------------------------------------------------------------


def try_confinement(settings: Settings) -> Sequence[Layer]:
    """Let a short-lived child shut itself in as a worker does, touching no folder of the node.

    Raises SandboxError that names what does not stand.
    """
    try:
        done = subprocess.run(
            [interpreter(), "-m", "crank.bootstrap.confinement"],
            env=child_environment(settings),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TRIAL_SEC,
            cwd="/",
            check=False,
        )
        told = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired) as fault:
        raise SandboxError(
            "The trial of a worker's confinement ended without an answer.",
            code="confinement_broken",
            detail=str(fault),
        ) from fault
    if "fault" in told:
        raise parse_fault(told["fault"])
    return [Layer(**each) for each in told["layers"]]


def _trial(settings: Settings) -> JsonObject:
    try:
        # No folder of the node belongs to this process, and it may reach nobody.
        layers = shut_in(settings, View(readable=own_code(), hidden=(settings.home,)), abilities())
    except CrankError as fault:
        return {"fault": fault_document(fault)}
    return {"layers": [asdict(layer) for layer in layers]}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_trial(load())))
