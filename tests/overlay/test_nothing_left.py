"""Nothing is left of a program, however it ends; and what is not the program's is left alone.

How its head may end, with all kinds of children and files, is in tests/torture.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing import util
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from overlay_support import (
    Outcome,
    all_gone,
    environment,
    is_alive,
    run_script,
    state_of,
    until,
    write_script,
)

Start = Callable[..., subprocess.Popen[str]]

# ---- the temporary directory ----


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files of programs. Its path is short, as those of sockets must be."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.fixture
def start(tmp_path: Path, temporary: Path) -> Iterator[Start]:
    """Start a program whose output is a pipe; what is left of it at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def start(text: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        started.append(
            subprocess.Popen(
                [sys.executable, str(write_script(folder, text)), *words],
                stdout=subprocess.PIPE,
                text=True,
                env=environment(TMPDIR=str(temporary)),
                **options,
            )
        )
        return started[-1]

    yield start
    for program in started:
        program.kill()
        program.communicate()


def line_of(program: subprocess.Popen[str]) -> str:
    """The next line that the program prints."""
    assert program.stdout is not None
    return program.stdout.readline().rstrip("\n")


FOLDERS = """
import multiprocessing, os, sys, time
from multiprocessing import util
def folder(answers):
    answers.put(util.get_temp_dir())
def nested(answers):
    child = multiprocessing.Process(target=folder, args=(answers,))
    child.start()
    child.join()
    folder(answers)
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    answers = multiprocessing.Queue()
    child = multiprocessing.Process(target=nested, args=(answers,))
    child.start()
    child.join()
    folders = {answers.get(), answers.get(), util.get_temp_dir()}
    (folder,) = folders
    assert oct(os.stat(folder).st_mode)[-3:] == "700"
    open(os.path.join(folder, "file"), "w").close()
    os.makedirs(os.path.join(folder, "a", "b"))
    os.symlink("/", os.path.join(folder, "a", "link"))
"""


def test_all_processes_of_a_program_have_one_temporary_directory(
    tmp_path: Path, temporary: Path
) -> None:
    done = run_script(FOLDERS, folder=tmp_path, env={"TMPDIR": str(temporary)})
    assert (done.status, done.stderr) == (0, "")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("end", ["os._exit(3)", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_it_is_removed_with_all_that_is_in_it_when_the_head_ends_suddenly(
    tmp_path: Path, temporary: Path, end: str
) -> None:
    (tmp_path / "precious").touch()
    text = f"{FOLDERS}    os.symlink({str(tmp_path)!r}, os.path.join(folder, 'link'))\n    {end}\n"
    run_script(text, folder=tmp_path, env={"TMPDIR": str(temporary)})
    assert until(lambda: list(temporary.iterdir()) == [])
    assert (tmp_path / "precious").exists()


@pytest.mark.skipif(
    "NoNewPrivs:\t0" not in Path("/proc/self/status").read_text(),
    reason="there is nothing left that could be given up",
)
def test_nothing_is_removed_for_a_program_that_has_given_up_rights(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    text = f"""
import ctypes, os, socket
from dragon_overlay import seed
def wait_until_heard():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        seed._the_starter().tell_seed(b"more", [theirs.fileno()])
    ours.send(b"no order")
    ours.recv(4)
seed.keep({str(before)!r})
wait_until_heard()
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
seed.keep({str(after)!r})
os.kill(os.getpid(), 9)
"""
    assert run(text).status == -9
    assert until(lambda: not before.exists())  # a path that is heard later takes its place
    assert after.exists()


def test_a_manager_that_is_killed_leaves_nothing_when_the_program_has_ended(
    run: Callable[..., Outcome], temporary: Path
) -> None:
    text = """
import multiprocessing, os
if __name__ == "__main__":
    manager = multiprocessing.get_context("dragon").Manager()
    os.kill(manager._process.pid, 9)
    manager._process.join()
    print(os.path.dirname(manager.address))
"""
    done = run(text, env={"TMPDIR": str(temporary)})
    assert (done.status, Path(done.stdout.strip()).parent) == (0, temporary)
    assert list(temporary.iterdir()) == []


@pytest.mark.slow
def test_children_that_are_making_it_when_the_head_is_killed_leave_nothing(
    start: Start, temporary: Path
) -> None:
    text = """
import multiprocessing, os, time
from multiprocessing import util
def make():
    os.open(os.path.join(util.get_temp_dir(), str(os.getpid())), os.O_CREAT)
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    context.Process(target=time.sleep, args=(60,)).start()
    print(flush=True)
    while True:
        context.Process(target=make).start()
"""
    for i in range(6):
        program = start(text)
        line_of(program)
        until(lambda: False, 0.01 * i)
        program.kill()
        program.wait()
    assert until(lambda: list(temporary.iterdir()) == [])


def test_children_of_other_start_methods_have_their_own(
    run: Callable[..., Outcome], temporary: Path
) -> None:
    text = """
import multiprocessing
from multiprocessing import util
def show(queue):
    queue.put(util.get_temp_dir())
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    folders = {util.get_temp_dir()}
    for method in ("spawn", "dragon"):
        context = multiprocessing.get_context(method)
        queue = context.SimpleQueue()
        child = context.Process(target=show, args=(queue,))
        child._config.pop("tempdir")  # which spawn inherits, too
        child.start()
        folders.add(queue.get())
        child.join()
    print(len(folders))
"""
    done = run(text, env={"TMPDIR": str(temporary)})
    assert (done.stdout, done.stderr) == ("2\n", "")
    assert list(temporary.iterdir()) == []


def test_a_program_that_chose_another_start_method_gets_the_librarys(
    run: Callable[..., Outcome], temporary: Path
) -> None:
    text = """
import multiprocessing, os
from multiprocessing import util
multiprocessing.set_start_method("spawn")
print(len(os.path.basename(util.get_temp_dir())))
"""
    done = run(text, env={"TMPDIR": str(temporary)})
    assert (done.stdout, done.stderr) == (f"{len('pymp-12345678')}\n", "")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("obstacle", ["os.mkdir(path, 0o755)", "os.symlink('/', path)"])
def test_a_folder_that_others_may_have_made_is_not_used(
    run: Callable[..., Outcome], temporary: Path, obstacle: str
) -> None:
    text = f"""
import multiprocessing, os
from multiprocessing import util
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    from dragon_overlay import temporary
    temporary.plan()
    path = temporary._planned
    {obstacle}
    print(util.get_temp_dir() == path)
"""
    assert run(text, env={"TMPDIR": str(temporary)}).stdout == "False\n"


def test_without_a_seed_the_head_removes_it_all_the_same(
    tools: Callable[..., Outcome], temporary: Path
) -> None:
    text = """
import multiprocessing, os
from multiprocessing import util
from seed_tools import family, kill
if __name__ == "__main__":
    multiprocessing.set_start_method("dragon")
    multiprocessing.Process(target=print).start()
    kill(family().seed)
    print(os.path.isdir(util.get_temp_dir()))
"""
    done = tools(text, env={"TMPDIR": str(temporary)})
    assert done.stdout.split() == ["True"]
    assert list(temporary.iterdir()) == []


# ---- shared memory of the standard library ----


def test_who_attaches_to_shared_memory_does_not_answer_for_it(run: Callable[..., Outcome]) -> None:
    text = """
import subprocess, sys
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
if len(sys.argv) > 1:
    memory = SharedMemory(sys.argv[1])
    resource_tracker.unregister(memory._name, "shared_memory")  # as careful readers do
    if sys.argv[2] == "unlinks":
        memory.unlink()
else:
    for what in ("reads", "reads", "unlinks"):
        memory = SharedMemory(create=True, size=1)
        again = SharedMemory(memory.name)
        subprocess.run([sys.executable, sys.argv[0], memory.name, what], check=True)
        if what == "reads":
            SharedMemory(memory.name).unlink()
        else:
            resource_tracker.unregister(memory._name, "shared_memory")
    print("done")
"""
    assert run(text) == ("done\n", "", 0)


# ---- processes that cannot end themselves ----


@pytest.mark.parametrize(
    "obstacle",
    [
        "os.kill(os.getpid(), signal.SIGSTOP)",
        "os.closerange(3, 1000)",
        "os.execv('/bin/sleep', ['sleep', '60'])",
    ],
)
@pytest.mark.parametrize("end", ["SIGKILL", "SIGSEGV"])
def test_a_childs_child_ends_with_the_head_also_if_it_is_in_no_state_to(
    start: Start, obstacle: str, end: str
) -> None:
    text = f"""
import multiprocessing, os, signal, time
context = multiprocessing.get_context("dragon")
def leaf(pids):
    pids.put(os.getpid())
    {obstacle}
    time.sleep(60)
def nested(pids):
    context.Process(target=leaf, args=(pids,)).start()
    time.sleep(60)
if __name__ == "__main__":
    pids = context.Queue()
    context.Process(target=nested, args=(pids,)).start()
    print(pids.get(), flush=True)
    time.sleep(60)
"""
    program = start(text)
    pid = int(line_of(program))
    assert until(lambda: is_in_obstacle(pid, obstacle))
    program.send_signal(getattr(signal, end))
    program.wait()
    assert all_gone([pid])


def is_in_obstacle(pid: int, obstacle: str) -> bool:
    """Whether the process has done that."""
    if "SIGSTOP" in obstacle:
        return state_of(pid) == "T"
    if "exec" in obstacle:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    return len(os.listdir(f"/proc/{pid}/fd")) <= 3


# ---- threads, jobs, daemons ----


@pytest.mark.parametrize("is_daemonic", [False, True])
def test_a_process_outlives_the_thread_that_started_it(start: Start, is_daemonic: bool) -> None:
    text = f"""
import multiprocessing, os, threading, time
context = multiprocessing.get_context("dragon")
def work(is_told, answers):
    answers.put(os.getpid())
    is_told.wait()
    answers.put("alive")
    time.sleep(60)
def start():
    process = context.Process(target=work, args=(is_told, answers), daemon={is_daemonic})
    process.start()
if __name__ == "__main__":
    is_told, answers = context.Event(), context.Queue()
    context.Process(target=print).start()
    for _ in range(3):
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        while os.path.exists(f"/proc/self/task/{{thread.native_id}}"):
            time.sleep(0.001)
    pids = [answers.get() for _ in range(3)]
    is_told.set()
    assert [answers.get() for _ in range(3)] == ["alive"] * 3
    print(*pids, flush=True)
    time.sleep(60)
"""
    program = start(text)
    line_of(program)
    pids = [int(word) for word in line_of(program).split()]
    assert len(pids) == 3
    assert all(map(is_alive, pids))
    program.kill()
    assert all_gone(pids)


@pytest.mark.parametrize("how", ["killed", "ends"])
def test_a_worker_that_makes_itself_a_daemon_of_the_system_is_left_alone(
    start: Start, tmp_path: Path, how: str
) -> None:
    text = """
import multiprocessing, os, select, sys, time
def detach(path, head):
    head = os.pidfd_open(head)
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    os.close(1)
    print(os.getpid(), file=open(path + ".pid", "w"), flush=True)
    os.rename(path + ".pid", path)
    select.select([head], [], [])
    time.sleep(60)
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    process = context.Process(target=detach, args=(sys.argv[1], os.getpid()))
    process.start()
    process.join()
    print("ready", flush=True)
    if sys.argv[2] == "killed":
        time.sleep(60)
"""
    path = tmp_path / "pid"
    program = start(text, str(path), how)
    assert line_of(program) == "ready"
    assert until(path.exists)
    pid = int(path.read_text())
    if how == "killed":
        program.kill()
    program.wait()
    assert not until(lambda: not is_alive(pid), 0.5)
    os.kill(pid, signal.SIGKILL)


JOB = """
import multiprocessing, os, time
def work(is_ready, is_told, answers):
    is_ready.set()
    is_told.wait()
    answers.put(os.getpid())
if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    is_ready, is_told, answers = context.Event(), context.Event(), context.Queue()
    process = context.Process(target=work, args=(is_ready, is_told, answers))
    process.start()
    with context.Pool(2) as pool:
        total = pool.map_async(abs, range(10))
        is_ready.wait()
        print("ready", process.pid, flush=True)
        input()
        is_told.set()
        assert answers.get() == process.pid
        print("sum", sum(total.get()), flush=True)
    process.join()
"""


def test_ctrl_z_stops_a_program_and_fg_continues_it(tmp_path: Path) -> None:
    script = write_script(tmp_path, JOB)
    with Shell(tmp_path) as shell:
        shell.type(f"{sys.executable} {script}\n")
        pid = int(shell.read_until("ready ", "\n"))
        shell.type("\x1a")
        shell.read_until("Stopped", "\n")
        assert until(lambda: state_of(pid) == "T")
        shell.type("fg\n")
        assert until(lambda: state_of(pid) != "T")
        shell.type("\n")
        assert shell.read_until("sum ", "\n") == "45"
        assert until(lambda: not is_alive(pid))


class Shell:
    """A shell with job control, in a terminal of its own."""

    def __init__(self, folder: Path) -> None:
        self._master, slave = os.openpty()
        self._text = ""
        self._shell = subprocess.Popen(
            ["/bin/bash", "--norc", "--noediting", "-i"],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=folder,
            env=environment(PS1="$ "),
            start_new_session=True,
            preexec_fn=lambda: os.close(os.open(os.ttyname(slave), os.O_RDWR)),  # it becomes ours
        )
        os.close(slave)

    def __enter__(self) -> "Shell":
        return self

    def __exit__(self, *exception: object) -> None:
        os.close(self._master)  # the kernel hangs up
        self._shell.kill()
        self._shell.wait()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._master, keys.encode())

    def read_until(self, begin: str, end: str) -> str:
        """What the terminal shows next between begin and end."""
        while begin not in self._text or end not in self._text.split(begin, 1)[1]:
            self._text += os.read(self._master, 4096).decode().replace("\r", "")
        found, _, self._text = self._text.split(begin, 1)[1].partition(end)
        return found


# ---- interrupts ----


def test_workers_that_are_interrupted_before_they_are_ready_say_nothing(start: Start) -> None:
    text = """
import multiprocessing, os, signal, sys, time
if __name__ != "__main__":
    os.kill(os.getpid(), signal.SIGINT)
def prepare():
    os.kill(os.getpid(), signal.SIGINT)
def work(x):
    return x
if __name__ == "__main__":
    with multiprocessing.get_context("dragon").Pool(2, prepare) as pool:
        print(pool.map(work, range(3)), flush=True)
"""
    program = start(text, stderr=subprocess.PIPE)
    assert program.stderr is not None
    assert (line_of(program), program.stderr.read()) == ("[0, 1, 2]", "")


def test_a_worker_can_be_interrupted_once_it_works(dragon: BaseContext) -> None:
    with dragon.Pool(1) as pool, pytest.raises(RuntimeError, match="KeyboardInterrupt"):
        pool.apply(os.kill, (pool._pool[0].pid, signal.SIGINT))  # type: ignore[attr-defined]


def test_starting_workers_leaves_the_signal_mask_as_it_was(dragon: BaseContext) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with dragon.Pool(1) as pool:
        assert pool.apply(blocked_signals) == before
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def blocked_signals() -> set[Any]:
    """Signals that the calling thread blocks."""
    return signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_the_tests_themselves_have_the_temporary_directory_of_dragon() -> None:
    assert util.get_temp_dir.__module__ == "dragon_overlay.temporary"  # type: ignore[attr-defined]
