"""What the workers of pools run in these tests. Imports no pytest, so that they start fast."""

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from typing import Any

from dragon_overlay.pool import worker

#: How often the call of each item has begun; the test sees it, too.
counts: Any = None
gates: Any = None


def share(shared: Any, more: Any = None) -> None:
    """An initializer."""
    global counts, gates
    counts = shared
    gates = more


def count(x: int) -> int:
    counts[x] += 1  # without a lock, which would stay locked by who is killed
    return x


def die_at_three(x: int, how: str = "SIGKILL") -> int:
    count(x)
    if x == 3:
        die(how)
    return x


def die_at_two_and_five(x: int) -> int:
    count(x)
    if x in (2, 5):
        die("SIGKILL")
    return x


def die(how: str) -> None:
    if how.startswith("SIG"):
        number = getattr(signal, how)
        os.kill(os.getpid(), number)
    os._exit(int(how))


def die_with(*args: Any, **kwargs: Any) -> None:
    die("SIGKILL")


def queue_with(x: Any) -> Any:
    """A queue that this process forgets."""
    queue = multiprocessing.get_context("dragon").Queue()
    queue.put(x)
    return queue


class DiesWhilePickled:
    def __reduce__(self) -> Any:
        die("SIGKILL")


def result_that_kills(x: int) -> Any:
    count(x)
    return DiesWhilePickled() if x == 1 else x


class DiesOnArrival:
    """Kills whoever unpickles it, but for the process that made it."""

    def __reduce__(self) -> Any:
        return _die_unless, (os.getpid(),)


def _die_unless(pid: int) -> None:
    if os.getpid() != pid:
        die("SIGKILL")


def share_and_die_at(shared: Any, step: str, mark: str) -> None:
    """An initializer: the first worker that is about to make a step of the protocol is killed."""
    share(shared)
    worker._KEEP_NS = 1 << 60  # results are kept, however slow the machine
    worker.PROBE = functools.partial(_die_once, step, mark)


def _die_once(fatal: str, mark: str, step: str) -> None:
    if step == fatal:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            die("SIGKILL")


def share_and_wait_at(shared: Any, gates: Any, n: int, fatal: str, mark: str) -> None:
    """An initializer: a worker waits after it has made n calls, and dies at a step from then on.

    Results are kept until the end of their task.
    """
    share(shared, gates)
    worker._KEEP_NS = 1 << 60
    worker.PROBE = functools.partial(_wait_and_die, [0], n, fatal, mark)


def _wait_and_die(n_made: list[int], n: int, fatal: str, mark: str, step: str) -> None:
    if step == "kept":
        n_made[0] += 1
        if n_made[0] == n and not os.path.exists(mark):
            pass_gate(0, counts=False)
    elif n_made[0] >= n:
        _die_once(fatal, mark, step)


def pass_gate_at_500(x: int) -> int:
    return pass_gate(x) if x == 500 else count(x)


def meet_at_500(x: int) -> int:
    """Items 500 and 501 wait for each other."""
    if x in (500, 501):
        gates.wait()
    return count(x)


def pass_gate(x: int, *, counts: bool = True) -> int:
    """Say that the call has begun, and wait until it may end."""
    entered, gate = gates
    entered.release()
    gate.acquire()
    return count(x) if counts else x


def leave(code: Any) -> None:
    sys.exit(code)


def interrupt(x: Any) -> None:
    raise KeyboardInterrupt


class Unusual(BaseException):
    """No Exception."""


def raise_unusual(text: str) -> None:
    raise Unusual(text)


class NeedsTwoError(Exception):
    """Can be pickled and not unpickled."""

    def __init__(self, a: Any, b: Any) -> None:
        super().__init__(f"{a} and {b}")


def raise_one_that_does_not_arrive(x: Any) -> None:
    raise NeedsTwoError(x, x)


def raise_one_that_does_not_leave(x: Any) -> None:
    raise ValueError(x, threading.Lock())


class BadRepr:
    def __reduce__(self) -> Any:
        raise ArithmeticError("refuses to be pickled")

    def __repr__(self) -> str:
        raise ArithmeticError("refuses to be shown")


def bad_repr(x: Any) -> Any:
    return BadRepr()


def pools_in_pools(depth: int) -> int:
    """How many processes a tree of pools of two has, this one included."""
    if depth == 0:
        return 1
    with multiprocessing.get_context("dragon").Pool(2) as pool:
        return 1 + sum(pool.map(pools_in_pools, [depth - 1] * 2))


def inner_pids(x: Any) -> Any:
    """Make a pool, and leave it busy and open."""
    global _kept
    _kept = multiprocessing.get_context("dragon").Pool(2)
    return [worker.pid for worker in _kept._pool]


_kept: Any = None


def hang_at_three(x: int) -> int:
    """A frame that a stack shows."""
    count(x)
    if x == 3:
        threading.Event().wait()
    return x


def hang_at_first(x: int) -> int:
    """Hang when an item comes for the first time."""
    count(x)
    if x == 3 and counts[x] == 1:
        threading.Event().wait()
    return x


def die_at_first(x: int) -> int:
    """Die when an item comes for the first time, and for the second."""
    count(x)
    if x == 3 and counts[x] <= 2:
        die("SIGKILL")
    return x


def die_inside(how: str) -> None:
    """A frame that a stack shows."""
    die(how)


def fail_always(x: int) -> None:
    count(x)
    raise ValueError("fails")


def hang_without_signals(x: int) -> None:
    """Hang where the stack cannot be had."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    threading.Event().wait()


def grow_at_three(x: int) -> int:
    """The worker, which keeps much more memory from the third item on."""
    global _kept
    if x == 3:
        _kept = b"x" * (64 << 20)
    return os.getpid()


def nap_briefly(x: int) -> int:
    time.sleep(0.04)
    return os.getpid()


def keywords(**kwargs: Any) -> Any:
    return kwargs
