"""Who a job is, and whom it can see or become."""

from tests.attacks.case import Case

IDENTITY = (
    Case(
        "B01 own status",
        """
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
[*(int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")),
 status["NoNewPrivs"].strip(), status["Seccomp"].strip(), status["Uid"].split(), status["Groups"].split()[:0]]
""",
        result=[0, 0, 0, 0, 0, "1", "2", ["1000"] * 4, []],
    ),
    Case(
        "B03 kernel settings cannot be opened for writing",
        """
import errno, os
answers = {}
for folder, _, names in os.walk("/proc/sys"):
    for name in names:
        path = os.path.join(folder, name)
        for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
            try:
                os.close(os.open(path, flags))
                answers[path] = "opened"
            except OSError as fault:
                if fault.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                    answers[path] = errno.errorcode[fault.errno]
for name in ("core_pattern", "modprobe", "hotplug", "printk"):
    assert not os.access("/proc/sys/kernel/" + name, os.W_OK)
for path in ("/proc/sysrq-trigger", "/proc/self/oom_score_adj", "/proc/self/uid_map", "/proc/1/oom_score_adj"):
    try:
        open(path, "w").write("1")
        answers[path] = "written"
    except OSError:
        pass
answers
""",
        result={},
    ),
    Case(
        "B04 becoming somebody else",
        """
import os
answers = []
for attempt in (lambda: os.setuid(0), lambda: os.setresuid(0, 0, 0), lambda: os.setgid(0), lambda: os.setgroups([0]),
                lambda: os.setreuid(0, 0), lambda: os.setuid(65534), lambda: os.setgroups([])):
    try:
        attempt()
        answers.append("allowed")
    except PermissionError:
        pass
[answers, os.getuid(), os.geteuid(), os.getgid()]
""",
        result=[[], 1000, 1000, 1000],
    ),
    Case(
        "B06 special files are refused or inert",
        """
import os, stat
answers = []
for kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
    try:
        os.mknod("/scratch/node", 0o666 | kind, os.makedev(1, 1))
        answers.append(kind)
    except PermissionError:
        pass
os.close(os.open("/scratch/s", os.O_CREAT | os.O_WRONLY))
os.chmod("/scratch/s", 0o6755)
try:
    os.link("/opt/python/bin/python3.11", "/scratch/python")
    answers.append("link")
except OSError:
    pass
answers
""",
        result=[],
    ),
    Case(
        "B07 only own processes, and killing everybody kills nobody else",
        """
import os, signal
seen = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
def attempt(pid):
    try:
        os.kill(pid, signal.SIGKILL)
        return "sent"
    except OSError:
        return "refused"
others = {attempt(pid) for pid in range(3, 2000)}
attempt(-1), attempt(1), attempt(os.getppid())
# The init ignores what comes from inside, even where sending is allowed.
[seen == [1, os.getpid()], others, os.path.exists("/proc/1")]
""",
        result=[True, ["refused"], True],
    ),
    Case(
        "B09 the first process keeps its own",
        """
import os
got = []
for pid in ("1", str(os.getppid())):
    for name in ("environ", "mem", "maps", "root", "cwd", "exe", "fd", "stack", "auxv", "io"):
        path = f"/proc/{pid}/{name}"
        try:
            if name in ("root", "cwd", "exe"):
                got.append((name, os.readlink(path)))
            elif name == "fd":
                got.append((name, os.listdir(path)))
            elif open(path, "rb").read(64):
                got.append((name, "read"))
        except OSError:
            pass
[got, open("/proc/1/cmdline").read().strip("\\0")]
""",
        result=[[], "crank-init"],
    ),
    Case(
        "B10 no way out through /proc links and open folders",
        """
import os
names = sorted(os.listdir("/"))
def seen(path):
    try:
        return sorted(os.listdir(path))
    except OSError:
        return names
wrong = [path for path in ("/proc/self/root", "/proc/self/cwd/..", "/..", "/scratch/../..", "/proc/self/fd/0/..")
         if seen(path) != names]
for fd in os.listdir("/proc/self/fd"):
    if seen(f"/proc/self/fd/{fd}/../../..") != names:
        wrong.append(fd)
top = os.open("/", os.O_RDONLY)
for _ in range(20):
    top = os.open("..", os.O_RDONLY, dir_fd=top)
if sorted(os.listdir(top)) != names:
    wrong.append("dirfd")
wrong
""",
        result=[],
    ),
)
