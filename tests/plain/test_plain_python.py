"""The packages under plain python3: the core works, the start method does not exist."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "_dragon_launch" in sys.builtin_module_names, reason="about plain python3"
)


def run(text: str) -> subprocess.CompletedProcess[str]:
    """Run a program with the Python that runs the tests."""
    return subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, timeout=20, check=False
    )


def test_import_dragon_works_and_brings_no_start_method() -> None:
    done = run("""
import dragon, multiprocessing, sys
print(dragon.__version__, multiprocessing.get_all_start_methods())
print([name for name in sys.modules if name.startswith("dragon_overlay")])
""")
    assert (done.stdout, done.stderr) == ("0.1.0 ['fork', 'spawn', 'forkserver']\n[]\n", "")


CALLS = ["multiprocessing.set_start_method('dragon')", "multiprocessing.get_context('dragon')"]
CALLS += ["multiprocessing.get_context('spawn').get_context('dragon')"]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "imports", ["import dragon, multiprocessing", "import multiprocessing, dragon"]
)
def test_asking_for_the_start_method_says_in_one_line_how_to_get_it(
    call: str, imports: str
) -> None:
    done = run(f"{imports}\n{call}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ValueError: cannot find context for 'dragon': the start method is part of the dragon "
        "executable; run the program with `dragon` in place of `python3`"
    )
    assert done.stderr.count("Traceback") == 1


def test_a_program_that_asks_in_vain_can_go_on_with_another_method() -> None:
    done = run("""
import dragon, multiprocessing
try:
    multiprocessing.set_start_method("dragon")
except ValueError:
    print(multiprocessing.get_start_method(allow_none=True))
    multiprocessing.set_start_method("spawn")
print(multiprocessing.get_start_method())
""")
    assert (done.stdout, done.stderr) == ("None\nspawn\n", "")


def test_without_the_import_the_library_speaks() -> None:
    done = run("import multiprocessing\nmultiprocessing.set_start_method('dragon')")
    assert done.stderr.splitlines()[-1] == "ValueError: cannot find context for 'dragon'"


def test_stock_multiprocessing_is_untouched() -> None:
    done = run("""
import dragon, multiprocessing
q = multiprocessing.Queue()
p = multiprocessing.Process(target=q.put, args=(1,))
p.start()
print(q.get(), type(q).__module__)
p.join()
""")
    assert (done.stdout, done.stderr) == ("1 multiprocessing.queues\n", "")


def test_the_runtimes_own_functions_say_how_to_get_it() -> None:
    done = run("import _dragon; print(_dragon.has_node()); _dragon.pool_statistics()")
    assert done.stdout == "False\n"
    assert "run the program with `dragon`" in done.stderr.splitlines()[-1]


def test_the_queue_type_of_the_extension_says_the_same() -> None:
    done = run("import _dragon; _dragon.Queue()._create(0, 0)")
    assert "run the program with `dragon`" in done.stderr.splitlines()[-1]


def test_no_threads_are_started_by_the_import() -> None:
    done = run("import dragon.managed_memory, os; print(len(os.listdir('/proc/self/task')))")
    assert done.stdout == "1\n"


def test_the_package_is_typed_and_all_its_modules_can_be_imported() -> None:
    import dragon

    folder = Path(dragon.__file__).parent
    assert (folder / "py.typed").exists()
    for path in folder.rglob("*.py"):
        module = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
        if not module.startswith("dragon.mpbridge"):
            assert run(f"import {module}").stderr == ""


@pytest.mark.parametrize("module", ["mpbridge", "mpbridge.queues"])
def test_the_classes_of_the_start_method_say_how_to_get_them(module: str) -> None:
    done = run(f"import dragon.{module}")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: start method 'dragon' is part of the dragon executable")


def test_a_channel_has_no_descriptor_and_says_why() -> None:
    done = run("""
import os
from dragon.channels import Channel
from dragon.managed_memory import MemoryPool
with MemoryPool(1 << 20, f"plain{os.getpid()}", 7) as pool, Channel(pool, 3) as channel:
    channel.fileno()
""")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("dragon.channels.ChannelError: ")
    assert "channel 3: a thread of the runtime raises the descriptor" in last
    assert "run the program with `dragon`, or wait with poll() or a ChannelSet" in last
