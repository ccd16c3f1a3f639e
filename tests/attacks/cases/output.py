"""What a job writes and what it returns."""

from tests.attacks.case import Case

_REPRS = """
class Hostile:
    def {name}(self, *_, **__):
        {body}
    __hash__ = None
display(Hostile())
Hostile()
"""

OUTPUT = (
    *(
        Case(f"F09 a representation that {what}: {name}", _REPRS.format(name=name, body=body), reasons=reasons, limits={"wall_sec": 1 if "timeout" in reasons else 8})
        for name in ("__repr__", "_repr_html_", "_repr_mimebundle_", "_repr_png_")
        for what, body, reasons in (
            ("never returns", "while True: pass", ("timeout",)),
            ("is a gigabyte", "return 'x' * (1 << 30)", ("exited", "memory", "raised", "timeout")),
            ("raises", "raise SystemExit(7)", ("exited", "raised")),
            ("is of another kind", "return {1: object(), (): [float('nan')]}", ("exited", "raised")),
            ("contains itself", "x = []; x.append(x); return {'text/plain': x}", ("exited", "raised")),
        )
    ),
    Case(
        "F01 endless output without a line end",
        "while True:\n    print('x' * 65536, end='')\n",
        reasons=("output",),
        limits={"output_flood_bytes": 32 << 20, "wall_sec": 30},
    ),
    Case(
        "F01 endless output, one byte at a time",
        "import os\nwhile True:\n    os.write(1, b'x')\n    os.write(2, b'y')\n",
        reasons=("output", "timeout"),
        limits={"output_flood_bytes": 256 << 10, "wall_sec": 30},
    ),
    Case(
        "F01 endless output on both streams, from threads",
        """
import os, threading
def flood(fd):
    chunk = b"z" * 65536
    while True:
        os.write(fd, chunk)
for fd in (1, 2, 1, 2):
    threading.Thread(target=flood, args=(fd,)).start()
""",
        reasons=("output",),
        limits={"output_flood_bytes": 64 << 20, "wall_sec": 30},
    ),
    Case(
        "F03 output by every way is taken once",
        """
import ctypes, os, sys, threading
os.write(1, b"<direct>")
ctypes.CDLL(None).write(1, b"<from C>", 8)
thread = threading.Thread(target=lambda: os.write(1, b"<thread>"))
thread.start()
thread.join()
if os.fork() == 0:
    os.write(1, b"<child>")
    os._exit(0)
os.wait()
print("<printed>")
""",
        programs=True,
        stdout="<direct><from C><thread><child><printed>",
    ),
    Case(
        "F04 streams closed, replaced and made non-blocking",
        """
import fcntl, os, sys
os.write(1, b"first")
fcntl.fcntl(1, 1031, 4096)
os.set_blocking(1, False)
for fd in (0, 1, 2):
    os.close(fd)
os.open("/scratch/mine", os.O_CREAT | os.O_RDWR)
os.open("/scratch/mine", os.O_RDWR)
os.open("/scratch/mine", os.O_RDWR)
print("lost")
result = 7
""",
        result=7,
        stdout="first",
    ),
    Case(
        "F04 a closed stderr hides no fault",
        """
import os
os.close(2)
raise ValueError("told all the same")
""",
        reasons=("raised",),
    ),
    Case(
        "F04 a closed stderr keeps a success",
        """
import os
os.close(2)
result = float("nan")
""",
        reasons=("exited",),
    ),
    Case(
        "F07 a result nested too deeply",
        "x = []\nfor _ in range(10_000):\n    x = [x]\nresult = x\n",
        result=None,
    ),
    Case("F07 a result that contains itself", "x = []\nx.append(x)\nresult = x\n", result=None),
    Case("F07 not a number", "result = [float('nan'), float('inf')]\n", result=None),
    Case("F07 half a character", "result = '\\ud800'\n", result=None),
    Case("F07 an integer of a million digits", "result = 10 ** 1_000_000\n", result=None),
    Case("F07 a result that is too large", "result = 'x' * (64 << 20)\n", result=None),
    Case("F07 keys that become one", "result = {1: 'a', '1': 'b'}\n", result=None),
    Case(
        "F07 a result that answers with its own code",
        """
class Evil:
    def model_dump(self, mode):
        raise SystemError("boo")
    def _repr_html_(self):
        raise KeyboardInterrupt
result = Evil()
""",
        reasons=("exited", "raised"),
        result=None,
    ),
    Case(
        "F12 exit codes are shown as they are",
        "import os\nos._exit(137)\n",
        reasons=("exited",),
        result=None,
    ),
)
