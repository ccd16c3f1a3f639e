"""Reading ldd's answers, and recognising what needs shared libraries."""

from pathlib import Path

from crank.adapters.profile_store import libraries

LDD = """\
/build/bin/python3.11:
\tlinux-vdso.so.1 (0x00007ffd3a9f2000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f1c0a000000)
\tlibodd.so => /opt/with space/libodd.so (0x00007f1c0a000000)
\tlibcuda.so.1 => not found
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c0a1f2000)
/build/usr/bin/pandoc:
\tnot a dynamic executable
/build/lib/other.so:
\tstatically linked
"""


def test_ldd_is_split_into_found_and_missing() -> None:
    """The loader is kept under its path, the kernel's own library is left out, paths may hold spaces."""
    found, missing = libraries.parse_ldd(LDD)
    assert found == {
        "libz.so.1": Path("/lib/x86_64-linux-gnu/libz.so.1"),
        "libodd.so": Path("/opt/with space/libodd.so"),
        "/lib64/ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
    }
    assert list(missing) == ["libcuda.so.1"]


def test_only_programs_and_libraries_are_looked_at(tmp_path: Path) -> None:
    """Data, scripts and links are not; a library is, whether or not it is marked executable."""
    (tmp_path / "data.bin").write_bytes(b"\x7fELF")
    (tmp_path / "script.so.py").write_bytes(b"print()")
    library = tmp_path / "thing.so.1"
    library.write_bytes(b"\x7fELF\x02")
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF\x02")
    program.chmod(0o755)
    (tmp_path / "link.so").symlink_to(library)
    assert libraries.elf_files(tmp_path) == [program, library]


def test_a_driver_is_named_by_its_own_words(tmp_path: Path) -> None:
    """A machine without a driver has no name for it; one with a driver has the driver's."""
    version = tmp_path / "version"
    assert libraries.driver_identity(version) == ""
    version.write_text("NVRM version: 580.1", encoding="utf-8")
    assert libraries.driver_identity(version) == "NVRM version: 580.1"
