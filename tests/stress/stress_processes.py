"""Thousands of processes that live at the same time: started, talked to, joined.

    ./dev run tests/stress/stress_processes.py [N]          # 5000 if not said

Each of the N processes has a queue of its own, on which it is told a number, and sends back the
number's square. All live until all have answered. Prints what that took, and exits with 1 if
anything went wrong: a process that failed, a wrong answer, anything left behind.

Memory is watched: with less than 2 GiB left on the machine no more processes are started, and the
run fails.
"""

from __future__ import annotations

import collections
import gc
import multiprocessing
import os
import resource
import sys
import time
from typing import Any, NamedTuple

import _dragon

RESERVE_KIB = 2 << 20
ANSWER_S = 120
JOIN_S = 300
N_SAMPLED = 100
TABLE_SEGMENTS = 12  # DRAGON_TABLE_SEGMENTS of runtime/process/table.h


def work(number: int, orders: Any, answers: Any) -> None:
    """Say that this process is up, answer one message, wait for another."""
    answers.put((number, "up"))
    answers.put((number, orders.get() ** 2))
    orders.get()


class Machine(NamedTuple):
    """What processes take from it."""

    available_kib: int
    n_processes: int


class Worker(NamedTuple):
    """A process and the queue that it listens to."""

    process: Any
    orders: Any


class Trouble(Exception):  # noqa: N818 - it is no more than that
    """The run cannot go on; the text says why."""


def machine() -> Machine:
    """Look at the machine."""
    with open("/proc/meminfo", encoding="ascii") as lines:
        numbers = dict(line.split(":") for line in lines)
    available_kib = int(numbers["MemAvailable"].split()[0])
    return Machine(available_kib, sum(name.isdigit() for name in os.listdir("/proc")))


def pss_kib(pid: int) -> int:
    """Return the proportional set size of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def n_descriptors() -> int:
    """Return how many descriptors this process has."""
    return len(os.listdir("/proc/self/fd"))


def allow_descriptors() -> None:
    """Raise the limit as far as it goes: a process keeps a few for each child."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def start(context: Any, n: int, answers: Any, workers: list[Worker]) -> None:
    """Start n processes; those that there are when it fails are in workers."""
    for number in range(n):
        if number % 100 == 0 and machine().available_kib < RESERVE_KIB:
            raise Trouble(f"less than 2 GiB of memory left with {number} processes")
        orders = context.SimpleQueue()
        process = context.Process(target=work, args=(number, orders, answers))
        try:
            process.start()
        except OSError as error:
            raise Trouble(f"process {number} could not be started: {error}") from error
        workers.append(Worker(process, orders))


def gather(answers: Any, n: int, workers: list[Worker]) -> dict[int, object]:
    """Receive a message of each process."""
    received: dict[int, object] = {}
    deadline = time.monotonic() + ANSWER_S
    while len(received) < n:
        if not answers._poll(1.0):
            dead = [w.process.exitcode for w in workers if w.process.exitcode is not None]
            if dead or time.monotonic() > deadline:
                raise Trouble(f"{len(received)} of {n} answered; ended meanwhile: {dead[:10]}")
            continue
        number, message = answers.get()
        if number in received:
            raise Trouble(f"process {number} answered twice")
        received[number] = message
    return received


def talk(answers: Any, workers: list[Worker]) -> None:
    """Send each process a number, see that its square comes back."""
    for number, worker in enumerate(workers):
        worker.orders.put(number)
    received = gather(answers, len(workers), workers)
    wrong = [number for number, square in received.items() if square != number**2]
    if wrong:
        raise Trouble(f"wrong answers from {wrong[:10]}")


def join(workers: list[Worker]) -> None:
    """Let all end, and see how they did."""
    for worker in workers:
        worker.orders.put(0)
    deadline = time.monotonic() + JOIN_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
    codes = collections.Counter(worker.process.exitcode for worker in workers)
    if codes != {0: len(workers)}:
        raise Trouble(f"exit codes: {dict(codes)}")


def kill(workers: list[Worker]) -> None:
    """End what is left of a run that failed."""
    for worker in workers:
        worker.process.kill()
    for worker in workers:
        worker.process.join()


def report(what: str, begin: float, n: int) -> float:
    """Print how long a part took; the time now."""
    now = time.monotonic()
    print(f"{what:24} {now - begin:8.2f} s, {n / (now - begin):8.0f} /s", flush=True)
    return now


def report_peak(workers: list[Worker], before: Machine) -> None:
    """Print what the processes take while all live."""
    at_peak = machine()
    sampled = workers[:: max(1, len(workers) // N_SAMPLED)]
    pss = [pss_kib(worker.process.pid) for worker in sampled]
    mean_kib = (before.available_kib - at_peak.available_kib) / len(workers)
    mean_pss_kib = sum(pss) / len(pss)
    print(f"{'processes':24} {at_peak.n_processes - before.n_processes:8} more on the machine")
    print(f"{'memory':24} {before.available_kib / 1024:8.0f} MiB available before, "
          f"{at_peak.available_kib / 1024:.0f} MiB now: {mean_kib:.0f} KiB a process")  # fmt: skip
    print(f"{'PSS':24} {mean_pss_kib * len(workers) / 1024:8.0f} MiB, "
          f"{mean_pss_kib:.0f} KiB a process (of {len(pss)})")  # fmt: skip
    print(f"{'starter':24} {pss_kib(os.getpid()) / 1024:8.0f} MiB PSS, "
          f"{n_descriptors()} descriptors", flush=True)  # fmt: skip


def live(n: int) -> None:
    """Have n processes live at the same time."""
    context: Any = multiprocessing.get_context("dragon")
    answers = context.SimpleQueue()
    before, workers = machine(), list[Worker]()
    try:
        begin = time.monotonic()
        start(context, n, answers, workers)
        now = report("started", begin, n)
        gather(answers, n, workers)
        report("all up, from the first", begin, n)
        now = time.monotonic()
        talk(answers, workers)
        report("talked to, and answered", now, n)
        report_peak(workers, before)
        now = time.monotonic()
        join(workers)
        report("joined", now, n)
    except BaseException:
        kill(workers)
        raise


class Holdings(NamedTuple):
    """What a run should leave as it was."""

    children: int
    descriptors: int
    blocks: int  # of the default pool

    def is_as_before(self, before: Holdings) -> bool:
        """Return whether nothing was left behind. The table of processes does not shrink again."""
        return (
            self.children == 0
            and self.descriptors <= before.descriptors
            and self.blocks <= before.blocks + TABLE_SEGMENTS
        )


def holdings() -> Holdings:
    """Count what there is, without what is garbage."""
    gc.collect()
    n_blocks = int(_dragon.pool_statistics()["n_blocks"])
    children = len(multiprocessing.active_children())
    return Holdings(children, n_descriptors(), n_blocks)


def main() -> int:
    """Run the command line."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    allow_descriptors()
    live(1)  # what the first process brings about stays
    before = holdings()
    print(f"\n{n} processes:", flush=True)
    try:
        live(n)
        after = holdings()
        if not after.is_as_before(before):
            raise Trouble(f"left behind: {before} became {after}")
    except (Trouble, OSError) as error:
        print(f"FAILED: {error}")
        return 1
    print("nothing left behind")
    return 0


if __name__ == "__main__":
    sys.exit(main())
