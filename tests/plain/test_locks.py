"""dragon.locks, under plain python3 and under dragon."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random
import signal
import struct
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any

import pytest

from dragon.dtypes import DragonException, DragonObjectDestroyed
from dragon.locks import (
    DragonLock,
    DragonLockDestroyed,
    DragonLockError,
    DragonLockTimeout,
    FIFOLock,
    GreedyLock,
    Type,
)
from dragon.managed_memory import MemoryAlloc, MemoryPool
from dragon.rc import DragonError

SPAWN = multiprocessing.get_context("spawn")
COUNTER = struct.Struct("=QQ")
LARGEST = 8192


@pytest.fixture
def pool() -> Iterator[MemoryPool]:
    with MemoryPool(1 << 20, f"lock{os.getpid()}x{random.getrandbits(40):x}", 7) as pool:
        yield pool


@pytest.fixture
def block(pool: MemoryPool) -> MemoryAlloc:
    return pool.alloc(LARGEST)


@pytest.fixture(params=list(Type), ids=lambda kind: kind.name)
def lock(request: pytest.FixtureRequest, block: MemoryAlloc) -> DragonLock:
    return DragonLock.init(request.param, block.get_memview())


def becomes_true(condition: Callable[[], bool]) -> bool:
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
    return True


def sleeps_in(memory: range, thread_id: int, pid: int | str = "self") -> bool:
    """True while the kernel has the thread asleep on a word of the memory: it waits for the lock.

    The first argument of the system call that a thread sleeps in is the address of its word.
    """
    call = Path(f"/proc/{pid}/task/{thread_id}/syscall").read_text().split()
    return len(call) > 1 and int(call[1], 16) in memory


def bytes_of(block: MemoryAlloc) -> range:
    """The addresses of a block."""
    return range(block.get_int_ptr(), block.get_int_ptr() + block.size)


def waits_for_lock_in(block: MemoryAlloc, thread_id: int) -> bool:
    return becomes_true(lambda: sleeps_in(bytes_of(block), thread_id))


def in_thread(do: Callable[[], Any]) -> Any:
    """What do() returns or raises in another thread."""
    result = []

    def run() -> None:
        try:
            result.append(do())
        except DragonLockError as error:
            result.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return result[0]


# ---- lifetime ----


@pytest.mark.parametrize("kind", Type)
def test_a_lock_needs_the_bytes_that_its_kind_says(kind: Type) -> None:
    size = DragonLock.size(kind)
    DragonLock.init(kind, bytearray(size))
    with pytest.raises(DragonLockError, match=r"small.*\(Dragon Lock Error Code=DRAGON_INVALID"):
        DragonLock.init(kind, bytearray(size - 1))


def test_the_classes_of_one_kind_are_locks_of_that_kind() -> None:
    for cls, kind in ((FIFOLock, Type.FIFO), (GreedyLock, Type.GREEDY)):
        memory = bytearray(LARGEST)
        assert cls.size() == DragonLock.size(kind)
        lock = cls.init(memory)
        assert lock.kind is kind
        assert DragonLock.attach(memory).kind is kind
        with cls.attach(memory):
            assert lock.try_lock() == 0


def test_a_lock_of_another_kind_is_refused_by_the_class_of_one_kind() -> None:
    memory = bytearray(LARGEST)
    GreedyLock.init(memory).detach()
    with pytest.raises(DragonLockError, match="is GREEDY") as caught:
        FIFOLock.attach(memory)
    assert caught.value.lib_err == DragonError.INVALID_LOCK_KIND


@pytest.mark.parametrize("kind", [0, 4, -1, "FIFO", None])
def test_what_is_no_kind_is_refused(kind: object) -> None:
    with pytest.raises(DragonLockError, match="DRAGON_INVALID_LOCK_KIND"):
        DragonLock.init(kind, bytearray(LARGEST))
    with pytest.raises(DragonLockError):
        DragonLock.size(kind)


def test_memory_without_a_lock_is_refused() -> None:
    for memory in (bytearray(LARGEST), bytearray(b"\xff" * LARGEST), bytearray(3), bytearray()):
        with pytest.raises(DragonLockError, match="DRAGON_LOCK_NOT_INITD") as caught:
            DragonLock.attach(memory)
        assert isinstance(caught.value, RuntimeError)
        assert isinstance(caught.value, DragonException)


def test_memory_that_cannot_be_written_or_is_not_aligned_is_refused() -> None:
    with pytest.raises(BufferError):
        DragonLock.init(Type.FIFO, bytes(LARGEST))
    with pytest.raises(TypeError):
        DragonLock.init(Type.FIFO, 5)
    with pytest.raises(DragonLockError, match="not aligned"):
        DragonLock.init(Type.FIFO, memoryview(bytearray(LARGEST + 8))[1:])


def test_a_lock_is_made_by_init_or_attach_only_and_not_pickled(lock: DragonLock) -> None:
    for cls in (DragonLock, FIFOLock, GreedyLock):
        with pytest.raises(TypeError, match="init"):
            cls()
    with pytest.raises(TypeError, match="send its memory"):
        pickle.dumps(lock)


def test_errors_travel() -> None:
    for cls in (DragonLockError, DragonLockTimeout, DragonLockDestroyed):
        error = pickle.loads(pickle.dumps(cls("no", DragonError.TIMEOUT)))
        assert type(error) is cls
        assert str(error) == "no (Dragon Lock Error Code=DRAGON_TIMEOUT)"


# ---- locking ----


def test_lock_try_lock_and_unlock(lock: DragonLock) -> None:
    for _ in range(3):
        assert lock.lock() is None
        assert lock.try_lock() == 0
        lock.unlock()
        assert lock.try_lock() == 1
        lock.unlock()
        with lock as entered:
            assert entered is lock
            assert lock.try_lock() == 0
        assert not lock.owner_died


def test_locking_twice_is_an_error(lock: DragonLock, block: MemoryAlloc) -> None:
    other = DragonLock.attach(block.get_memview())
    with lock:
        for view in (lock, other):
            with pytest.raises(DragonLockError, match="holds it already"):
                view.lock()
            with pytest.raises(DragonLockError, match="holds it already"):
                view.lock(0)


def test_only_the_thread_that_locked_it_unlocks_it(lock: DragonLock) -> None:
    with pytest.raises(DragonLockError, match="has not locked it"):
        lock.unlock()
    with lock:
        assert isinstance(in_thread(lock.unlock), DragonLockError)
        assert in_thread(lock.try_lock) == 0
    with pytest.raises(DragonLockError, match="has not locked it"):
        lock.unlock()


@pytest.mark.parametrize("timeout", [0, -1, 0.05, 0.05 + 1e-9])
def test_a_wait_ends_with_its_time_out(lock: DragonLock, timeout: float) -> None:
    def wait() -> float:
        begin = time.monotonic()
        with pytest.raises(DragonLockTimeout) as caught:
            lock.lock(timeout)
        assert isinstance(caught.value, TimeoutError)
        return time.monotonic() - begin

    with lock:
        assert max(timeout, 0) <= in_thread(wait) < max(timeout, 0) + 1


@pytest.mark.parametrize("timeout", ["1", [], float("nan")])
def test_what_is_no_time_out_is_refused(lock: DragonLock, timeout: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        lock.lock(timeout)
    assert lock.try_lock() == 1
    lock.unlock()


def test_a_waiting_thread_lets_the_others_run_and_unlock(
    lock: DragonLock, block: MemoryAlloc
) -> None:
    lock.lock()
    got = threading.Event()

    def wait() -> None:
        with lock:
            got.set()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waits_for_lock_in(block, thread.native_id)
    assert not got.is_set()
    lock.unlock()
    assert got.wait(20)
    thread.join()


def test_threads_exclude_each_other(lock: DragonLock) -> None:
    counter = [0, 0]

    def count() -> None:
        for _ in range(500):
            with lock:
                counter[0] += 1
                time.sleep(0)
                counter[1] += 1
                assert counter[0] == counter[1]

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter == [2000, 2000]


# ---- the memory ----


def test_an_attached_lock_keeps_its_memory() -> None:
    memory = bytearray(LARGEST)
    lock = GreedyLock.init(memory)
    with pytest.raises(BufferError):
        memory.clear()
    with lock, pytest.raises(DragonLockError, match="holds it"):
        lock.detach()
    lock.detach()
    memory.clear()
    for use in (lock.lock, lock.try_lock, lock.unlock, lock.detach, lock.destroy):
        with pytest.raises(DragonLockError, match="DRAGON_LOCK_NOT_INITD"):
            use()


def test_a_lock_that_is_dropped_lets_go_of_its_memory() -> None:
    memory = bytearray(LARGEST)
    GreedyLock.init(memory)
    memory.clear()


def test_a_lock_that_is_dropped_while_locked_warns_and_keeps_its_memory() -> None:
    memory = bytearray(LARGEST)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        GreedyLock.init(memory).lock()
    assert [warning.category for warning in caught] == [ResourceWarning]
    with pytest.raises(BufferError):
        memory.clear()


def test_a_thread_that_waits_keeps_the_lock_attached(lock: DragonLock, block: MemoryAlloc) -> None:
    holder = DragonLock.attach(block.get_memview())
    holder.lock()

    def wait() -> None:
        lock.lock()
        lock.unlock()

    def is_refused() -> bool:
        try:
            lock.detach()
        except DragonLockError:
            return True
        return False

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waits_for_lock_in(block, thread.native_id)
    assert is_refused()
    holder.unlock()
    thread.join()
    assert not is_refused()


def test_destroy_by_the_holder_tells_those_who_wait(lock: DragonLock, block: MemoryAlloc) -> None:
    other = DragonLock.attach(block.get_memview())
    told: list[DragonLock] = []
    lock.lock()

    def wait(view: DragonLock) -> None:
        with pytest.raises(DragonObjectDestroyed):
            view.lock()
        told.append(view)

    threads = [threading.Thread(target=wait, args=(view,), daemon=True) for view in (lock, other)]
    for thread in threads:
        thread.start()
        assert waits_for_lock_in(block, thread.native_id)
    lock.destroy()
    for thread in threads:
        thread.join()
    assert set(map(id, told)) == {id(lock), id(other)}
    for use in (other.lock, other.try_lock, other.destroy):
        with pytest.raises(DragonLockDestroyed, match="DRAGON_OBJECT_DESTROYED"):
            use()
    with pytest.raises(DragonLockDestroyed):
        DragonLock.attach(block.get_memview())
    other.detach()
    with DragonLock.init(Type.GREEDY, block.get_memview()) as again:
        assert again.try_lock() == 0


def test_nobody_destroys_what_another_holds(lock: DragonLock) -> None:
    with lock:
        assert isinstance(in_thread(lock.destroy), DragonLockError)
    lock.destroy()


# ---- processes ----


def hold_for_ever(block: MemoryAlloc, ready: Any) -> None:
    lock = DragonLock.attach(block.get_memview())
    lock.lock()
    ready.send(os.getpid())
    time.sleep(1000)


def start_holder(block: MemoryAlloc) -> Any:
    here, there = SPAWN.Pipe()
    process = SPAWN.Process(target=hold_for_ever, args=(block, there), daemon=True)
    process.start()
    assert here.poll(20)
    here.recv()
    return process


def test_the_next_holder_is_told_of_a_death(lock: DragonLock, block: MemoryAlloc) -> None:
    holder = start_holder(block)
    assert lock.try_lock() == 0
    killed_at: list[float] = []
    waiter = threading.get_native_id()

    def kill() -> None:
        try:
            assert waits_for_lock_in(block, waiter)
        finally:
            killed_at.append(time.monotonic())
            os.kill(holder.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with lock:
        assert time.monotonic() - killed_at[0] < 1
        assert lock.owner_died
        assert isinstance(in_thread(lock.unlock), DragonLockError)
        assert lock.owner_died
    assert not lock.owner_died
    with lock:
        assert not lock.owner_died
    killer.join()
    holder.join()


def test_a_thread_that_ends_with_the_lock_counts_as_dead(lock: DragonLock) -> None:
    assert in_thread(lock.try_lock) == 1
    lock.lock(20)  # Python has joined the thread a moment before it ends
    assert lock.owner_died
    lock.unlock()


def count_often(name: str, n: int) -> None:
    memory = SharedMemory(name)
    assert memory.buf
    lock = DragonLock.attach(memory.buf[:LARGEST])
    for _ in range(n):
        with lock:
            first, second = COUNTER.unpack_from(memory.buf, LARGEST)
            COUNTER.pack_into(memory.buf, LARGEST, first + 1, second)
            COUNTER.pack_into(memory.buf, LARGEST, first + 1, second + 1)
    lock.detach()
    memory.close()


@pytest.mark.parametrize("kind", Type)
def test_processes_exclude_each_other_in_memory_of_the_standard_library(kind: Type) -> None:
    memory = SharedMemory(create=True, size=LARGEST + COUNTER.size)
    assert memory.buf
    lock = DragonLock.init(kind, memory.buf[:LARGEST])
    processes = [SPAWN.Process(target=count_often, args=(memory.name, 500)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert COUNTER.unpack_from(memory.buf, LARGEST) == (1500, 1500)
    lock.destroy()
    memory.close()
    memory.unlink()


def test_a_forked_child_does_not_hold_what_its_parent_holds(lock: DragonLock) -> None:
    with lock:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                lock.unlock()
            except DragonLockError:
                status = 2 if lock.try_lock() else 0
                lock.detach()
            os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert lock.try_lock() == 0


# ---- signals ----

INTERRUPTED = """
import ctypes, signal, sys, threading, time
from dragon.locks import DragonLock, Type

memory = bytearray(8192)
lock = DragonLock.init(Type[sys.argv[1]], memory)
locked = threading.Event()

def hold():
    lock.lock()
    locked.set()
    time.sleep(1000)

threading.Thread(target=hold, daemon=True).start()
locked.wait()
try:
    print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
    lock.lock()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("kind", Type)
def test_ctrl_c_ends_a_wait(kind: Type) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, kind.name], stdout=subprocess.PIPE, text=True
    )
    assert program.stdout
    address = int(program.stdout.readline())
    memory = range(address, address + LARGEST)
    assert becomes_true(lambda: sleeps_in(memory, program.pid, program.pid))
    begin = time.monotonic()
    program.send_signal(signal.SIGINT)
    assert program.stdout.readline() == "interrupted\n"
    assert time.monotonic() - begin < 1.5
    program.communicate()
    assert program.returncode == 0


def test_a_handler_that_returns_does_not_cost_the_place_in_line(block: MemoryAlloc) -> None:
    lock = FIFOLock.init(block.get_memview())
    order: list[str] = []
    handled: list[int] = []
    previous = signal.signal(signal.SIGUSR1, lambda *_: handled.append(1))
    inside, release = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            inside.set()
            release.wait(20)

    def come_later() -> None:
        with lock:
            order.append("later")

    holder = threading.Thread(target=hold)
    later = threading.Thread(target=come_later)

    def disturb() -> None:
        try:
            assert waits_for_lock_in(block, threading.main_thread().native_id)
            later.start()
            assert waits_for_lock_in(block, later.native_id)
            for n in range(5):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                assert becomes_true(lambda n=n: len(handled) > n)
        finally:
            release.set()

    disturber = threading.Thread(target=disturb)
    holder.start()
    assert inside.wait(20)
    disturber.start()
    try:
        with lock:
            order.append("first")
    finally:
        signal.signal(signal.SIGUSR1, previous)
    for thread in (holder, later, disturber):
        thread.join()
    assert order == ["first", "later"]
    assert len(handled) == 5
