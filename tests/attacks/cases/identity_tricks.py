"""Reconnaissance, signals to those who watch, and attempts at the canary of the host by name."""

from tests.attacks.case import RAW, X86, Case

IDENTITY_TRICKS = (
    Case(
        "B12 I04 no tool of a container, a network or a shell is there, and none can be brought",
        """
import os, shutil, stat
names = ("unshare", "nsenter", "bwrap", "runsc", "docker", "podman", "runc", "sudo", "su", "mount", "newuidmap", "sh",
         "bash", "curl", "wget", "ping", "nc", "ncat", "ssh", "socat", "busybox", "gdb", "strace", "perl", "gcc", "ld")
found = [name for name in names if shutil.which(name)]
privileged = []
for folder, _, files in os.walk("/"):
    if folder.startswith("/proc"):
        continue
    for name in files:
        mode = os.lstat(os.path.join(folder, name)).st_mode
        if stat.S_ISREG(mode) and mode & (stat.S_ISUID | stat.S_ISGID):
            privileged.append(name)
shutil.copy("/opt/python/bin/python3.11", "/scratch/tool")
os.chmod("/scratch/tool", 0o755)
pid = os.fork()
if pid == 0:
    try:
        os.execv("/scratch/tool", ["tool", "-c", "0"])
    except PermissionError:
        os._exit(33)
[found, privileged, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]
""",
        programs=True,
        result=[[], [], 33],
    ),
    Case(
        "B13 what reconnaissance tools look for is not there",
        """
import os
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
findings = [name for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh") if int(status[name], 16)]
findings += [path for path in ("/.dockerenv", "/run/.containerenv", "/var/run/docker.sock", "/run/containerd/containerd.sock",
             "/var/run/secrets/kubernetes.io", "/sys/kernel/uevent_helper", "/sys/fs/cgroup/release_agent", "/dev/mem",
             "/dev/kmsg", "/proc/kcore", "/proc/config.gz", "/sys/kernel/security", "/sys/firmware", "/lib/modules")
             if os.path.exists(path) and os.access(path, os.R_OK) and (os.path.isdir(path) or open(path, "rb").read(1))]
maps = open("/proc/self/uid_map").read().split()
findings += ["root of the host is mapped"] if maps[1] == "0" and maps[0] == "0" else []
findings += ["more than one id"] if maps[2] != "1" else []
findings += ["uid 0"] if 0 in os.getresuid() + os.getresgid() else []
cgroup = open("/proc/self/cgroup").read() if os.path.exists("/proc/self/cgroup") else ""
findings += ["the group of the host"] if "crank" in cgroup else []
table = open("/proc/self/mountinfo").read()
findings += [word for word in ("/var/lib", "/home", "overlay2", "docker", "/" + "toor"[::-1] + "/", "crank-tests", "profiles") if word in table]
findings += [name for name in os.listdir("/proc/self/ns") if name == "time_for_children" and False]
findings += ["release agent"] if "release_agent" in table else []
[findings, os.uname().nodename]
""",
        result=[[], "crank"],
    ),
    Case(
        "B10 the canary cannot be reached by its path, from anywhere",
        """
import os
host = args["host"]
reached = []
roots = ["", "/proc/self/root", "/proc/1/root", f"/proc/{host['pid']}/root", f"/proc/{host['pid']}/cwd", "/proc/self/cwd/../..",
         *(f"/proc/self/fd/{fd}/../../../.." for fd in range(10))]
for root in roots:
    for path in (host["file"], host["shared"], os.path.dirname(host["file"])):
        try:
            os.stat(root + path)
            reached.append(root + path)
            reached.append(open(root + path).read())
        except OSError:
            pass
        try:
            open(root + path, "r+").write("spoiled")
            reached.append("written")
        except OSError:
            pass
reached
""",
        result=[],
    ),
    Case(
        "B07 the canary cannot be signalled, seen, slowed or stopped",
        """
import os, signal
host = args["host"]
got = []
for pid in (host["pid"], -host["pid"], host["keeper"], -host["keeper"]):
    for number in (0, signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM, signal.SIGCONT, 34, 64):
        try:
            os.kill(pid, number)
            got.append((pid, int(number)))
        except OSError:
            pass
for name in ("environ", "maps", "mem", "status", "cmdline", "fd", "ns/mnt", "root"):
    if os.path.lexists(f"/proc/{host['pid']}/{name}"):
        got.append(name)
try:
    os.open(f"/proc/{host['pid']}/oom_score_adj", os.O_WRONLY)
    got.append("oom")
except OSError:
    pass
got
""",
        result=[],
    ),
    Case(
        "I01 I03 H04 the canary's sockets cannot be reached, by any call",
        RAW
        + X86
        + """
import os, socket, struct
host = args["host"]
got = []
internet = struct.pack("!HHI8x", socket.htons(2), host["port"], 0x7F000001)
abstract = b"\\x01\\0\\0" + host["socket"].encode()
pair = socket.socketpair()
numbers = {"connect": (42, 203), "sendto": (44, 206), "bind": (49, 200)}
for address in (internet, abstract):
    for fd in (0, 1, 2, 3, 4, 5, pair[0].fileno()):
        data = ctypes.create_string_buffer(address)
        connect, bind = numbers["connect"][0 if x86 else 1], numbers["bind"][0 if x86 else 1]
        for answer in (raw(connect, fd, data, len(address)), raw(bind, fd, data, len(address)),
                       raw(numbers["sendto"][0 if x86 else 1], fd, b"x", 1, 0, data, len(address))):
            if answer == "allowed":
                got.append((fd, address == internet))
for family in (1, 2, 10, 16, 40):
    fd = libc.socket(family, 1, 0)
    if fd >= 0:
        got.append(family)
# A pair of datagram sockets is allowed; it must not be able to speak to a name.
for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET, socket.SOCK_STREAM):
    left, right = socket.socketpair(socket.AF_UNIX, kind)
    for target in ("\\0" + host["socket"], host["file"], "/tmp/x", "\\0x"):
        for attempt in (lambda: left.sendto(b"x", target), lambda: left.sendmsg([b"x"], [], 0, target)):
            try:
                attempt()
                # A connected pair ignores the name: then it must have come out at its own other end.
                got += [] if right.recv(2, socket.MSG_DONTWAIT) == b"x" else [(int(kind), target)]
            except OSError:
                pass
got
""",
        result=[],
    ),
    Case(
        "X16 stopping, killing and continuing the first process from inside",
        """
import os, signal
for number in range(1, 65):
    for pid in (1, os.getppid()):
        try:
            os.kill(pid, number)
        except (OSError, ValueError):
            pass
import time
time.sleep(0.2)
open("/proc/1/status").read().split("State:\\t")[1][0] in "SR"
""",
        reasons=("exited",),
        result=True,
    ),
    Case(
        "X17 stopping itself while a child would continue it",
        """
import os, signal, time
if os.fork() == 0:
    while ") T " not in open(f"/proc/{os.getppid()}/stat").read():
        time.sleep(0.05)
    os.kill(os.getppid(), signal.SIGCONT)
    os._exit(0)
os.kill(os.getpid(), signal.SIGSTOP)
"continued"
""",
        programs=True,
        result="continued",
    ),
    Case(
        "X18 a process title that looks like one of ours",
        """
import ctypes
libc = ctypes.CDLL(None)
libc.prctl(15, b"crank-zygote", 0, 0, 0)
try:
    open("/proc/self/comm", "w").write("crank-launcher")
except OSError:
    pass
open("/proc/self/comm").read()
""",
        result="crank-zygote\n",
    ),
    Case(
        "E07 a new session, a new group and an orphan are still the job's",
        """
import os, signal, time
for leave in (os.setsid, os.setpgrp, lambda: os.setpgid(0, 0)):
    if os.fork() == 0:
        try:
            leave()
        except OSError:
            pass
        if os.fork() == 0:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            while True:
                time.sleep(1)
        os._exit(0)
    os.wait()
try:
    open("/proc/self/cgroup").read(), os.listdir("/sys/fs/cgroup")
except OSError:
    pass
sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[-1] > 4
""",
        programs=True,
        result=True,
    ),
)
