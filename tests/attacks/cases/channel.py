"""The result channel: what a job says in the guest's place."""

from tests.attacks.case import CHANNEL, Case

# What a progress message must not be: each of these, passed on, once cut the worker's link again and again.
FORGED_PROGRESS = (
    ("a list", b'{"fraction": [1, [2]], "message": "x"}'),
    ("an integer beyond every float", b'{"fraction": ' + b"9" * 3900 + b', "message": "x"}'),
    ("beyond one", b'{"fraction": 1.5, "message": "x"}'),
    ("below zero", b'{"fraction": -5, "message": "x"}'),
    ("a truth value", b'{"fraction": true, "message": "x"}'),
    ("a text", b'{"fraction": "half", "message": "x"}'),
    ("a message that is none", b'{"fraction": 0.5, "message": {"a": 1}}'),
    ("half a surrogate", b'{"fraction": 0.5, "message": "\\ud800"}'),
    ("no object", b"[]"),
)

# A way that needs no object of the guest: every pipe beside the three streams.
PIPES = """
import os, struct, time
pipes = []
for name in os.listdir("/proc/self/fd"):
    try:
        if int(name) > 2 and os.readlink("/proc/self/fd/" + name).startswith("pipe:"):
            pipes.append(int(name))
    except OSError:
        pass
"""
_WAIT = "while True:\n    time.sleep(1)\n"
_LATER = {"wall_sec": 10}


def _violates(name: str, code: str) -> Case:
    return Case(name, code, reasons=("protocol_violation",), limits=_LATER)


CHANNEL_CASES = (
    _violates(
        "F06 garbage in the result channel",
        PIPES
        + """
for fd in pipes:
    try:
        os.write(fd, b'{"kind": "end", "ok": true, "result": 1}\\n' * 10)
    except OSError:
        pass
""",
    ),
    _violates(
        "F06 a length of 2 GiB",
        PIPES
        + """
for fd in pipes:
    for head in (struct.pack("!BI", ord("e"), 2**31), struct.pack("<I", 2**31), struct.pack("!Q", 2**31)):
        try:
            os.write(fd, head)
        except OSError:
            pass
while True:
    pass
""",
    ),
    _violates(
        "F06 a length of 2 GiB behind the right token",
        CHANNEL + PIPES + "os.write(pipes[-1], channel._token + struct.pack('!BI', ord('e'), 2**32 - 1))\n" + _WAIT,
    ),
    _violates(
        "F06 half a message, then silence", CHANNEL + PIPES + 'os.write(pipes[-1], channel._token + b"e")\n' + _WAIT
    ),
    Case(
        "F06 half a message, byte by byte, so that it never seems to stand still",
        CHANNEL
        + PIPES
        + """
frame = channel._token + struct.pack("!BI", ord("e"), 4000) + b" " * 4000
for place in range(len(frame)):
    os.write(pipes[-1], frame[place:place + 1])
    time.sleep(0.05)
""",
        reasons=("protocol_violation", "timeout"),
        limits={"wall_sec": 2},
    ),
    *(
        _violates(f"F06 forged progress: {name}", CHANNEL + f"channel.send('g', {payload!r})\ntime.sleep(5)\n")
        for name, payload in FORGED_PROGRESS
    ),
    # An end of the job's own making is worth what its exit would be: a plain end without a result. Whatever
    # comes after it, whoever says it, changes nothing and runs no longer.
    *(
        Case(
            f"F06 an early end, {what}",
            CHANNEL + 'channel.send("e", json.dumps(end).encode())\n' + code,
            # A crash may come before anybody could act on the word.
            reasons=("exited", "protocol_violation", *(("signalled",) if "crash" in what else ())),
            result=None,
            limits={"wall_sec": 4},
        )
        for what, code in (
            ("then another", ""),
            ("and no end", _WAIT),
            ("and no end, with threads that hold the channel", "import threading\n[threading.Thread(target=time.sleep, args=(60,)).start() for _ in range(4)]\n"),
            ("that the process does not keep", "os._exit(3)\n"),
            ("then a crash", "import ctypes\nctypes.string_at(0)\n"),
            ("then more output than there may be", "while True:\n    os.write(1, b'x' * 65536)\n"),
        )
    ),
    # Well formed, and yet no word that a job without handles may say.
    _violates(
        "F06 a call for another job, with no handle in its hand",
        CHANNEL
        + """
word = {"number": 1, "handle": "run", "capability": "python.run.core", "version": None, "args": None, "code": "1",
        "files": {}, "mounts": {}, "handles": [], "timeout_sec": None}
channel.send("c", json.dumps(word).encode())
"""
        + _WAIT,
    ),
    _violates("F06 two results", CHANNEL + "channel.send('v', b'1')\nchannel.send('v', b'2')\n" + _WAIT),
    Case(
        "F06 a result that is no JSON",
        CHANNEL + "channel.send('v', b'{nonsense')\nchannel.send('e', json.dumps(end).encode())\n" + _WAIT,
        reasons=("protocol_violation", "exited"),
        result=None,
        limits={"wall_sec": 4},
    ),
    *(
        Case(
            f"F06 X63 a result that costs its reader more than its sender: {name}",
            CHANNEL + f"channel.send('v', {payload})\nchannel.send('e', json.dumps(end).encode())\n" + _WAIT,
            reasons=("protocol_violation", "exited"),
            limits={"wall_sec": 4},
        )
        for name, payload in (
            ("deep", "b'[' * 100_000 + b']' * 100_000"),
            ("half a million lists", "b'[' + b','.join([b'[]'] * 300_000) + b']'"),
            ("a number of many digits", "b'9' * 900_000"),
            ("keys twice", 'b\'{"a": 1, "a": 2}\''),
            ("not a number", "b'NaN'"),
            ("half a character", "b'\"\\\\ud800\"'"),
            ("bytes that are no text", "b'\"\\xff\"'"),
        )
    ),
    _violates("F06 the channel closed", "import os\nos.closerange(3, 64)\nresult = 1\n"),
    _violates(
        "F06 words that are not strict JSON",
        CHANNEL + """channel.send("e", b'{"how": "done", "how": "done", "code": NaN}')\n""",
    ),
    *(
        _violates(f"F06 an end of a strange shape: {name}", CHANNEL + f"channel.send('e', {payload!r})\n" + _WAIT)
        for name, payload in (
            ("a list", b"[]"),
            ("nothing", b""),
            ("no exit code", b'{"how": "done", "code": null, "error": null, "hint": null, "note": null, "told": []}'),
            ("an unknown word", b'{"how": "won", "code": 0, "error": null, "hint": null, "note": null, "told": []}'),
            ("told is a number", b'{"how": "done", "code": 0, "error": null, "hint": null, "note": null, '
             b'"has_result": false, "result": null, "told": 7}'),
            ("deep", b'{"how": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
            ("bytes that are no text", b"\xff\xfe{}"),
        )
    ),
    *(
        _violates(f"F06 a message of a kind that is not the guest's: {kind}", CHANNEL + f"channel.send({kind!r}, b'{{}}')\n" + _WAIT)
        for kind in ("r", "R", "Z", "V", "O", "p", "s", "\0")
    ),
    Case(
        "X01 a thousand ends at once, from threads",
        CHANNEL
        + """
import threading
word = json.dumps(end).encode()
def flood():
    for _ in range(1_000):
        channel.send("e", word)
threads = [threading.Thread(target=flood) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""",
        reasons=("protocol_violation", "exited"),
        result=None,
        limits=_LATER,
    ),
    Case(
        "X02 displays without end cost the worker nothing",
        CHANNEL + "while True:\n    channel.send('d', b'{\"text/plain\": \"' + b'x' * 60_000 + b'\"}')\n",
        reasons=("timeout", "output", "protocol_violation"),
        limits={"wall_sec": 2},
    ),
    Case(
        "X03 progress without end costs the worker nothing",
        CHANNEL + "while True:\n    channel.send('g', b'{\"fraction\": 0.5, \"message\": \"x\"}')\n",
        reasons=("timeout", "protocol_violation"),
        limits={"wall_sec": 2},
    ),
    Case(
        "I06 X04 descriptors sent into the result channel go nowhere",
        CHANNEL
        + """
import array, socket
answers = []
for name in os.listdir("/proc/self/fd"):
    try:
        end_of_it = socket.socket(fileno=os.dup(int(name)))
        end_of_it.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))])
        answers.append(name)
    except OSError:
        pass
answers
""",
        result=[],
    ),
    Case(
        "X05 the guest's pipe made tiny, blocking turned off",
        CHANNEL
        + PIPES
        + """
import fcntl
for fd in pipes:
    try:
        fcntl.fcntl(fd, 1031, 4096)
        os.set_blocking(fd, False)
    except OSError:
        pass
result = "x" * 500_000
""",
        reasons=("exited", "raised", "protocol_violation"),
    ),
)
