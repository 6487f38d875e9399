"""A program that starts processes when it is told to, and says how long that took.

    start_program.py METHOD

Reads commands from stdin, a line each, and answers each with a line of numbers: times in ns, sizes
in bytes. bench_start.py runs it once under each start method, also with a line more that imports a
library; what stands at the level of the module is what every child executes.
"""

from __future__ import annotations

import multiprocessing
import os  # noqa: F401 - as nearly every program does
import time

if __name__ == "__main__":
    import sys
    from multiprocessing.connection import Connection
    from multiprocessing.context import BaseContext

# ---- in the children ----------------------------------------------------------------------------


def tell_time(writer: Connection) -> None:
    """Send the time of the first line of a target, which is this one."""
    now = time.monotonic_ns()
    writer.send_bytes(now.to_bytes(8, "little"))


def do_nothing() -> None:
    """Be a process."""


def tell_that_it_is_up(writer: Connection) -> None:
    """Send any message: the initializer of a Pool's worker."""
    writer.send_bytes(b"up")


def be_idle(writer: Connection, reader: Connection) -> None:
    """Say so, and wait to be told to end."""
    tell_that_it_is_up(writer)
    reader.recv_bytes()


# ---- in the program -----------------------------------------------------------------------------


def single(context: BaseContext) -> list[int]:
    """Start and join one process: to its first line; start() itself; to the end of join()."""
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=tell_time, args=(writer,))  # type: ignore[attr-defined]
    begin = time.monotonic_ns()
    process.start()
    started = time.monotonic_ns()
    first_line = int.from_bytes(reader.recv_bytes(), "little")
    process.join()
    end = time.monotonic_ns()
    check([process])
    return [first_line - begin, started - begin, end - begin]


def series(context: BaseContext, n: int) -> list[int]:
    """Start and join n processes, one after the other: time of all."""
    begin = time.monotonic_ns()
    for _ in range(n):
        process = context.Process(target=do_nothing)  # type: ignore[attr-defined]
        process.start()
        process.join()
        check([process])
    return [time.monotonic_ns() - begin]


def burst(context: BaseContext, n: int) -> list[int]:
    """Start n processes, then join them: time of all."""
    begin = time.monotonic_ns()
    processes = [context.Process(target=do_nothing) for _ in range(n)]  # type: ignore[attr-defined]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    end = time.monotonic_ns()
    check(processes)
    return [end - begin]


def pool(context: BaseContext, n: int) -> list[int]:
    """Make a Pool(n): until its first map is done; until that, and all workers are up."""
    reader, writer = context.Pipe(duplex=False)
    begin = time.monotonic_ns()
    workers = context.Pool(n, tell_that_it_is_up, (writer,))
    if workers.map(abs, range(-n, 0)) != list(range(n, 0, -1)):
        raise RuntimeError("the map is wrong")
    mapped = time.monotonic_ns()
    for _ in range(n):
        reader.recv_bytes()
    end = time.monotonic_ns()
    workers.close()
    workers.join()
    return [mapped - begin, end - begin]


def idle(context: BaseContext, n: int) -> list[int]:
    """Proportional set size of a process that waits, the mean of n."""
    reader, writer = context.Pipe(duplex=False)
    ends = [context.Pipe(duplex=False) for _ in range(n)]
    processes = [
        context.Process(target=be_idle, args=(writer, end))  # type: ignore[attr-defined]
        for end, _ in ends
    ]
    for process in processes:
        process.start()
    for _ in processes:
        reader.recv_bytes()
    sizes = [pss_bytes(process.pid) for process in processes]
    for _, end in ends:
        end.send_bytes(b"end")
    for process in processes:
        process.join()
    check(processes)
    return [sum(sizes) // n]


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as lines:
        for line in lines:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has no proportional set size")


def check(processes: list[multiprocessing.Process]) -> None:
    """See that all have ended well, and forget them, which is not measured."""
    codes = [process.exitcode for process in processes]
    if any(codes):
        raise RuntimeError(f"processes ended with {codes}")
    for process in processes:
        process.close()


def main() -> None:
    """Do what stdin says."""
    context = multiprocessing.get_context(sys.argv[1])
    commands = {"series": series, "burst": burst, "pool": pool, "idle": idle}
    for line in sys.stdin:
        name, *numbers = line.split()
        answer = single(context) if name == "single" else commands[name](context, int(numbers[0]))
        print(*answer, flush=True)


if __name__ == "__main__":
    main()
