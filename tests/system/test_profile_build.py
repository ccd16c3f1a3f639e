"""Real builds: pip runs, the interpreter is copied, and the root stands on its own."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from crank.adapters.profile_store import ProfileStore
from crank.errors import ProfileError
from crank.ports import ProfileBuild
from tests.support.profiles import TinyProfiles, pip_environment, project_store

pytestmark = [pytest.mark.system, pytest.mark.xdist_group("profiles")]

CODE = b"print('hello from a wheel')\n"
ABSENT = ("pip", "setuptools", "wheel", "ensurepip", "idlelib", "tkinter", "test")


def silent(_line: str) -> None:
    """Take a line of progress and drop it."""


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProfiles:
    """Return an empty folder of tiny profiles."""
    return TinyProfiles(tmp_path)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProfileBuild]:
    """Build a profile of one wheel once, for the tests that look at the root it gives."""
    tiny = TinyProfiles(tmp_path_factory.mktemp("core"))
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE, "bad.py": b"print 1\n"}))
    yield tiny.store().build("tiny", "cpu", silent)
    shutil.rmtree(tiny.builds)


def run_inside(rootfs: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the root as its whole world, in a user namespace of its own; skip where that is forbidden."""
    enter = ["unshare", "--user", "--map-root-user", "--root", str(rootfs)]
    if subprocess.run([*enter, "/nothing"], check=False, capture_output=True).returncode not in (126, 127):
        pytest.skip("this machine forbids user namespaces")
    prelude = "import sys; sys.path.insert(0, '/opt/site')\n"
    return subprocess.run(
        [*enter, "/opt/python/bin/python3.11", "-I", "-B", "-c", prelude + code],
        check=False,
        capture_output=True,
        text=True,
        env={"LANG": "C.UTF-8", "PATH": "/usr/bin"},
        timeout=120,
    )


def test_the_root_needs_nothing_of_the_host(core: ProfileBuild) -> None:
    """With the root as its only world, the interpreter starts, and what hangs on shared libraries works."""
    told = run_inside(
        core.rootfs,
        "import bz2, ctypes, hashlib, lzma, sqlite3, ssl, sys, zlib, greeter\n"
        "ssl.create_default_context(); print(sys.prefix, sys.executable, ssl.__cached__)",
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == [
        *("hello", "from", "a", "wheel"),
        "/opt/python",
        "/opt/python/bin/python3.11",
        "/opt/python/lib/python3.11/__pycache__/ssl.cpython-311.pyc",
    ]


def test_there_is_no_installer_inside(core: ProfileBuild) -> None:
    """pip, setuptools and what else could install is not in the root."""
    told = run_inside(
        core.rootfs,
        "import importlib.util as look\n"
        f"print([name for name in {ABSENT!r} if look.find_spec(name)])",
    )  # fmt: skip
    assert told.stdout.strip() == "[]", told.stderr
    assert run_inside(core.rootfs, "import pip").returncode == 1


def test_everybody_may_read_and_nobody_else_may_write(core: ProfileBuild) -> None:
    """Files are 0644 or 0755, folders 0755, no special bits, and links stay inside."""
    for path in [core.rootfs, *core.rootfs.rglob("*")]:
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            assert path.resolve().is_relative_to(core.rootfs.resolve()), path
        else:
            assert stat.S_IMODE(mode) in ({0o755} if stat.S_ISDIR(mode) else {0o644, 0o755}), path


def test_the_mount_points_of_a_sandbox_are_there(core: ProfileBuild) -> None:
    """A read-only root cannot grow a folder later."""
    for name in ("proc", "dev", "etc", "in", "out", "scratch", "tmp", "run"):
        assert list((core.rootfs / name).iterdir()) == []
    assert (core.rootfs / "var" / "tmp").readlink() == Path("../tmp")


def test_no_file_names_the_builders_folders(core: ProfileBuild) -> None:
    """Byte code and sysconfig name places inside the root only."""
    host = str(core.rootfs).encode()
    private = str(Path(sys.base_prefix)).encode()
    library = core.rootfs / "opt" / "python" / "lib" / "python3.11"
    compiled = [*library.glob("__pycache__/*.pyc"), *library.glob("_sysconfigdata_*.py")]
    assert len(compiled) > 100
    for path in compiled:
        content = path.read_bytes()
        assert host not in content
        assert private == b"/usr" or private not in content


def test_what_was_built_is_recorded_and_found(tiny: TinyProfiles) -> None:
    """A build says what is in it, a second one returns at once, and removing it removes it."""
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}), packages=["greeter==1.0"])
    lines: list[str] = []
    building = tiny.store()
    build = building.build("tiny", "cpu", lines.append)
    assert any("ready" in line for line in lines)
    lines.clear()
    assert building.build("tiny", "cpu", lines.append) == build
    assert lines == []
    assert building.find("tiny", "cpu") == build
    record = building.record(build)
    assert record["packages"] == {"greeter": "1.0"}
    assert record["size_bytes"] > 10_000_000
    assert building.remove("tiny", "cpu") is True
    assert building.find("tiny", "cpu") is None
    with pytest.raises(ProfileError, match="is gone"):
        building.record(build)


def test_a_changed_lock_is_another_build(tiny: TinyProfiles) -> None:
    """After a change the old build is not found; the new one is, and the old one stays for who runs on it."""
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}))
    old = tiny.store().build("tiny", "cpu", silent)
    tiny.profile("tiny", tiny.wheel("greeter", "2.0", {"greeter.py": CODE}))
    assert tiny.store().find("tiny", "cpu") is None
    new = tiny.store().build("tiny", "cpu", silent)
    assert new.digest != old.digest
    assert new.rootfs != old.rootfs
    assert old.rootfs.is_dir()


def test_two_builders_build_once(tiny: TinyProfiles) -> None:
    """The second waits for the first, says so, and gets the same build."""
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}))
    started = threading.Event()
    first_lines: list[str] = []
    second_lines: list[str] = []
    found: list[ProfileBuild] = []

    def say_first(line: str) -> None:
        first_lines.append(line)
        started.set()

    first = threading.Thread(target=lambda: found.append(tiny.store().build("tiny", "cpu", say_first)))
    first.start()
    assert started.wait(60)
    found.append(tiny.store().build("tiny", "cpu", second_lines.append))
    first.join(60)
    assert found[0] == found[1]
    assert second_lines == ["waiting: another process is building this profile"]


def refused(store: ProfileStore, builds: Path) -> ProfileError:
    """Build `tiny`, expect a refusal, and see that nothing of the attempt is left."""
    with pytest.raises(ProfileError) as caught:
        store.build("tiny", "cpu", silent)
    assert [path.name for path in builds.iterdir()] == ["tiny-cpu.lock"]
    return caught.value


def test_a_wheel_that_was_changed_is_refused(tiny: TinyProfiles) -> None:
    """A wheel whose hash is not the locked one is not installed, and the fault says what that means."""
    lock = tiny.wheel("greeter", "1.0", {"greeter.py": CODE})
    tiny.profile("tiny", lock)
    tiny.wheel("greeter", "1.0", {"greeter.py": b"import evil\n"})
    fault = refused(tiny.store(), tiny.builds)
    assert fault.error_code == "install_failed"
    assert fault.message.startswith("A package is not the one that was locked")


def test_a_wheel_that_nobody_has_is_named(tiny: TinyProfiles) -> None:
    """The fault says which source is missing and how to name one."""
    tiny.profile("tiny", "greeter==1.0 --hash=sha256:" + "0" * 64 + "\n")
    fault = refused(tiny.store(), tiny.builds)
    assert "PIP_FIND_LINKS" in fault.fix


def test_an_index_that_cannot_be_reached_is_told(tiny: TinyProfiles) -> None:
    """Offline, the fault says so, whatever pip's last line is."""
    tiny.profile("tiny", "greeter==1.0 --hash=sha256:" + "0" * 64 + "\n")
    offline = tiny.store(
        PIP_NO_INDEX="0", PIP_INDEX_URL="https://127.0.0.1:1/simple", PIP_RETRIES="1", PIP_DEFAULT_TIMEOUT="2"
    )
    assert refused(offline, tiny.builds).message.startswith("The package index cannot be reached")


@pytest.mark.parametrize(("version", "cuda"), [("2.13.0", "'13.0'"), ("2.13.0+cpu", "None")])
def test_a_cuda_build_never_becomes_a_cpu_profile(tiny: TinyProfiles, version: str, cuda: str) -> None:
    """Even with a lock that lets it through, a torch built for CUDA is refused and nothing of it stays."""
    text = f"from typing import Optional\n\ncuda: Optional[str] = {cuda}\n".encode()
    tiny.profile("tiny", tiny.wheel("torch", version, {"torch/__init__.py": b"", "torch/version.py": text}))
    if cuda == "None":
        assert tiny.store().build("tiny", "cpu", silent).accelerator == "cpu"
        return
    assert refused(tiny.store(), tiny.builds).error_code == "wrong_torch_build"


def test_an_installer_cannot_be_locked_in(tiny: TinyProfiles) -> None:
    """A lock that brings pip is refused: a job installs nothing."""
    tiny.profile("tiny", tiny.wheel("pip", "99.0", {"pip/__init__.py": b""}))
    assert refused(tiny.store(), tiny.builds).error_code == "installer_in_profile"


def test_a_program_that_is_not_carried_fails_the_build(tiny: TinyProfiles) -> None:
    """A promised program that no wheel brings leaves nothing built."""
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}), programs=["pandoc"])
    assert "pandoc" in refused(tiny.store(), tiny.builds).message


def test_an_operator_who_stops_a_build_leaves_nothing(tiny: TinyProfiles) -> None:
    """Control-C in the middle ends pip and removes what was begun."""
    tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}))

    def stop(line: str) -> None:
        if "installing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny.store().build("tiny", "cpu", stop)
    assert [path.name for path in tiny.builds.iterdir()] == ["tiny-cpu.lock"]


def test_core_holds_what_it_lists(builds: Path) -> None:
    """python-core is built from the network or pip's cache, and its packages import inside the root."""
    build = project_store(builds).build("python-core", "cpu", silent)
    told = run_inside(
        build.rootfs,
        "import certifi, pydantic, requests, zoneinfo\n"
        "print(len(open(certifi.where()).read()) > 100_000, zoneinfo.ZoneInfo('Asia/Tokyo'), pydantic.VERSION)",
    )
    assert told.stdout.split() == ["True", "Asia/Tokyo", "2.14.3"], told.stderr
    assert os.listdir(build.rootfs / "usr" / "bin") == []


def test_docs_holds_pandoc_once(builds: Path) -> None:
    """python-docs converts with pandoc from inside its root, and stores the program once."""
    build = project_store(builds).build("python-docs", "cpu", silent)
    told = run_inside(
        build.rootfs,
        "import pypandoc, subprocess\n"
        "print(subprocess.run(['pandoc', '-f', 'markdown'], input='*a*', capture_output=True, text=True).stdout)\n"
        "print(pypandoc.convert_text('*b*', 'html', format='markdown'))",
    )
    assert told.stdout.split() == ["<p><em>a</em></p>", "<p><em>b</em></p>"], told.stderr
    carried = build.rootfs / "opt" / "site" / "pypandoc" / "files" / "pandoc"
    assert carried.is_symlink()
    assert carried.resolve() == (build.rootfs / "usr" / "bin" / "pandoc").resolve()


@pytest.mark.profile_ml
@pytest.mark.timeout(900)
def test_ml_is_the_cpu_build(builds: Path) -> None:
    """python-ml for cpu holds the CPU build of torch and nothing of CUDA."""
    build = project_store(builds).build("python-ml", "cpu", silent)
    record = project_store(builds).record(build)
    assert record["packages"]["torch"] == "2.13.0+cpu"
    assert not [name for name in record["packages"] if name.startswith("nvidia")]
    assert not (build.rootfs / "opt" / "site" / "nvidia").exists()


def test_an_ordinary_user_builds_with_the_systems_python(tmp_path: Path) -> None:
    """Debian's interpreter, spread over /usr, becomes the same kind of root, also for an account that owns nothing."""
    python = Path("/usr/bin/python3")
    if os.geteuid() != 0 or not python.exists() or shutil.which("setpriv") is None:
        pytest.skip("needs root, to become another account, and the system's own Python")
    account = 23_456
    home = Path("/tmp") / f"crank-ordinary-{os.getpid()}"  # tmp_path is closed to other accounts
    home.mkdir(mode=0o700)
    try:
        tiny = TinyProfiles(home)
        tiny.profile("tiny", tiny.wheel("greeter", "1.0", {"greeter.py": CODE}))
        repo = Path(__file__).resolve().parents[2]
        shutil.copytree(repo / "src", home / "src", ignore=shutil.ignore_patterns("__pycache__"))
        program = (
            "import sys; from pathlib import Path\n"
            f"home = Path({str(home)!r}); sys.path.insert(0, str(home / 'src'))\n"
            "from crank.adapters.clock import SystemClock\n"
            "from crank.adapters.profile_store import ProfileStore\n"
            "env = {'PATH': '/usr/bin:/bin', 'HOME': str(home), 'PIP_NO_INDEX': '1', 'PIP_CONFIG_FILE': '/dev/null',\n"
            "       'PIP_FIND_LINKS': str(home / 'wheels')}\n"
            "store = ProfileStore(home / 'profiles', home / 'builds', env, Path(sys.executable), SystemClock())\n"
            "print(store.build('tiny', 'cpu', lambda line: None).rootfs)\n"
        )
        for path in [home, *home.rglob("*")]:
            os.chown(path, account, account)
        become = ["setpriv", "--reuid", str(account), "--regid", str(account), "--clear-groups"]
        environment = {**pip_environment(), "HOME": str(home), "PATH": "/usr/bin:/bin"}
        made = subprocess.run(
            [*become, str(python), "-m", "venv", str(home / "venv")], check=False, env=environment, capture_output=True
        )
        if made.returncode != 0:
            pytest.skip("the system's Python cannot make virtual environments here")
        built = subprocess.run(
            [*become, str(home / "venv" / "bin" / "python"), "-c", program],
            check=False,
            capture_output=True,
            text=True,
            env=environment,
            cwd="/",
        )
        assert built.returncode == 0, built.stderr
        home.chmod(0o755)
        told = run_inside(Path(built.stdout.strip()), "import greeter, ssl, sqlite3, ctypes")
        assert told.returncode == 0, told.stderr
    finally:
        shutil.rmtree(home)
