"""Two jobs on one worker: what the first leaves, holds or shows must not reach the second."""

from tests.attacks.case import MEMORY, RAW, X86, Case, Pair

_HOLD = "import time\nprint('ready', flush=True)\nwhile True:\n    time.sleep(0.05)\n"
_BOTH = {"wall_sec": 15}


def _holding(code: str, *, programs: bool = False) -> Case:
    return Case("V02 the first", code + _HOLD, programs=programs, limits=_BOTH, reasons=("cancelled",))


def _second(code: str, result: object, *, programs: bool = False) -> Case:
    return Case("V03 the second", code, programs=programs, limits=_BOTH, result=result)


_PLACES = '("/tmp", "/var/tmp", "/dev/shm", "/run", "/run/lock", "/scratch", "/out", os.path.expanduser("~"), os.getcwd())'
_LEAVE = f"""
import os
left = []
for folder in {_PLACES}:
    try:
        open(os.path.join(folder, "crank-left-behind"), "w").write("secret")
        left.append(folder)
    except OSError:
        pass
len(left) > 0
"""
_FIND = """
import os
found = []
for folder, folders, names in os.walk("/"):
    if folder == "/":
        folders.remove("proc")
    found += [os.path.join(folder, name) for name in names if name == "crank-left-behind"]
[found, *(sorted(os.listdir(place)) for place in ("/tmp", "/dev/shm", "/scratch", "/out"))]
"""
_LOCK = "import fcntl\nf = open('/opt/python/lib/python3.11/os.py')\nfcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"

_SOURCES = """
import hashlib, os, random, secrets, ssl, tempfile, threading, uuid
rows = [["random", random.random()], ["randbytes", random.randbytes(8).hex()], ["shuffled", random.sample(range(10**6), 4)],
        ["uuid4", str(uuid.uuid4())], ["uuid1", str(uuid.uuid1())], ["urandom", os.urandom(8).hex()],
        ["ssl", ssl.RAND_bytes(8).hex()], ["secrets", secrets.token_hex(8)], ["tempfile", tempfile.mktemp()],
        ["getrandom", os.getrandom(8).hex()], ["system random", random.SystemRandom().random()],
        ["AT_RANDOM", open("/proc/self/auxv", "rb").read().hex()[-1:] + os.urandom(4).hex()]]
rows
"""

PAIRS = (
    Pair("H01 what one job leaves everywhere, the next does not find",
         Case("V02 leaves", _LEAVE, result=True), _second(_FIND, [[], [], [], [], []])),
    Pair("H01 what one job holds everywhere, another beside it does not find",
         _holding(_LEAVE), _second(_FIND, [[], [], [], [], []]), together=True),
    Pair(
        "H03 H04 sockets with a name, queues and semaphores of two jobs are apart",
        _holding(
            "import multiprocessing, os, socket\nleft, right = socket.socketpair()\n"
            "for name in ('\\0crank-meeting', '/tmp/meeting'):\n    try:\n        socket.socket(socket.AF_UNIX).bind(name)\n"
            "    except OSError:\n        pass\nopen('/dev/shm/sem.meeting', 'w').write('x')\n"
        ),
        _second(
            "import os, socket\ngot = []\nfor name in ('\\0crank-meeting', '/tmp/meeting'):\n    try:\n"
            "        socket.socket(socket.AF_UNIX).connect(name)\n        got.append(name)\n    except OSError:\n        pass\n"
            "try:\n    table = open('/proc/net/unix').read().count('meeting')\nexcept OSError:\n    table = 0\n"
            "[got, os.path.exists('/dev/shm/sem.meeting'), table]\n",
            [[], False, 0],
        ),
        together=True,
    ),
    Pair(
        "X87 descriptors that one job has on their way keep no other job from being made",
        _holding(
            """
import array, os, socket
passed, kept = 0, []
try:
    for _ in range(64):
        kept.append(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        for _ in range(8):
            kept[-1][0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 253))], socket.MSG_DONTWAIT)
            passed += 253
except OSError:
    pass
assert passed > 512, passed
"""
        ),
        # A limit of its own, so that none that stands already is taken.
        Case("V03 the second", "'made'", limits={**_BOTH, "inodes": 4_321}, result="made"),
        together=True,
    ),
    Pair(
        "X96 processes that one job has, as many as it may, leave another its own",
        _holding(
            """
import os, time
for _ in range(60):
    if os.fork() == 0:
        time.sleep(60)
""",
            programs=True,
        ),
        _second(
            "import threading, time\nstarted = [threading.Thread(target=time.sleep, args=(0.5,)) for _ in range(40)]\n"
            "for thread in started:\n    thread.start()\nfor thread in started:\n    thread.join()\n'had its own'",
            "had its own",
        ),
        together=True,
    ),
    Pair(
        "H07 numbers of processes, mounts and groups, names and counters do not show the other job",
        _holding("import ctypes\nctypes.CDLL(None).prctl(15, b'meeting', 0, 0, 0)\nx = bytearray(64 << 20)\n"),
        _second(
            """
import os
shown = [name for name in os.listdir("/proc") if name.isdigit() and "meeting" in open(f"/proc/{name}/comm").read()]
numbers = sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
texts = ""
for path in ("/proc/self/cgroup", "/proc/self/mountinfo", "/proc/locks", "/proc/sched_debug", "/proc/timer_list", "/proc/net/unix",
             "/proc/net/tcp", "/proc/sysvipc/shm", "/proc/keys", "/proc/self/sched", "/proc/vmstat", "/proc/zoneinfo", "/proc/buddyinfo"):
    try:
        texts += open(path).read()
    except OSError:
        pass
[shown, len(numbers) <= 2, "meeting" in texts, os.uname().nodename]
""",
            [[], True, False, "crank"],
        ),
        together=True,
    ),
    Pair(
        "H09 a marker of one job is in no memory and no file page that the next is given",
        Case(
            "V02 marks",
            "import mmap\nmark = b'MARKER-OF-THE-' + b'FIRST' * 1\nblock = mark * 200_000\nareas = [mmap.mmap(-1, 8 << 20) for _ in range(8)]\n"
            "for area in areas:\n    area.write((mark * 400_000)[:8 << 20])\n"
            "for place in ('/tmp', '/dev/shm', '/scratch', '/out'):\n    open(place + '/marked', 'wb').write((mark * 400_000)[:4 << 20])\nresult = 1\n",
            result=1,
        ),
        _second(
            MEMORY
            + """
import mmap, os
area = mmap.mmap(-1, 96 << 20)
first = b"MARKER-OF-THE-" + b"FI"
word = first + b"RST"
found = area[:].count(word[:-1] + b"T")
for place in ("/tmp", "/dev/shm", "/scratch", "/out"):
    with open(place + "/fresh", "wb+") as file:
        file.truncate(4 << 20)
        found += file.read().count(word)
more = sum(chunk.count(word * 2) for chunk in memory())
[found, more]
""",
            [0, 0],
        ),
    ),
    Pair("H12 no two jobs draw the same numbers, names and keys",
         Case("V02 draws", _SOURCES), Case("V03 draws", _SOURCES), differ=True),
    Pair(
        "H12 the first draw after many is no neighbour's either",
        Case("V02 draws", "import random\n[['stream', [random.random() for _ in range(3)]], ['state', str(random.getstate())[:200]]]"),
        Case("V03 draws", "import random\n[['stream', [random.random() for _ in range(3)]], ['state', str(random.getstate())[:200]]]"),
        differ=True,
    ),
    Pair(
        "C13 a lock that one job holds on a file of the profile is not seen by another",
        _holding(_LOCK),
        _second(
            _LOCK + "try:\n    fcntl.fcntl(f, 1024, 0)\n    result = 'leased'\nexcept PermissionError:\n    result = 'refused'\n",
            "refused",
        ),
        together=True,
    ),
    Pair(
        "C13 X51 a lock on a range of a file of the profile is not seen by another",
        _holding("import fcntl\nf = open('/opt/python/lib/python3.11/os.py')\nfcntl.lockf(f, fcntl.LOCK_SH)\n"),
        _second(
            "import fcntl, struct\nf = open('/opt/python/lib/python3.11/os.py')\n"
            "asked = struct.pack('hhqqi4x', fcntl.F_WRLCK, 0, 0, 0, 0)\n"
            "struct.unpack('hhqqi4x', fcntl.fcntl(f, fcntl.F_GETLK, asked))[0] == fcntl.F_UNLCK\n",
            True,
        ),
        together=True,
    ),
    Pair(
        "B07 X52 signals to every number do not reach a neighbour",
        _holding(""),
        _second(
            "import os, signal\nfor number in range(3, 70_000):\n    try:\n        os.kill(number, signal.SIGKILL)\n    except OSError:\n        pass\n'done'",
            "done",
        ),
        together=True,
    ),
    Pair(
        "X53 a change to the interpreter's own modules ends with its job",
        Case("V02 changes", "import builtins, json, os\nbuiltins.print = json.dumps = os.listdir = None\nbuiltins.planted = 'yes'\nresult = 1", result=1),
        _second("import builtins, json, os\n[hasattr(builtins, 'planted'), callable(os.listdir), json.dumps([1])]", [False, True, "[1]"]),
    ),
    Pair(
        "X54 pages that jobs share by descent are their own once written",
        _holding(RAW + X86 + "import sys\nnumbers = [ctypes.c_long.from_address(id(257))]\nctypes.c_int.from_address(id(200) + 24).value = 201\n"),
        _second("a = 100\n[a + a, 199 + 1 == 2 * 100]", [200, True]),
        together=True,
    ),
)
