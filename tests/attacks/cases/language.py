"""Python's own trapdoors. None is closed by us: behind each stand the same walls of the system."""

from tests.attacks.case import CHANNEL, MEMORY, Case

_ANY_END = ("exited", "raised", "signalled", "memory", "timeout")

LANGUAGE = (
    Case(
        "O01 every way to start a program, where none may be started",
        """
import ctypes, os, pty, subprocess, multiprocessing
libc = ctypes.CDLL(None)
started = []
ways = {
    "system": lambda: os.system("/opt/python/bin/python3.11 -c 0") == 0,
    "popen": lambda: os.popen("/opt/python/bin/python3.11 -c 0").close() is None,
    "subprocess": lambda: subprocess.run(["/opt/python/bin/python3.11", "-c", "0"]).returncode == 0,
    "spawn": lambda: os.posix_spawn("/opt/python/bin/python3.11", ["x", "-c", "0"], {}) > 0,
    "spawnv": lambda: os.spawnv(os.P_WAIT, "/opt/python/bin/python3.11", ["x", "-c", "0"]) == 0,
    "pty": lambda: pty.spawn(["/opt/python/bin/python3.11", "-c", "0"]) == 0,
    "fork": lambda: os.fork() >= 0,
    "forkpty": lambda: os.forkpty()[0] >= 0,
    "C system": lambda: libc.system(b"/opt/python/bin/python3.11 -c 0") == 0,
    "C fork": lambda: libc.fork() >= 0,
    "execv": lambda: os.execv("/opt/python/bin/python3.11", ["x", "-c", "print('ESCAPED')"]),
    "C execv": lambda: libc.execv(b"/opt/python/bin/python3.11", (ctypes.c_char_p * 2)(b"x", None)) == 0,
    "multiprocessing": lambda: multiprocessing.Process(target=print).start() is None,
}
for name, way in ways.items():
    try:
        if way():
            started.append(name)
    except (OSError, RuntimeError, ValueError):
        pass
started
""",
        result=[],
    ),
    Case(
        "O01 machine code of the job's own",
        """
import ctypes, mmap, platform
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
if platform.machine() == "x86_64":
    # mov eax, 59 (execve) with empty arguments; syscall; ret
    page.write(bytes.fromhex("b83b000000" "31ff" "31f6" "31d2" "0f05" "c3"))
    answer = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    result = answer in (-1, -13, -14)
else:
    result = True
""",
        result=True,
    ),
    *(
        Case(
            f"O01 processor instructions that jobs have no business with: {name}",
            f"""
import ctypes, mmap, platform
if platform.machine() != "x86_64":
    raise SystemExit(3)
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("{code}"))
ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
""",
            reasons=("signalled", "policy", "exited"),
        )
        for name, code in (("halt", "f4c3"), ("disable interrupts", "fac3"), ("read a port", "e460c3"),
                           ("int 0x80 execve", "b80b00000031db31c931d2cd80c3"), ("sysenter", "0f34c3"))
    ),
    *(
        Case(f"O03 {name}", code, reasons=_ANY_END, limits={"wall_sec": 5})
        for name, code in (
            ("code objects made of nothing", "import types\nf = lambda: 0\nf.__code__ = f.__code__.replace(co_code=b'\\x64\\xff' * 99, co_stacksize=0)\nf()\n"),
            ("marshal of noise", "import marshal, random\nr = random.Random(1)\nfor _ in range(20_000):\n    try:\n        exec(marshal.loads(bytes([0xe3]) + r.randbytes(60)))\n    except BaseException:\n        pass\n"),
            ("a syntax tree with holes", "import ast\ntree = ast.parse('x = 1')\ntree.body[0].value = None\ntree.body[0].lineno = -7\ncompile(tree, 'x', 'exec')\n"),
            ("a module from a broken cache file", "import os, sys\nos.makedirs('/scratch/__pycache__')\nopen('/scratch/evil.pyc', 'wb').write(b'\\xa7\\r\\r\\n' + bytes(12) + b'\\xe3' * 99)\nimport evil\n"),
            ("pickle that asks for everything", "import pickle\npickle.loads(b'cos\\nsystem\\n(S\"/bin/sh\"\\ntR.')\n"),
            ("ctypes writes into the interpreter", "import ctypes\nctypes.memset(id(int), 255, 400)\nint('7')\n"),
            ("an import hook that imports itself", "import sys\nclass Loop:\n    def find_spec(self, name, *_):\n        __import__(name + 'x')\nsys.meta_path.insert(0, Loop())\nimport nothing\n"),
            ("a path entry full of hooks", "import sys\nopen('/scratch/sitecustomize.py', 'w').write('print(\"ESCAPED\")')\nopen('/scratch/x.pth', 'w').write('import os; print(\"ESCAPED\")')\nsys.path.insert(0, '/scratch')\n"),
        )
    ),
    Case(
        "O03 O06 an encoding declaration that is a decoder of the job's own",
        "# coding: utf-7\nprint('plain')\n",
        reasons=("exited", "raised"),
    ),
    Case(
        "O04 X45 tracing, profiling, audit and collection hooks against the guest",
        """
import gc, sys, threading
seen = []
def trace(frame, event, value):
    seen.append(frame.f_code.co_name)
    for name in ("end", "code", "value", "payload"):
        if name in frame.f_locals and frame.f_code.co_filename != "job.py":
            seen.append(str(frame.f_locals[name])[:50])
    return trace
sys.settrace(trace), sys.setprofile(trace), threading.settrace(trace), threading.setprofile(trace)
sys.addaudithook(lambda event, values: None)
gc.callbacks.append(lambda phase, facts: None)
gc.set_threshold(1, 1, 1)
result = "honest"
""",
        result="honest",
        limits={"wall_sec": 10},
    ),
    Case(
        "O04 X46 an audit hook that refuses everything, the guest's own end too",
        """
import sys
def deny(event, values):
    raise RuntimeError("no")
sys.addaudithook(deny)
result = 1
""",
        reasons=("exited", "raised", "protocol_violation"),
        limits={"wall_sec": 5},
    ),
    Case(
        "O04 X47 the guest's audit hook dug out and emptied: the walls stay",
        CHANNEL
        + """
import gc, socket
for thing in _found():
    if type(thing).__name__ == "Watcher":
        type(thing).__call__ = lambda *_: None
        thing._processes = True
got = []
for attempt in (lambda: socket.socket(socket.AF_INET), lambda: socket.create_connection(("127.0.0.1", args["host"]["port"]), 1),
                lambda: os.fork(), lambda: os.execv(sys.executable, ["x", "-c", "print('ESCAPED')"])):
    try:
        attempt()
        got.append("got")
    except OSError as fault:
        pass
got
""",
        result=[],
    ),
    Case(
        "O04 X48 the guest's end rewritten in memory before it is told",
        CHANNEL
        + """
for thing in _found():
    told = getattr(thing, "end", None)
    if type(thing).__name__ == "_Job":
        thing.end = {**told, "how": "done", "code": 0, "has_result": True, "result": "rewritten"}
raise ValueError("the truth")
""",
        # A job may lie about itself. It may not become something that the supervisor did not see.
        reasons=("exited", "raised", "protocol_violation"),
    ),
    Case(
        "O04 faulthandler that dumps where it likes",
        """
import faulthandler, os
for fd in range(0, 10):
    try:
        faulthandler.dump_traceback(fd)
        faulthandler.dump_traceback_later(0.01, repeat=True, file=fd)
    except (OSError, ValueError, RuntimeError):
        pass
faulthandler._sigsegv()
""",
        reasons=("signalled", "protocol_violation"),
        limits={"wall_sec": 5},
    ),
    Case(
        "O06 a byte order mark and strange spaces",
        "\ufeffx\u00a0= 1\n",
        reasons=("raised",),
    ),
    Case("O06 X49 a line of a megabyte", "x = '" + "y" * 1_000_000 + "'\nlen(x)\n", result=1_000_000),
    Case("O06 names that look alike", "\u0430 = 1\na = 2\n[\u0430, a]\n", result=[1, 2]),
    Case("O06 lone halves of characters in the source", "x = '\\ud800'\nlen(x)\n", result=1),
    Case(
        "J04 X50 no secret in the job's own memory",
        MEMORY
        + """
words = [b"BEGIN PRIVATE " + b"KEY", b"BEGIN EC PRIVATE " + b"KEY", b"CANARY-" + b"MARK",
         b"CRANK_" + b"HOME", b"node" + b".json", b"AWS_" + b"SECRET", b"/controller/" + b"crank.db"]
found = set()
for chunk in memory():
    for word in words:
        place = chunk.find(word)
        # The words of this list, joined by the compiler, are here too; each stands alone, ended by its own NUL.
        while place >= 0:
            after = chunk[place + len(word):place + len(word) + 1]
            if after not in (b"\\0", b"'", b'"', b",", b""):
                found.add((word.decode(), after.decode("latin-1")))
            place = chunk.find(word, place + 1)
sorted(found)
""",
        result=[],
        limits={"wall_sec": 30},
    ),
    Case(
        "H09 memory that was never written holds nothing",
        """
import mmap, os
dirty = 0
for _ in range(8):
    area = mmap.mmap(-1, 16 << 20)
    dirty += any(area[start:start + (1 << 20)].strip(bytes(1)) for start in range(0, len(area), 1 << 20))
for place in ("/tmp", "/dev/shm", "/scratch", "/out"):
    with open(place + "/fresh", "wb+") as file:
        file.truncate(4 << 20)
        dirty += bool(file.read().strip(bytes(1)))
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
        file.seek(0)
        dirty += bool(file.read().strip(bytes(1)))
dirty
""",
        result=0,
    ),
    Case(
        "H10 which pages of a shared file others have read is not told",
        """
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
told = set()
for path in ("/opt/python/lib/python3.11/os.py", "/opt/python/bin/python3.11"):
    with open(path, "rb") as file:
        area = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    pages = (len(area) + 4095) // 4096
    answer = ctypes.create_string_buffer(pages)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    if libc.mincore(ctypes.c_long(address), ctypes.c_long(len(area)), answer) == 0:
        told |= set(answer.raw)
# One answer for every page says nothing; refusal says nothing either.
len(told) <= 1
""",
        result=True,
    ),
)
