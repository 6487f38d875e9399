"""Who may do what: other users nothing, processes of one program everything (docs/security.md)."""

import multiprocessing as mp
import os
import pickle
import random
import subprocess
import sys
from collections.abc import Callable
from multiprocessing import managers
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
from overlay_support import TIMEOUT_S, Outcome, environment

import _dragon

Run = Callable[..., Outcome]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")

# ---- rights that were given up do not come back --------------------------------------------------

#: The last line of each tells how its child was.
GIVE_UP = """
import ctypes, multiprocessing, os, sys
from dragon_overlay import seed, surroundings

def show():
    status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
    print([status[name].split() for name in ("Uid", "NoNewPrivs")], flush=True)

def give_up():
    if "user" in sys.argv:
        os.setgroups([])
        os.setresgid(60126, 60126, 60126)
        os.setresuid(60126, 60126, 60126)
        os.chdir("/")
    else:
        ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS

def lie():
    "Have this process's own code say that nothing has changed, as one that was taken over would."
    surroundings.read = lambda: before
    seed._dragon_launch.seed_is_like_us = lambda: True
    def is_like(self, fixed, variables):
        self._fixed = self._fixed or self._wait_until_ready()
        return True
    seed._ForkServer.is_like = is_like

if __name__ == "__main__":
    context = multiprocessing.get_context("dragon")
    if "server" in sys.argv:
        process = context.Process(target=show)
        process.start()
        process.join()
    before = surroundings.read()
    seed._the_starter()
    give_up()
    if "lies" in sys.argv:
        lie()
    process = context.Process(target=show)
    process.start()
    process.join()
    print(process.exitcode)
"""


@pytest.mark.parametrize("manner", ["honest", "lies"])
@pytest.mark.parametrize("helper", ["seed", "server"])
@pytest.mark.parametrize(
    ("what", "child"),
    [
        pytest.param("user", [["60126"] * 4, ["0"]], marks=needs_root),
        ("privileges", [[str(os.getuid())] * 4, ["1"]]),
    ],
)
def test_a_program_that_has_given_up_rights_has_children_without_them(
    what: str, helper: str, manner: str, child: list[list[str]]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP, what, helper, manner],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout.splitlines()[-2:] == [str(child), "0"], done
    assert "Traceback" not in done.stderr


GIVE_UP_MEANWHILE = """
import ctypes, os, signal
with open(f"/proc/self/task/{os.getpid()}/children") as file:
    seed = int(file.read().split()[0])
os.kill(seed, signal.SIGSTOP)
import multiprocessing
context = multiprocessing.get_context("dragon")  # a fork server is asked for
assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
os.kill(seed, signal.SIGCONT)
child = context.Process(target=os.getpid)
child.start()
child.join()
print(child.exitcode)
"""


def test_that_the_seed_refuses_who_has_just_given_up_rights_is_no_loss_of_it() -> None:
    done = subprocess.run(
        [sys.executable, "-c", GIVE_UP_MEANWHILE],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


# ---- another user --------------------------------------------------------------------------------

PROGRAM = """
import multiprocessing, os, sys
from multiprocessing import connection, util
import dragon
from dragon.managed_memory import MemoryPool

def wait(told, gate):
    told.put(os.getpid())
    gate.get()

if __name__ == "__main__":
    os.setgroups([])
    os.setresgid(60127, 60127, 60127)
    os.setresuid(60127, 60127, 60127)
    os.chdir("/")
    os.umask(0)
    context = multiprocessing.get_context("dragon")
    told, gate = context.Queue(), context.Queue()
    children = [context.Process(target=wait, args=(told, gate)) for _ in range(2)]
    for child in children:
        child.start()
        told.get()
    manager = context.Manager()
    pool = MemoryPool(1 << 20, f"secure{os.getpid()}", 1)
    with connection.Listener(authkey=b"key") as listener:
        print(manager.address, listener.address, flush=True)
        print(pool.serialize().hex(), flush=True)
        sys.stdin.readline()
    for child in children:
        gate.put(None)
    for child in children:
        child.join()
    pool.destroy()
    manager.shutdown()
"""

#: Run as another user. Prints what succeeded, which should be nothing.
ATTACK = """
import ctypes, os, socket, sys
pids, sockets, shm = (text.split(",") for text in sys.argv[1:4])
os.setgroups([])
os.setresgid(60128, 60128, 60128)
os.setresuid(60128, 60128, 60128)

def must_fail(name, do):
    try:
        do()
    except PermissionError:
        return
    except OSError as error:
        print(name, error)
    else:
        print(name, "succeeded")

def attach(pid):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(16, pid, None, None) == 0:  # PTRACE_ATTACH
        return
    raise OSError(ctypes.get_errno(), "ptrace")

def steal(pid, fd):
    pidfd = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(438, pidfd, fd, 0) < 0:  # pidfd_getfd
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)

def connect(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)

for pid in map(int, pids):
    folder = f"/proc/{pid}"
    must_fail(f"{pid} signal", lambda: os.kill(pid, 0))
    must_fail(f"{pid} memory", lambda: open(f"{folder}/mem", "rb"))
    must_fail(f"{pid} environ", lambda: open(f"{folder}/environ", "rb").read(1))
    must_fail(f"{pid} maps", lambda: os.listdir(f"{folder}/map_files"))
    must_fail(f"{pid} ptrace", lambda: attach(pid))
    must_fail(f"{pid} fds", lambda: os.listdir(f"{folder}/fd"))
    for fd in (*range(12), *range(50, 64)):
        must_fail(f"{pid} fd {fd}", lambda: open(f"{folder}/fd/{fd}", "rb"))
        must_fail(f"{pid} steals {fd}", lambda: steal(pid, fd))
for path in sockets:
    must_fail(path, lambda: connect(path))
for name in shm:
    must_fail(name, lambda: open(f"/dev/shm/{name}", "rb"))
    must_fail(name, lambda: os.unlink(f"/dev/shm/{name}"))
"""


def descendants(pid: int) -> list[int]:
    """The process and all below it."""
    below = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            below += descendants(int(child))
    return [pid, *below]


class Running:
    """The program, while its objects exist."""

    def __init__(self) -> None:
        self._before = set(os.listdir("/dev/shm"))
        self.shm: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env=environment(TMPDIR="/tmp"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_until_ready(self) -> None:
        """Wait until it has told what it has."""
        assert self.process.stdout is not None
        self.sockets = self.process.stdout.readline().split()
        self.pool = self.process.stdout.readline().strip()
        self.pids = descendants(self.process.pid)
        new = set(os.listdir("/dev/shm")) - self._before
        self.shm = sorted(name for name in new if f"secure{self.process.pid}" in name)

    def end(self) -> int:
        """Let it end; its status."""
        self.process.communicate("\n", timeout=TIMEOUT_S)
        return self.process.returncode


@pytest.fixture
def running() -> Any:
    """A program of user 60127, with a queue, children, a manager, a Listener, and a named pool."""
    one = Running()
    try:
        one.wait_until_ready()
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
        for name in one.shm:
            Path("/dev/shm", name).unlink(missing_ok=True)


@needs_root
def test_another_user_can_neither_look_nor_signal_nor_attach(running: Running) -> None:
    assert len(running.pids) >= 7  # head, seed, fork server, middle, spare, two children, ...
    assert len(running.sockets) == 2
    assert len(running.shm) >= 1
    done = subprocess.run(
        [
            *("/usr/bin/python3.11", "-c", ATTACK),
            *(",".join(map(str, of)) for of in (running.pids, running.sockets, running.shm)),
        ],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert running.end() == 0


@needs_root
def test_what_has_a_name_is_for_its_user_only_whatever_the_umask(running: Running) -> None:
    for name in running.shm:
        assert Path("/dev/shm", name).stat().st_mode & 0o777 == 0o600
    for path in running.sockets:
        assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert running.end() == 0


@needs_root
def test_only_listeners_have_a_socket_that_can_be_found(running: Running) -> None:
    named = {
        words[6]: words[7]
        for words in map(str.split, Path("/proc/net/unix").read_text().splitlines())
        if len(words) == 8 and words[0] != "Num"
    }
    found = set()
    for pid in running.pids:
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            target = os.readlink(fd)
            if target.startswith("socket:["):
                found.add(named.get(target[8:-1]))
    assert found == {None, *running.sockets}
    assert running.end() == 0


# ---- authkey -------------------------------------------------------------------------------------


def show_key(queue: Any) -> None:
    """What a child sees of it."""
    queue.put(bytes(mp.current_process().authkey))


def test_the_authkey_cannot_be_pickled_but_reaches_children(dragon: BaseContext) -> None:
    key = mp.current_process().authkey
    with pytest.raises(TypeError, match="Pickling an AuthenticationString"):
        pickle.dumps(key)
    queue = dragon.Queue()
    process = dragon.Process(target=show_key, args=(queue,))
    process.start()
    assert queue.get() == bytes(key)
    process.join()


def test_the_authkey_does_not_go_through_a_queue(
    dragon: BaseContext, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = dragon.Queue()
    queue.put(mp.current_process().authkey)  # told on stderr, as in the standard library
    assert queue.empty()
    assert "Pickling an AuthenticationString" in capfd.readouterr().err
    with pytest.raises(TypeError):
        dragon.SimpleQueue().put(mp.current_process().authkey)


def test_the_authkey_is_in_no_command_line_or_environment(dragon: BaseContext) -> None:
    key = bytes(mp.current_process().authkey)
    gate, told = dragon.Queue(), dragon.Queue()
    process = dragon.Process(target=tell_and_wait, args=(told, gate))
    process.start()
    told.get()
    pids = {os.getpid(), *descendants(os.getpid())}
    shown = [key, key.hex().encode(), repr(key).encode()]
    for pid in pids:
        for file in ("cmdline", "environ"):
            try:
                text = Path(f"/proc/{pid}/{file}").read_bytes()
            except OSError:  # it has ended
                continue
            assert not any(one in text for one in shown), (pid, file)
    gate.put(None)
    process.join()


def tell_and_wait(told: Any, gate: Any) -> None:
    """Be there until told to end."""
    told.put(os.getpid())
    gate.get()


def test_a_wrong_authkey_is_refused(dragon: BaseContext) -> None:
    with dragon.Manager() as manager:
        other = managers.SyncManager(manager.address, authkey=b"wrong")
        with pytest.raises(mp.AuthenticationError):
            other.connect()
        assert manager.list([1])[0] == 1  # it still serves


# ---- names of objects, from anywhere -------------------------------------------------------------


def empty(cls: Any) -> Any:
    """A view that is of nothing yet."""
    return cls.__new__(cls)


#: What makes an object that has a name, and a new view to attach to one.
KINDS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "Queue": (lambda ctx: ctx.Queue(), _dragon.Queue),
    "SimpleQueue": (lambda ctx: ctx.SimpleQueue(), _dragon.SimpleQueue),
    "Semaphore": (lambda ctx: ctx.Semaphore(), lambda: empty(_dragon.SemLock)),
    "Event": (lambda ctx: ctx.Event(), lambda: empty(_dragon.Event)),
    "Condition": (lambda ctx: ctx.Condition(), lambda: empty(_dragon.Condition)),
    "Barrier": (lambda ctx: ctx.Barrier(2), lambda: empty(_dragon.Barrier)),
    "Pipe": (lambda ctx: ctx.Pipe()[0]._pipes[0], _dragon.Pipe),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_forged_name_is_refused(dragon: BaseContext, kind: str) -> None:
    make, view = KINDS[kind]
    shared = make(dragon)
    name = shared._export(False)
    view()._attach(name)
    rng = random.Random(kind)
    forged = [b"", name[:-1], name + b"\0", bytes(len(name)), b"\xff" * len(name), name * 2]
    forged += [rng.randbytes(rng.choice((1, 8, 23, 24, 25, 64))) for _ in range(500)]
    for _ in range(2000):
        changed = bytearray(name)
        for _ in range(rng.choice((1, 1, 2, 8))):
            changed[rng.randrange(len(changed))] = rng.choice(
                (0, 1, 0x7F, 0xFF, rng.randrange(256))
            )
        if changed != name:
            forged.append(bytes(changed))
    for one in forged:
        try:
            view()._attach(one)
        except (_dragon.StaleHandle, ValueError):
            pass
        else:
            pytest.fail(f"{one.hex()} was taken for {name.hex()}")


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_another_kind_is_refused(dragon: BaseContext, kind: str) -> None:
    _, view = KINDS[kind]
    channels = {"Queue", "SimpleQueue"}  # the same thing, to be used in two ways
    for other, (make, _) in KINDS.items():
        shared = make(dragon)
        if other != kind and not {kind, other} <= channels:
            with pytest.raises((_dragon.StaleHandle, ValueError)):
                view()._attach(shared._export(False))


@pytest.mark.parametrize("kind", KINDS)
def test_the_name_of_what_is_gone_is_refused(dragon: BaseContext, kind: str) -> None:
    make, view = KINDS[kind]
    shared = make(dragon)
    name = shared._export(False)
    del shared
    with pytest.raises(_dragon.StaleHandle):
        view()._attach(name)


@needs_root
def test_a_pool_of_another_user_is_refused(running: Running) -> None:
    code = """
import sys
from dragon.managed_memory import MemoryPool, DragonMemoryError
try:
    MemoryPool.attach(bytes.fromhex(sys.argv[1]))
except DragonMemoryError as error:
    print(type(error).__name__, error)
"""
    # Root may open the file, but it is not its own: somebody else might change it at will.
    done = subprocess.run(
        [sys.executable, "-c", code, running.pool],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.stdout.startswith("DragonPoolAttachFail "), done
    assert running.end() == 0
