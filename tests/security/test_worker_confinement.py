"""A worker that was taken over: what whoever holds it can still read, reach and become, tried from inside."""

import socket

import pytest

from crank.sandbox import landlock
from tests.support.confined import USER_ID, WAYS, Way

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(landlock.abi() < 4, reason="this kernel's Landlock does not know TCP ports"),
]

_SHUT_IN = """
confinement.give_folders(settings, able.account)
layers = confinement.shut_in(settings, confinement.worker_view(settings), able)
"""


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def way(request: pytest.FixtureRequest) -> Way:
    """Give each way to start a worker."""
    found: Way = request.param
    return found


def test_no_file_but_its_own(way: Way) -> None:
    """Secrets of the controller, of the owner and of the system are closed; its own key, certificate and spool are open."""
    told = way.run(
        f"""{_SHUT_IN}
home = settings.home
closed = [settings.database, settings.authority_dir / "ca.key", settings.token_file, settings.mounts_register,
          home.parent / "beside", Path("/etc/shadow"), Path("/proc/1/environ"), Path(f"/proc/{{os.getppid()}}/maps")]
told["closed"] = {{str(path): attempt(path.read_bytes) for path in closed}}
told["listing"] = {{str(path): attempt(lambda: os.listdir(path)) for path in (home.parent, home / "controller")}}
told["own"] = [(settings.identity_dir / name).read_text() for name in ("key.pem", "cert.pem", "ca.pem")]
spool = confinement.spool_dir(settings)
(spool / "deep").mkdir()
(spool / "deep" / "note").write_text("kept")
os.replace(spool / "deep" / "note", spool / "note")
told["spool"] = (spool / "note").read_text()
told["changes"] = {{str(path): attempt(lambda: path.write_bytes(b"x")) for path in (
    settings.identity_dir / "key.pem", settings.identity_dir / "new", home / "new", Path("/new"), Path("/etc/new"),
    Path(os.__file__), Path(confinement.__file__), Path(os.__file__).parent / "new.py")}}
told["nodes"] = attempt(lambda: os.mkfifo(spool / "pipe"))
""",
    )
    for name in ("closed", "listing", "changes"):
        through = {path: answer for path, answer in told[name].items() if not answer.startswith("refused")}
        assert through == {}, name
    assert told["own"] == ["own key", "own certificate", "authority"]
    assert told["spool"] == "kept"
    assert told["nodes"].startswith("refused")


def test_no_network_but_its_controller(way: Way) -> None:
    """Its dialer hands it connections to the one address; by itself it reaches no port, with no kind of socket."""
    with socket.create_server(("127.0.0.1", 0)) as controller, socket.create_server(("127.0.0.1", 0)) as other:
        told = way.run(
            f"""
dialer = confinement.dialer_to(f"wss://127.0.0.1:{{port}}/v1/worker", able)
{_SHUT_IN}
other = int(sys.argv[3])
def connect(port, flags=0):
    with socket.socket() as one:
        one.sendto(b"x", flags, ("127.0.0.1", port)) if flags else one.connect(("127.0.0.1", port))
with dialer.dial() as connection:
    told["controller"] = connection.getpeername()[1] == port
told["refused"] = {{
    "its controller's port": attempt(lambda: connect(port)),
    "another port": attempt(lambda: connect(other)),
    "opened by sending": attempt(lambda: connect(other, socket.MSG_FASTOPEN)),
    "udp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
    "udp6": attempt(lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)),
    "raw": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW)),
    "mptcp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)),
    "sctp": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)),
    "unix": attempt(lambda: socket.socket(socket.AF_UNIX)),
    "vsock": attempt(lambda: socket.socket(40, socket.SOCK_STREAM)),
    "algorithms": attempt(lambda: socket.socket(38, socket.SOCK_SEQPACKET)),
    "netlink": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
    "bind": attempt(lambda: socket.socket().bind(("127.0.0.1", 0))),
    "listen": attempt(lambda: socket.socket().listen()),
}}
dialer.close()
told["dialer"] = dialer.alive
told["pair"] = attempt(lambda: socket.socketpair()[0].close())
""",
            port=controller.getsockname()[1],
            arguments=(str(other.getsockname()[1]),),
        )
    assert (told["controller"], told["dialer"]) == (True, False)
    assert told["pair"] == "None"
    assert {name: answer for name, answer in told["refused"].items() if not answer.startswith("refused")} == {}


def test_nothing_to_become(way: Way) -> None:
    """No capability in any set, no way back to an id, no namespace, no mount, no trace, no core, and no other process."""
    told = way.run(
        f"""{_SHUT_IN}
import ctypes, resource
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)
told["ids"] = [*os.getresuid(), *os.getresgid(), *os.getgroups()]
status = dict(line.split(":", 1) for line in Path(f"/proc/{{os.getpid()}}/status").read_text().splitlines())
told["status"] = {{key: status[key].strip() for key in ("CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs", "Seccomp")}}
told["core"] = resource.getrlimit(resource.RLIMIT_CORE)
told["account"] = able.account
told["refused"] = {{
    "root": attempt(lambda: os.setresuid(0, 0, 0)),
    "groups": attempt(lambda: os.setgroups([0])),
    "user namespace": attempt(lambda: call("unshare", 0x10000000)),
    "mount": attempt(lambda: call("mount", b"none", b"/", b"tmpfs", 0, None)),
    "trace": attempt(lambda: call("ptrace", 16, os.getppid(), 0, 0)),
    "signal": attempt(lambda: os.kill(os.getppid(), 0)),
    "chroot": attempt(lambda: os.chroot("/")),
    "program": attempt(lambda: os.execv(sys.executable, [sys.executable, "-c", "pass"])),
    "io_uring": attempt(lambda: call("syscall", 425, 8, ctypes.create_string_buffer(256))),
    "keys": attempt(lambda: call("syscall", 250, 0, -3, 0)),
}}
told["processes"] = [name for name in os.listdir("/proc") if name.isdigit()] if able.namespaces else ["own"]
""",
    )
    assert {name: answer for name, answer in told["refused"].items() if not answer.startswith("refused")} == {}
    sets = {name: value for name, value in told["status"].items() if name.startswith("Cap")}
    assert set(sets.values()) == {"0" * 16}
    assert (told["status"]["NoNewPrivs"], told["status"]["Seccomp"], told["core"]) == ("1", "2", [0, 0])
    assert len(told["processes"]) == 1
    if way.name == "root":
        assert told["account"] not in (0, USER_ID, None)
        assert set(told["ids"]) == {told["account"]}


def test_what_holds_is_told(way: Way) -> None:
    """Each layer says whether it stands; what this way of starting cannot have is named with what to do."""
    told = way.run(
        f"""{_SHUT_IN}
told["layers"] = confinement.document(layers)
""",
    )
    missing = {each["layer"] for each in told["layers"] if not each["holds"]}
    assert missing == {"root": set(), "user": {"account"}, "landlock": {"account", "view", "network"}}[way.name]
    assert all(each["text"] and (each["holds"] or each["fix"]) for each in told["layers"])
    assert {"capabilities", "landlock_files", "landlock_tcp", "landlock_scopes", "syscalls"} <= {
        each["layer"] for each in told["layers"]
    }


def test_what_is_loaded_late_still_loads(way: Way) -> None:
    """After the walls stand the standard library, Crank's packages and shared libraries can still be imported."""
    told = way.run(
        f"""{_SHUT_IN}
import sqlite3, wave, bz2, encodings.idna, zoneinfo
import crank.client, crank.adapters.controller_link, websockets.asyncio.client, cryptography.x509
told["imported"] = sqlite3.connect(":memory:").execute("select 1").fetchone()
""",
    )
    assert told["imported"] == [1]


@pytest.mark.parametrize("name", ["root", "user"])
def test_a_wall_that_is_not_there_is_found(name: str) -> None:
    """The proof can fail: in a process without walls it names what went through."""
    told = Way(name).run(
        """
view = confinement.worker_view(settings)
with confine_proof.witnesses([settings.database]) as seen:
    try:
        confine_proof.prove(view, able, seen)
    except Exception as fault:
        told["code"], told["said"] = fault.error_code, fault.message
""",
    )
    assert told["code"] == "confinement_broken"
    for part in ("crank.db", "another port", "could gain privileges", "AF_UNIX", "core dump"):
        assert part in told["said"]


@pytest.mark.parametrize("lost", ["_build", "_give_up", "landlock.restrict", "confine_filter.apply"])
def test_a_layer_that_fails_stops_the_worker(lost: str) -> None:
    """When a wall cannot be raised on a machine that can have it, the process is told to stop, and by which."""
    told = Way("user").run(
        f"""
def refuse(*_args, **_more):
    raise OSError(1, "not today")
place, _, name = "confine.{lost}".rpartition(".")
setattr(eval(place), name, refuse)
confinement.give_folders(settings, able.account)
try:
    confinement.shut_in(settings, confinement.worker_view(settings), able)
except Exception as fault:
    told["code"] = fault.error_code
""",
    )
    layer = {
        "_build": "mounts",
        "_give_up": "capabilities",
        "landlock.restrict": "landlock",
        "confine_filter.apply": "seccomp",
    }
    assert told["code"] == f"confinement_{layer[lost]}"


@pytest.mark.parametrize("skipped", ["_give_up", "landlock.restrict", "confine_filter.apply"])
def test_a_layer_that_does_nothing_is_found(skipped: str) -> None:
    """A wall that says it stands and does not is found by trying it, one by one."""
    told = Way("user").run(
        f"""
place, _, name = "confine.{skipped}".rpartition(".")
if name == "_give_up":
    confine._give_up = lambda able: confine.kernel.prctl(confine.kernel.PR_SET_NO_NEW_PRIVS, 1)
else:
    setattr(eval(place), name, lambda *_args, **_more: None)
confinement.give_folders(settings, able.account)
try:
    confinement.shut_in(settings, confinement.worker_view(settings), able)
except Exception as fault:
    told["code"] = fault.error_code
""",
    )
    assert told["code"] == "confinement_broken"
