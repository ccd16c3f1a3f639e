"""The network, secrets and descriptors."""

from tests.attacks.case import Case

BORDERS = (
    Case(
        "I01 every address is refused at once",
        """
import errno, socket, time
wrong = []
began = time.monotonic()
for host in ("127.0.0.1", "::1", "10.0.0.1", "169.254.169.254", "8.8.8.8", "2001:4860:4860::8888", "localhost"):
    for attempt in (lambda: socket.create_connection((host, 80), timeout=5),
                    lambda: socket.getaddrinfo(host, 80), lambda: socket.gethostbyname(host)):
        try:
            attempt()
            wrong.append((host, "allowed"))
        except PermissionError as fault:
            if "closed by design" not in str(fault):
                wrong.append((host, str(fault)))
        except OSError as fault:
            wrong.append((host, str(fault)))
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            wrong.append((family, kind))
        except PermissionError:
            pass
left, right = socket.socketpair()
left.send(b"x")
[wrong, right.recv(1) == b"x", time.monotonic() - began < 5]
""",
        result=[[], True, True],
    ),
    Case(
        "I01 urllib says that the network is closed",
        """
import urllib.request
try:
    urllib.request.urlopen("http://example.invalid/", timeout=3)
except OSError as fault:
    text = str(fault)
"closed by design" in text
""",
        result=True,
    ),
    Case(
        "I03 a socket file cannot be reached",
        """
import ctypes, socket
pair = socket.socketpair()
libc = ctypes.CDLL(None, use_errno=True)
address = b"\\x01\\x00/scratch/x\\0"
sorted({getattr(libc, name)(pair[0].fileno(), address, len(address)) for name in ("connect", "bind")}
       | {libc.listen(pair[0].fileno(), 1), libc.accept(pair[0].fileno(), None, None)})
""",
        result=[-1],
    ),
    Case(
        "J01 the environment is the declared list",
        "import os\nsorted(os.environ)\n",
        result=[
            *("HOME", "LANG", "LOGNAME", "MPLBACKEND", "MPLCONFIGDIR", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "PATH"),
            *("PYTHONDONTWRITEBYTECODE", "TMPDIR", "TZ", "USER"),
        ],
    ),
    Case(
        "J01 also in the kernel's own copy",
        """
names = {entry.split(b"=")[0].decode() for entry in open("/proc/self/environ", "rb").read().split(b"\\0") if entry}
import os
[sorted(names - set(os.environ) - {"MKL_NUM_THREADS"}), "CRANK" in str(names)]
""",
        result=[[], False],
    ),
    Case(
        "J03 no descriptor of ours leads out",
        """
import os, stat
strange = []
for name in os.listdir("/proc/self/fd"):
    fd = int(name)
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        continue
    if stat.S_ISDIR(mode) or stat.S_ISSOCK(mode):
        strange.append(fd)
for fd in range(0, 300):
    try:
        os.fchdir(fd)
        strange.append(("chdir", fd))
    except OSError:
        pass
    try:
        os.stat(f"/proc/self/fd/{fd}/..")
        strange.append(("dotdot", fd))
    except OSError:
        pass
[strange, os.getcwd(), os.readlink("/proc/self/cwd")]
""",
        result=[[], "/scratch", "/scratch"],
    ),
    Case(
        "J03 a started program inherits nothing more, and a program that is not listed does not start",
        """
import os, sys
reader, writer = os.pipe()
pid = os.fork()
if pid == 0:
    os.dup2(writer, 1)
    try:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"])
    except PermissionError:
        os.write(1, b"['0', '1', '2', '3']")
        os._exit(0)
os.waitpid(pid, 0)
os.read(reader, 1000).decode().strip()
""",
        programs=True,
        result="['0', '1', '2', '3']",
    ),
    Case(
        "J09 stdin is empty",
        "import sys\n[sys.stdin.read(), sys.stdin.isatty()]\n",
        result=["", False],
    ),
)
