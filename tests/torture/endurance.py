"""Mixed load for a long time: what the program holds must not grow.

    dragon tests/torture/endurance.py SECONDS [FILE.csv]

Each round: a pool's map, imap and a call whose worker dies; queues with small and large messages;
a pipe; a lock, an event and a shared value; processes that end well and that are killed; a
manager's dict; an executor. After each round the first process's memory (that it has alone),
descriptors, threads and children, the blocks of the pool and its bytes are noted. Exits with 1 if
anything has grown: if the least of the last two fifths of the time is notably more than the most of
the two before; the first fifth does not count.
"""

from __future__ import annotations

import csv
import gc
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import _dragon

#: What something may grow by, as noise: a tenth, and at least this.
_NOISE = {"private_kib": 2048, "pool_kib": 4096, "descriptors": 4, "threads": 4, "blocks": 16}


class Sample(NamedTuple):
    """What the program holds after a round."""

    seconds: float
    private_kib: int
    descriptors: int
    threads: int
    children: int
    blocks: int
    pool_kib: int


def sample(begin: float) -> Sample:
    """Look at this process and the pool, when what has ended is gone."""
    gc.collect()
    children = len(multiprocessing.active_children())  # and reap
    time.sleep(0.3)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    statistics = _dragon.pool_statistics()
    return Sample(
        round(time.monotonic() - begin, 1),
        private,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        children,
        statistics["n_blocks"],
        statistics["committed_bytes"] // 1024,
    )


# ---- the load ----


def square(x: int) -> int:
    """Square x; a worker that is asked for that of -1 dies."""
    if x == -1:
        os._exit(1)
    return x * x


def echo(inbox: Any, outbox: Any) -> None:
    """Send back what comes, up to None."""
    for message in iter(inbox.get, None):
        outbox.put(message)


def count(lock: Any, event: Any, value: Any) -> None:
    """Wait for the event, then add 100 to the value."""
    event.wait()
    for _ in range(100):
        with lock:
            value.value += 1


def use_pool() -> None:
    """Map, imap, and a worker that dies."""
    with multiprocessing.Pool(2) as pool:
        assert pool.map(square, range(200)) == [x * x for x in range(200)]
        assert sum(pool.imap_unordered(square, range(50), 7)) == sum(x * x for x in range(50))
        died = pool.apply_async(square, (-1,))
        died.wait()
        assert not died.successful()
        assert pool.apply(square, (3,)) == 9


def use_queues() -> None:
    """Small and large messages to a process and back; the last ones are never taken."""
    inbox: Any = multiprocessing.Queue()
    outbox: Any = multiprocessing.Queue()
    process = multiprocessing.Process(target=echo, args=(inbox, outbox))
    process.start()
    for message in [*range(500), bytes(3_000_000), "text" * 1000, {"key": bytearray(200_000)}]:
        inbox.put(message)
        assert outbox.get() == message
    inbox.put(None)
    process.join()
    outbox.put(bytes(1_000_000))


def use_locks() -> None:
    """Four processes count; one more is killed where it waits."""
    lock, event = multiprocessing.Lock(), multiprocessing.Event()
    value: Any = multiprocessing.RawValue("i")
    processes = [multiprocessing.Process(target=count, args=(lock, event, value)) for _ in range(4)]
    victim = multiprocessing.Process(target=multiprocessing.Event().wait)
    for process in [*processes, victim]:
        process.start()
    event.set()
    victim.kill()
    for process in [*processes, victim]:
        process.join()
    assert value.value == 400


def use_pipe() -> None:
    """A process that is killed at the other end of a pipe."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=theirs.recv)
    process.start()
    theirs.close()
    process.kill()
    process.join()
    try:
        ours.recv()
    except (EOFError, OSError):
        ours.close()


def use_manager() -> None:
    """A dict of a manager's."""
    with multiprocessing.Manager() as manager:
        numbers = manager.dict()
        for x in range(50):
            numbers[x] = square(x)
        assert numbers[7] == 49


def use_executor() -> None:
    """Calls of an executor."""
    with ProcessPoolExecutor(2) as executor:
        assert list(executor.map(square, range(50))) == [x * x for x in range(50)]


# ---- the judgement ----


def grown(samples: list[Sample]) -> list[str]:
    """What has grown, in words."""
    steady = samples[len(samples) // 5 :]
    early, late = steady[: len(steady) // 2], steady[len(steady) // 2 :]
    found = []
    for name, noise in _NOISE.items():
        before = max(getattr(s, name) for s in early)
        after = min(getattr(s, name) for s in late)
        if after > before + max(noise, before // 10):
            found.append(f"{name}: at most {before} in the first half, at least {after} later")
    return found


def main() -> int:
    """Run the command line."""
    multiprocessing.set_start_method("dragon")
    begin, samples = time.monotonic(), []
    while time.monotonic() - begin < float(sys.argv[1]):
        for use in (use_pool, use_queues, use_locks, use_pipe, use_manager, use_executor):
            use()
        samples.append(sample(begin))
    if len(sys.argv) > 2:
        with open(sys.argv[2], "w", newline="") as file:
            csv.writer(file).writerows([Sample._fields, *samples])
    faults = grown(samples)
    for name in Sample._fields[1:]:
        values = [getattr(s, name) for s in samples]
        middle = values[len(values) // 5]
        print(f"{name}: {values[0]} at first, {middle} after a fifth, {values[-1]} at last")
    print(
        f"{len(samples)} rounds in {samples[-1].seconds} s; grown: {'; '.join(faults) or 'nothing'}"
    )
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
