"""What a job finds in its file system, and where it may write."""

from tests.attacks.case import Case

FILES = (
    Case(
        "C01 nothing outside the four private folders can be written",
        """
import os
private = ("/scratch", "/out", "/tmp", "/dev/shm")
written = []
def try_folder(folder):
    path = os.path.join(folder, "crank-canary")
    for attempt in (lambda: os.close(os.open(path, os.O_CREAT | os.O_WRONLY)), lambda: os.mkdir(path + "d"),
                    lambda: os.symlink("x", path + "l"), lambda: os.chmod(folder, 0o777),
                    lambda: os.close(os.open(folder, os.O_TMPFILE | os.O_WRONLY)), lambda: os.utime(folder)):
        try:
            attempt()
            written.append(folder)
        except OSError:
            pass
for folder, folders, names in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in private
                  and not (folder == "/proc" and (name.isdigit() or name.endswith("self")))]
    if folder in private:
        continue
    try_folder(folder)
    for name in names[:20]:
        path = os.path.join(folder, name)
        if path in ("/dev/null", "/dev/zero", "/dev/full") or os.path.islink(path):
            continue
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK))
                written.append(path)
            except OSError:
                pass
        try:
            os.unlink(path)
            written.append(path)
        except OSError:
            pass
try_folder("/proc/self"), try_folder("/proc/self/fd")
sorted(set(written))
""",
        result=[],
        limits={"wall_sec": 60, "cpu_sec": 60},
    ),
    Case(
        "C01 what can be written cannot be run",
        """
import ctypes, shutil
shutil.copy("/opt/python/bin/python3.11", "/scratch/p")
answers = []
import mmap, os
for place in ("/scratch", "/out", "/tmp", "/dev/shm"):
    path = place + "/code"
    with open(path, "wb") as target:
        target.write(bytes(4096))
    with open(path, "rb") as source:
        try:
            mmap.mmap(source.fileno(), 4096, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC)
            answers.append(place)
        except OSError:
            pass
answers
""",
        result=[],
    ),
    Case(
        "C03 C06 nothing of the host",
        """
import os
[path for path in ("/etc/shadow", "/home", "/sys/kernel", "/var/run/docker.sock", "/run", "/boot", "/mnt",
                   "/etc/machine-id", "/var/lib", "/var/log", "/proc/kcore/x", "/sys/fs/cgroup", "/etc/crank")
 if os.path.exists(path)]
""",
        result=[],
    ),
    Case(
        "C07 only five harmless devices",
        """
import os, stat
devices = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    for name in names:
        path = os.path.join(folder, name)
        mode = os.lstat(path).st_mode
        if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            devices.append(path)
made = []
for major, minor in ((1, 1), (1, 2), (1, 11), (5, 0), (7, 0), (8, 0), (10, 200), (10, 229), (10, 232), (254, 0)):
    for kind in (stat.S_IFCHR, stat.S_IFBLK):
        for place in ("/scratch", "/dev/shm", "/out", "/tmp"):
            try:
                os.mknod(f"{place}/d", 0o600 | kind, os.makedev(major, minor))
                made.append((major, minor))
            except OSError:
                pass
opened = []
for name in ("tty", "console", "ptmx", "kmsg", "mem", "kvm", "fuse", "net/tun", "loop-control", "vda", "sda", "hwrng"):
    if os.path.exists("/dev/" + name):
        opened.append(name)
[sorted(devices), made, opened]
""",
        result=[["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"], [], []],
    ),
    Case(
        "C07 the host is masked in /proc",
        """
import os
shown = []
for name in ("kallsyms", "keys", "key-users", "timer_list", "sched_debug", "kcore", "interrupts", "cmdline", "iomem",
             "modules", "diskstats", "vmallocinfo", "slabinfo", "config.gz", "partitions", "swaps", "locks"):
    try:
        if open("/proc/" + name, "rb").read(1):
            shown.append(name)
    except OSError:
        pass
shown
""",
        result=[],
    ),
    Case(
        "C09 strange names and deep trees",
        """
import os
os.makedirs("/out/plain")
open("/out/plain/kept.txt", "w").write("kept")
os.open(b"/out/bad\\xff", os.O_CREAT | os.O_WRONLY)
open("/out/new\\nline", "w")
open("/out/" + "n" * 255, "w")
open("/out/\\u202egpj.exe", "w")
os.symlink("/etc/passwd", "/out/link")
os.symlink("..", "/out/up")
os.chdir("/out")
for _ in range(5_000):
    os.mkdir("d" * 10)
    os.chdir("d" * 10)
""",
        limits={"wall_sec": 30},
    ),
)
