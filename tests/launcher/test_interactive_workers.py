"""Workers of start method "dragon" in programs that no file holds."""

from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_support import Outcome, run_program
from test_terminal_and_signals import Terminal

pytest.importorskip("cloudpickle", reason="objects travel by value with cloudpickle only")

#: A blank line after each definition, for the prompt.
PROGRAM = """\
import concurrent.futures, functools, multiprocessing, sys
context = multiprocessing.get_context("dragon")
lock, results = context.Lock(), context.Queue()
offset = 100
class Point:
    def __init__(self, x): self.x = x
    def moved(self): return self.x + offset

def target(point):
    with lock:
        results.put(point.moved())

@functools.cache
def cached(x):
    return x * offset

process = context.Process(target=target, args=(Point(1),))
process.start(); process.join(); print(results.get(), process.exitcode)
pool = context.Pool(2, target, (Point(2),))
print(results.get(), results.get(), pool.map(cached, [1, 2]), pool.apply(Point.moved, (Point(3),)))
print(sorted(pool.imap_unordered(lambda x: x + offset, range(3))))
pool.terminate(); pool.join()
executor = concurrent.futures.ProcessPoolExecutor(1, mp_context=context)
print(executor.submit(Point(4).moved).result(), list(executor.map(cached, [3])))
executor.shutdown()
"""

PRINTED = """\
101 0
102 102 [100, 200] 103
[100, 101, 102]
104 [300]
"""


@pytest.mark.parametrize(
    ("words", "stdin"),
    [
        (("-c", PROGRAM), ""),
        (("-",), PROGRAM),
        ((), PROGRAM),
        (("-i", "-q"), PROGRAM),
        (("-i", "-q", "-c", PROGRAM), ""),
    ],
    ids=["-c", "-", "standard input", "-i", "-i -c"],
)
def test_what_is_typed_in_reaches_workers(
    dragon: Callable[..., Outcome], words: tuple[str, ...], stdin: str
) -> None:
    done = dragon(*words, stdin=stdin)
    assert (done.stdout, done.status) == (PRINTED, 0)
    assert done.stderr.replace(">>> ", "").replace("... ", "").strip() == ""


def test_what_is_typed_at_the_prompt_reaches_workers(exe: Path) -> None:
    terminal = Terminal(str(exe), "-q")
    output = terminal.read_until(">>> ")
    for line in PROGRAM.splitlines():
        terminal.write(line + "\r")
        is_open = line.startswith((" ", "class", "def", "@"))
        output += terminal.read_until("... " if is_open else ">>> ")
    assert "Traceback" not in output
    for line in PRINTED.splitlines():
        assert f"\r\n{line}\r\n" in output
    terminal.write("\x04")
    assert terminal.wait() == 0


#: Like a kernel: replaces __main__ by a module without a file, and runs cells in it.
KERNEL = """
import pathlib, sys, types
sys.modules["__main__"] = main = types.ModuleType("__main__")
exec(compile(pathlib.Path(sys.argv[1]).read_text(), "<cell>", "exec"), vars(main))
"""

#: Keeps its own __main__, which workers import, and has the cells in a dictionary.
KERNEL_IN_A_DICTIONARY = """
import pathlib, sys
if __name__ == "__main__":
    cell = pathlib.Path(sys.argv[1]).read_text()
    exec(compile(cell, "<cell>", "exec"), {"__name__": NAME})
"""


@pytest.mark.parametrize(
    "kernel",
    [
        KERNEL,
        KERNEL_IN_A_DICTIONARY.replace("NAME", '"__main__"'),
        KERNEL_IN_A_DICTIONARY.replace("NAME", '"cells"'),
    ],
    ids=["main replaced", "dictionary called main", "dictionary of another name"],
)
def test_cells_of_a_kernel_reach_workers(
    dragon: Callable[..., Outcome], tmp_path: Path, kernel: str
) -> None:
    (tmp_path / "kernel.py").write_text(kernel)
    (tmp_path / "cell.txt").write_text(PROGRAM)
    assert dragon("kernel.py", "cell.txt") == (PRINTED, "", 0)


def test_main_of_a_package_reaches_workers(dragon: Callable[..., Outcome], tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    (tmp_path / "package" / "__main__.py").write_text(PROGRAM)
    assert dragon("-m", "package") == (PRINTED, "", 0)
    assert dragon("package") == (PRINTED, "", 0)


def test_without_cloudpickle_the_name_of_the_object_is_told(
    dragon: Callable[..., Outcome],
) -> None:
    code = """
import multiprocessing, sys
sys.modules["cloudpickle"] = None
def target(): pass
context = multiprocessing.get_context("dragon")
context.Process(target=print, args=("__main__",)).start()
with context.Pool(1) as pool:
    print(pool.apply(abs, (-1,)))
    try:
        pool.apply(target)
    except Exception as error:
        print(error)
context.Process(target=target).start()
"""
    done = dragon("-c", code)
    assert done.status == 1
    printed = sorted(done.stdout.splitlines())
    assert printed[:1] + printed[2:] == ["1", "__main__"]
    for text in (printed[1], done.stderr.splitlines()[-1].partition(": ")[2]):
        assert text.startswith("Can't pickle <function target at 0x")
        assert text.endswith("(pip install cloudpickle)")


def test_programs_that_need_no_cloudpickle_do_not_import_it(exe: Path, tmp_path: Path) -> None:
    code = """
import multiprocessing, sys
context = multiprocessing.get_context("dragon")
process = context.Process(target=print, args=(multiprocessing.Value,)); process.start()
process.join()
with context.Pool(1) as pool:
    pool.apply(abs, (-1,))
print("cloudpickle" in sys.modules, process.exitcode)
"""
    done = run_program(exe, "-c", code, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "False 0"
