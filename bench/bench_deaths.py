"""How soon a death is known: from the signal to the exception, or the return, that tells of it.

    bench_deaths.py --dragon build/dragon [--rounds 200]

Each case runs in turn under the standard library's spawn and under "dragon", in a program of its
own; a process notes the time, and kills itself with SIGKILL. Prints a Markdown table. Where the
standard library waits for ever, there is nothing to measure.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3.11"
#: What the standard library never tells.
HANGS = ("pool", "imap", "futures", "barrier")


def die(noted: str) -> None:
    """Note the time, and be killed."""
    Path(noted).write_text(str(time.monotonic_ns()), encoding="ascii")
    os.kill(os.getpid(), signal.SIGKILL)


def die_when_told(noted: str, told: Any) -> None:
    """The same, once somebody waits."""
    told.recv()
    time.sleep(0.005)
    die(noted)


def hold_and_die(noted: str, told: Any, barrier: Any) -> None:
    """The same, inside of a barrier's wait, in which the starter is, too."""

    def watch() -> None:
        while barrier.n_waiting < 2:
            time.sleep(0.001)
        die_when_told(noted, told)

    threading.Thread(target=watch, daemon=True).start()
    barrier.wait()


def until_it_raises(wait: Callable[..., Any]) -> int:
    """The time when it has raised; it must not return."""
    try:
        wait()
    except Exception:  # noqa: BLE001  # whatever tells of the death
        return time.monotonic_ns()
    raise AssertionError(f"{wait} has returned")


def of_child(context: Any, noted: str, wait: Callable[[Any, Any], int], *more: Any) -> int:
    """Start a process, and call wait(process, pipe) before it is told to die."""
    here, there = context.Pipe()
    target = hold_and_die if more else die_when_told
    process = context.Process(target=target, args=(noted, there, *more))
    process.start()
    there.close()
    here.send(None)
    seen = wait(process, here)
    process.join()
    here.close()
    return seen


def joined(process: Any, _: Any) -> int:
    """When join has returned."""
    process.join()
    return time.monotonic_ns()


def end_of_pipe(_: Any, pipe: Any) -> int:
    """When a reader has been told."""
    return until_it_raises(pipe.recv)


def executor_class(case: str) -> Any:
    """Dragon's executor, or the standard library's."""
    if case == "executor":
        return ProcessPoolExecutor
    from dragon.futures import ProcessPoolExecutor as Executor

    return Executor


def measure(case: str, context: Any, n_rounds: int, folder: str) -> list[int]:
    """Nanoseconds of each round."""
    noted = f"{folder}/noted"
    take: Callable[[], int]
    if case in ("pool", "imap"):
        pool = context.Pool(2)
        pool.map(abs, range(10))

        def take() -> int:
            if case == "pool":
                return until_it_raises(lambda: pool.apply(die, (noted,)))
            return until_it_raises(lambda: list(pool.imap(die, [noted])))
    elif case in ("futures", "executor"):

        def take() -> int:
            executor = executor_class(case)(2, mp_context=context)
            executor.submit(abs, 1).result()
            seen = until_it_raises(lambda: executor.submit(die, noted).result())
            executor.shutdown()
            return seen
    elif case == "barrier":

        def take() -> int:
            barrier = context.Barrier(3)
            here = functools.partial(until_it_raises, barrier.wait)
            return of_child(context, noted, lambda *_: here(), barrier)
    else:
        take = functools.partial(
            of_child, context, noted, {"join": joined, "pipe": end_of_pipe}[case]
        )
    times = []
    for _ in range(n_rounds):
        seen = take()
        times.append(seen - int(Path(noted).read_text(encoding="ascii")))
    return times


CASES = {
    "pool": "Pool.apply raises WorkerDied",
    "imap": "Pool.imap raises WorkerDied",
    "futures": "dragon.futures: the future raises WorkerDied",
    "executor": "the library's executor: BrokenProcessPool",
    "join": "Process.join returns",
    "pipe": "Connection.recv raises EOFError",
    "barrier": "Barrier.wait raises BrokenBarrierError",
}


def run_case(command: list[str], case: str, n_rounds: int) -> list[int]:
    """Measure one case in a program of its own."""
    words = [*command, __file__, "--case", case, "--rounds", str(n_rounds)]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=600)
    times: list[int] = json.loads(done.stdout)
    return times


def in_ms(times: list[int]) -> str:
    """Median, 99th percentile and maximum."""
    ordered = sorted(times)
    p99 = ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)]
    return " / ".join(f"{t / 1e6:.1f}" for t in (statistics.median(ordered), p99, ordered[-1]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dragon")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--case", help="in a program that was started for it")
    options = parser.parse_args()
    if options.case:
        method = "spawn" if sys.executable.startswith("/usr/bin/python") else "dragon"
        context = multiprocessing.get_context(method)
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.case, context, options.rounds, folder)))
        return
    print("| what tells of it | spawn | dragon |\n|---|--:|--:|")
    for case, title in CASES.items():
        ours = run_case([options.dragon], case, options.rounds)
        n_stock = max(options.rounds // 4, 5)  # it takes ten times as long
        stock = "never" if case in HANGS else in_ms(run_case([PYTHON], case, n_stock))
        print(f"| {title} | {'-' if case == 'futures' else stock} | {in_ms(ours)} |", flush=True)


if __name__ == "__main__":
    main()
