"""The promised paths by translation: what is beneath a place is found where it is, everything else is as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crank.sandbox.guest_paths import Places

SOURCE = Path(__file__).resolve().parents[3] / "src"


@pytest.fixture
def places() -> Places:
    """Give places in a yard beside a profile that lies beneath a place of the same name."""
    return Places({"/scratch": "/y/scratch", "/tmp": "/y/tmp"}, ["/tmp/profile"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/scratch", "/y/scratch"),
        ("/scratch/a/b", "/y/scratch/a/b"),
        ("//scratch//a/./b", "/y/scratch/a/b"),
        (b"/tmp/x", b"/y/tmp/x"),
        (Path("/tmp/x"), "/y/tmp/x"),
        ("/scratch/../etc", "/y/scratch/../etc"),
        ("/scratchy", "/scratchy"),
        ("scratch/a", "scratch/a"),
        ("/etc/passwd", "/etc/passwd"),
        ("/tmp/profile/lib", "/tmp/profile/lib"),
        ("/tmp/profiles", "/y/tmp/profiles"),
        (3, 3),
        (None, None),
    ],
)
def test_only_what_lies_beneath_a_place_is_translated(places: Places, path: object, found: object) -> None:
    """A path means the same file as with a mount there, whatever type it has; others and descriptors are left alone."""
    assert places.behind(path) == found


def test_a_real_path_has_its_promised_name_again(places: Places) -> None:
    """The working folder is told by the name that the job knows."""
    assert places.named("/y/scratch/a") == "/scratch/a"
    assert places.named("/elsewhere") == "/elsewhere"


_SCRIPT = """
import io, os, pathlib, shutil, sqlite3, subprocess, sys, tempfile, zipfile
yard = sys.argv[1]
sys.path.insert(0, sys.argv[2])
from crank.sandbox.guest_paths import Places, install
for name in ("scratch", "out"):
    os.mkdir(f"{yard}/{name}")
install(Places({"/scratch": f"{yard}/scratch", "/out": f"{yard}/out"}, []))
os.chdir("/scratch")
pathlib.Path("/scratch/a/b").mkdir(parents=True)
pathlib.Path("/scratch/a/b/x.txt").write_text("x")
shutil.copy("/scratch/a/b/x.txt", "/out/copy.txt")
shutil.copytree("/scratch/a", "/out/tree")
os.rename("/out/copy.txt", "/out/moved.txt")
os.symlink("/scratch/a", "/out/link")
with zipfile.ZipFile("/out/z.zip", "w") as archive:
    archive.write("/scratch/a/b/x.txt", "x.txt")
sqlite3.connect("/scratch/db").execute("create table t (a)")
with tempfile.NamedTemporaryFile(dir="/scratch") as named:
    assert os.path.exists(named.name)
walked = sorted(name for _, _, names in os.walk("/scratch/a") for name in names)
started = subprocess.run([sys.executable, "-c", "import sys; print(open(sys.argv[1]).read())", "/out/moved.txt"],
                         capture_output=True, text=True).stdout
shutil.rmtree("/out/tree")
print([os.getcwd(), walked, sorted(os.listdir("/out")), started, os.path.realpath("b"), open("/out/link/b/x.txt").read(),
       io.open("/scratch/a/b/x.txt").read(), [entry.name for entry in os.scandir("/scratch/a")]])
"""


def test_the_standard_library_finds_them(tmp_path: Path) -> None:
    """open, os, pathlib, shutil, zipfile, sqlite3, tempfile and arguments of programs all lead to the real folders."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", _SCRIPT, str(tmp_path), str(SOURCE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == str(
        ["/scratch", ["x.txt"], ["link", "moved.txt", "z.zip"], "x\n", "/scratch/b", "x", "x", ["b"]]
    )
    assert (tmp_path / "scratch" / "db").exists()
    assert os.path.lexists(tmp_path / "out" / "link")
