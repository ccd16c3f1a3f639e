"""What jobs read about the machine is well formed, and says nothing of its load."""

import os

from crank.sandbox import machine


def test_the_words_parse_as_the_kernels_do() -> None:
    """Programs that read these files by their documented form find processors and memory as they are."""
    files = machine.files()
    lines = files["stat"].decode().splitlines()
    assert sum(line.startswith("cpu") for line in lines) == 1 + (os.cpu_count() or 1)
    memory = dict(line.split(":") for line in files["meminfo"].decode().splitlines())
    total = int(memory["MemTotal"].split()[0]) * 1024
    assert total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert len(files["loadavg"].split()) == 5
    assert [float(word) for word in files["uptime"].split()] == [0.0, 0.0]


def test_the_words_do_not_change() -> None:
    """Two readings are the same whatever the machine did between them."""
    assert machine.files() == machine.files()
