"""The file itself: what it is linked to, what it exports, where it thinks it is."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import PYTHON, Outcome, run_program

Dragon = Callable[..., Outcome]

WHERE = "import sys; print(sys.executable, sys._base_executable, sys.prefix, sep='\\n')"


def exported(path: Path | str) -> set[str]:
    """Return the symbols that a library may bind to."""
    lines = run_program("nm", "-D", "--defined-only", path).stdout.splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def test_only_libc_and_libm_are_shared(exe: Path) -> None:
    lines = run_program("ldd", exe).stdout.splitlines()
    names = {Path(line.split()[0]).name.partition(".")[0] for line in lines}
    assert names == {"linux-vdso", "libm", "libc", "ld-linux-x86-64"}


def test_every_symbol_of_python3_is_exported(exe: Path) -> None:
    assert {name for name in exported(PYTHON) if name.startswith(("Py", "_Py"))} <= exported(exe)


def test_linked_in_libraries_are_not_exported(exe: Path) -> None:
    names = exported(exe)
    assert not {"inflate", "deflate", "crc32", "XML_Parse", "XML_ParserCreate"} & names
    assert not [name for name in names if name.startswith(("mi_", "_mi_"))]


@pytest.mark.parametrize(
    "module",
    ["numpy", "_ctypes", "_ssl", "_sqlite3", "_decimal", "zlib", "pyexpat", "readline", "_hashlib"],
)
def test_extension_modules_load(dragon: Dragon, module: str) -> None:
    assert dragon("-c", f"import {module}").status == 0


def test_zlib_and_expat_work(dragon: Dragon) -> None:
    code = (
        "import zlib, xml.etree.ElementTree as e\n"
        "print(zlib.decompress(zlib.compress(b'x' * 99)) == b'x' * 99)\n"
        "print(e.fromstring('<a b=\"1\"/>').attrib)"
    )
    assert dragon("-c", code).stdout == "True\n{'b': '1'}\n"


def test_numpy_computes(dragon: Dragon) -> None:
    assert (
        dragon("-c", "import numpy; print((numpy.eye(3) @ numpy.ones(3)).sum())").stdout == "3.0\n"
    )


def test_large_zeros_take_no_memory_before_they_are_used(dragon: Dragon) -> None:
    code = (
        "import numpy, resource\n"
        "a = numpy.zeros(600 << 20, 'u1')\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10, a[::4 << 20].any())"
    )
    megabytes, any_set = dragon("-c", code).stdout.split()
    assert (int(megabytes) < 200, any_set) == (True, "False")


def test_zeros_are_zeros_in_reused_memory(dragon: Dragon) -> None:
    code = (
        "import numpy\n"
        "for size in 17, 33, 65, 90, 17, 33, 65, 90:\n"
        "    a = numpy.zeros(size << 20, 'u1')\n"
        "    assert not a.any()\n"
        "    a[:] = 1\n"
        "    del a"
    )
    assert dragon("-c", code) == ("", "", 0)


def test_memory_goes_back_to_the_system_after_a_peak(dragon: Dragon) -> None:
    code = (
        "blocks = [bytearray(b'x' * (1 << 20)) for _ in range(400)]\n"
        "del blocks\n"
        "print(*[line for line in open('/proc/self/status') if line.startswith('VmRSS')])"
    )
    assert int(dragon("-c", code).stdout.split()[1]) < 200 << 10


@pytest.mark.parametrize("limit_kb", [60_000, 200_000, 3_000_000])
def test_limit_on_address_space_does_not_stop_the_start(exe: Path, limit_kb: int) -> None:
    command = f'ulimit -v {limit_kb}; exec "$0" -c "print(1)"'
    assert run_program("sh", "-c", command, exe).stdout == "1\n"


def test_executable_is_dragon_by_the_name_it_was_called(exe: Path, tmp_path: Path) -> None:
    link = tmp_path / "bin" / "other-name"
    link.parent.mkdir()
    link.symlink_to(exe)
    env = {"PATH": f"{link.parent}:/usr/bin:/bin"}
    expected = f"{link}\n{link}\n/usr\n"
    assert run_program(link, "-c", WHERE).stdout == expected
    assert run_program("./other-name", "-c", WHERE, cwd=link.parent).stdout == expected
    assert run_program("env", "other-name", "-c", WHERE, env=env).stdout == expected


def test_executable_is_found_when_the_name_lies(exe: Path) -> None:
    for name in ("foo", "/nowhere/foo", "./foo", PYTHON):
        done = subprocess.run(
            [name, "-c", WHERE], executable=exe, capture_output=True, text=True, check=True, env={}
        )
        assert done.stdout.splitlines()[0] == str(exe)


def test_executable_started_by_sys_executable_is_dragon(dragon: Dragon, exe: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "print(subprocess.check_output([sys.executable, '--version'], text=True))"
    )
    assert "(dragon " in dragon("-c", code).stdout


def test_another_standard_library_beside_it_is_not_taken(exe: Path, tmp_path: Path) -> None:
    version = run_program(PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])")
    library = tmp_path / "lib" / f"python{version.stdout.strip()}"
    library.mkdir(parents=True)
    (library / "os.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "bin").mkdir()
    copy = Path(shutil.copy(exe, tmp_path / "bin" / "dragon"))
    outcome = run_program(copy, "-c", "import os, sys; print(os.__file__, sys.prefix)")
    assert outcome.stdout.split()[1:] == ["/usr"]
    assert not outcome.stdout.startswith(str(tmp_path))


def test_python_home_is_obeyed(exe: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "lib").symlink_to("/usr/lib")
    outcome = run_program(exe, "-c", "import sys; print(sys.prefix)", env={"PYTHONHOME": str(home)})
    assert outcome.stdout == f"{home}\n"


def test_file_runs_without_an_environment(exe: Path) -> None:
    assert (
        subprocess.run([exe, "-c", "print(1)"], env={}, check=True, capture_output=True).stdout
        == b"1\n"
    )


def test_nothing_is_left_in_shared_memory(dragon: Dragon) -> None:
    before = set(os.listdir("/dev/shm"))
    dragon("-c", "import multiprocessing; multiprocessing.Value('i')")
    assert not [name for name in set(os.listdir("/dev/shm")) - before if "dragon" in name]
