"""What a job leaves in its folders to be found, collected and removed by somebody else."""

from tests.attacks.case import RAW, X86, Case

_ALWAYS = {"wall_sec": 30}

FILES_TRICKS = (
    Case(
        "C04 the root holds what the profile lists, and the table of mounts names nothing of the host",
        """
import os
strange = set(os.listdir("/")) & {"boot", "home", "media", "mnt", "run", "srv", "sys", "lost+found"}
table = open("/proc/self/mountinfo").read().splitlines()
options = [line.split()[4] for line in table if "ro" not in line.split()[5].split(",") and
           line.split()[4] not in ("/scratch", "/out", "/tmp", "/dev/shm", "/proc", "/dev/null", "/dev/zero", "/dev/full",
                                    "/dev/random", "/dev/urandom")]
unsafe = [line.split()[4] for line in table if "nosuid" not in line.split()[5]]
[sorted(strange), options, unsafe, sorted(os.listdir("/dev"))]
""",
        result=[
            *([], [], []),
            ["fd", "full", "null", "random", "shm", "stderr", "stdin", "stdout", "urandom", "zero"],
        ],
    ),
    Case(
        "C09 a path that is too long, in every call",
        """
import os
refused = 0
for call in (os.stat, os.listdir, os.mkdir, os.unlink, os.readlink, lambda path: open(path, "w"),
             lambda path: os.symlink("x", path), lambda path: os.rename("/scratch", path), os.chdir):
    for path in ("/scratch/" + "x" * 4097, "/scratch/" + "a/" * 5000, "y" * 70_000, "/scratch/" + "z" * 256):
        try:
            call(path)
        except OSError:
            refused += 1
os.symlink("x" * 4000, "/out/long-link")
refused
""",
        result=36,
        artifacts=(),
    ),
    Case(
        "C09 X19 names that act: escapes, line ends, formats, options, reserved words",
        r"""
import os
names = [b"\x1b]52;c;aGVsbG8=\x07", b"a\nb", b"a\rb", b"%s%n%x", b"--help", b"-rf", b"$(reboot)", b"`id`", b"a;b", b"a|b", b"CON",
         b"nul", b"..\\..\\x", b"\xff\xfe", b" ", b".", b"...", b"a ", b"\xe2\x80\xaegpj.exe", b"a'b", b'a"b', b"<script>", b"{{7*7}}",
         b"\xcc\x81", b"e\xcc\x81", b"\xc3\xa9", b"A", b"a", b"~", b"#", b"x" * 255, b"a:b", b"a\tb", b"\x7f", b"\xed\xa0\x80"]
for number, name in enumerate(names):
    try:
        os.close(os.open(b"/out/" + name, os.O_CREAT | os.O_WRONLY))
    except OSError:
        pass
os.mkdir(b"/out/\x1b[2J")
open(b"/out/\x1b[2J/inner", "w").write("x")
len(os.listdir(b"/out"))
""",
        result=35,
        limits=_ALWAYS,
    ),
    Case(
        "C10 G07 modes of nothing, flags and attributes do not keep the folder from being removed",
        RAW
        + """
import os
for name in ("a", "b", "c"):
    os.makedirs(f"/out/{name}/deep/deeper")
    open(f"/out/{name}/deep/deeper/file", "w").write("x")
    for attribute in ("user.x", "trusted.x", "security.x", "system.posix_acl_access"):
        try:
            os.setxattr(f"/out/{name}", attribute, b"x" * 100)
        except OSError:
            pass
    for flags in (0x10, 0x20, 0x30):
        fd = os.open(f"/out/{name}/deep/deeper/file", os.O_RDONLY)
        libc.ioctl(fd, 0x40086602, ctypes.byref(ctypes.c_long(flags)))
for name in ("a", "b", "c"):
    os.chmod(f"/out/{name}/deep/deeper/file", 0)
    os.chmod(f"/out/{name}/deep/deeper", 0)
    os.chmod(f"/out/{name}/deep", 0)
    os.chmod(f"/out/{name}", 0)
os.chmod("/out", 0), os.chmod("/scratch", 0), os.chmod("/tmp", 0)
""",
        limits=_ALWAYS,
    ),
    Case(
        "C12 a file that has no name any more still counts",
        """
import os
descriptors = []
while True:
    fd = os.open("/scratch/x", os.O_CREAT | os.O_WRONLY)
    os.unlink("/scratch/x")
    descriptors.append(fd)
    os.write(fd, bytes(1 << 20))
""",
        reasons=("disk",),
        limits={"disk_bytes": 8 << 20},
    ),
    Case(
        "C13 leases, watches and notices on files that all jobs share",
        RAW
        + X86
        + """
import fcntl, os
file = open("/opt/python/lib/python3.11/os.py")
got = []
for command, value in ((1024, 0), (1024, 1), (1026, 0x8000000F), (10, 34)):
    try:
        fcntl.fcntl(file, command, value)
        got.append(command)
    except OSError:
        pass
got += [name for name in ("inotify_init1", "fanotify_init") if getattr(libc, name)(0, 0) >= 0]
got
""",
        result=[10],  # F_SETSIG alone says which signal a lease would bring; no lease can be had.
    ),
    Case(
        "G03 links in /out are never followed, whatever they point at",
        """
import os
host = args["host"]
os.makedirs("/out/real")
open("/out/real/kept.txt", "w").write("kept")
for number, target in enumerate((host["file"], "/etc/passwd", "/", "..", "../../..", "/proc/self/environ", "/proc/1/root", ".",
                                 "/dev/zero", "/scratch", "real", "real/kept.txt", "/out/real/kept.txt", "loop")):
    os.symlink(target, f"/out/link{number}")
os.symlink("loop", "/out/loop")
os.link("/out/real/kept.txt", "/out/hard")
""",
        artifacts=("hard", "real/kept.txt"),
    ),
    Case(
        "G03 X20 a tree that is swapped for links until the last moment",
        """
import os, threading, time
os.makedirs("/out/d")
open("/out/d/f", "w").write("mine")
os.symlink(os.path.dirname(args["host"]["file"]), "/out/other")
def swap():
    while True:
        try:
            os.rename("/out/d", "/out/d2")
            os.rename("/out/other", "/out/d")
            os.rename("/out/d", "/out/other")
            os.rename("/out/d2", "/out/d")
        except OSError:
            pass
for _ in range(4):
    threading.Thread(target=swap, daemon=True).start()
time.sleep(0.5)
os._exit(0)
""",
    ),
    Case(
        "G04 what is no plain file is not collected; a sparse file is what it says or is left out",
        """
import os, socket
for make in (lambda: os.mkfifo("/out/fifo"), lambda: os.mknod("/out/device", 0o600 | 0o20000, os.makedev(1, 3)),
             lambda: socket.socket(socket.AF_UNIX).bind("/out/socket")):
    try:
        make()
    except OSError:
        pass
with open("/out/sparse", "wb") as sparse:
    sparse.truncate(200 << 20)
try:
    open("/out/sparse2", "wb").truncate(1 << 50)
except OSError:
    pass
open("/out/plain", "w").write("x")
""",
        reasons=("exited", "signalled", "file_size"),
        limits=_ALWAYS,
    ),
    Case(
        "X21 a sparse file of the size of a galaxy is cut off by its own limit",
        "f = open('/scratch/galaxy', 'wb')\nf.truncate((1 << 62))\n",
        reasons=("signalled", "raised", "disk", "file_size"),
    ),
    Case(
        "G06 more files than are collected, and names that differ in case or form alone",
        """
import os
for number in range(3_000):
    os.close(os.open(f"/out/{number:05}", os.O_CREAT | os.O_WRONLY))
for name in ("Readme", "README", "readme", "\\u00e9", "e\\u0301"):
    open("/out/" + name, "w").write(name)
""",
        limits=_ALWAYS,
    ),
    Case(
        "X22 a tree made deeper by renames than any path can say",
        """
import os
os.makedirs("/out/a/" + "d/" * 400)
for turn in range(40):
    os.makedirs(f"/out/b{turn}/" + "d/" * 400)
    os.chdir(f"/out/b{turn}/" + "d/" * 400)
    os.rename("/out/a", "a")
    os.rename(f"/out/b{turn}", "/out/a")
    os.chdir("/out")
open("/out/top", "w").write("x")
""",
        limits=_ALWAYS,
    ),
    Case(
        "X23 a storm of hard links to one file",
        """
import itertools, os
open("/out/one", "w").write("x" * 1000)
for number in itertools.count():
    os.link("/out/one", f"/out/{number}")
""",
        reasons=("disk", "inodes", "raised", "timeout"),
        limits={"wall_sec": 10},
    ),
    Case(
        "X24 every byte of the disk as names",
        """
import itertools, os
for number in itertools.count():
    os.symlink("t" * 4000, f"/out/{number:0>200}")
""",
        reasons=("disk", "inodes", "memory", "timeout"),
        limits={"wall_sec": 20},
    ),
    Case(
        "X25 the working folder removed from under the job",
        """
import os
os.mkdir("/scratch/here")
os.chdir("/scratch/here")
os.rmdir("/scratch/here")
try:
    os.getcwd()
except FileNotFoundError:
    result = "gone"
""",
        result="gone",
    ),
    Case(
        "G09 an archive with links, absolute names and devices, unpacked as carelessly as can be",
        """
import io, os, tarfile
made = io.BytesIO()
with tarfile.open(fileobj=made, mode="w") as archive:
    for name, kind, target in (("../../../tmp/up", tarfile.REGTYPE, ""), ("/etc/passwd", tarfile.REGTYPE, ""),
                               ("l", tarfile.SYMTYPE, "/"), ("l/opt/evil", tarfile.REGTYPE, ""), ("dev", tarfile.CHRTYPE, ""),
                               ("h", tarfile.LNKTYPE, "/opt/python/bin/python3.11"), (args["host"]["file"], tarfile.REGTYPE, "")):
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname, entry.mode = kind, target, 0o6777
        archive.addfile(entry, io.BytesIO())
made.seek(0)
os.chdir("/scratch")
with tarfile.open(fileobj=made) as archive:
    for entry in archive.getmembers():
        try:
            archive.extract(entry, "/scratch")
        except (OSError, KeyError):
            pass
["job" in open("/etc/passwd").read(), os.path.exists("/opt/evil")]
""",
        result=[True, False],
    ),
)
