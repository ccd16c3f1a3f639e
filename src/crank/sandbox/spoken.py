"""What a session in the worker and its supervisor say to each other, beside the frames that only pass through."""

import struct

from crank.domain.quantity import KIB, MIB
from crank.sandbox.calls import ANSWER_BYTES_MAX

RUN_BYTES_MAX = 16 * MIB
CONTROL_BYTES_MAX = 64 * KIB
STDIN_BYTES_MAX = 1 * MIB
# What the runner may send (frame kinds and their longest payloads): run, stop, standard input, signal, file, answer to a call.
TO_SUPERVISOR = {
    "r": RUN_BYTES_MAX,
    "s": CONTROL_BYTES_MAX,
    "i": STDIN_BYTES_MAX,
    "k": CONTROL_BYTES_MAX,
    "f": CONTROL_BYTES_MAX,
    "a": ANSWER_BYTES_MAX,
}

OUTPUT_HEAD = struct.Struct("!Qd")
# How many bytes of its standard input a run has taken.
STDIN_HEAD = struct.Struct("!Q")
# The order to run: the length of its head (JSON) and of the code; then the code, then the args as JSON text.
RUN_HEAD = struct.Struct("!II")
