"""Rate of Queue put+get of an int, one producer and one consumer process; one line per repeat.

    queue_rate.py METHOD [REPEATS]

The number of items is doubled until moving them takes half a second, so that starting and the
first slow items do not count.
"""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.queues import Queue

WINDOW_S = 0.5


def produce(orders: Queue[int], items: Queue[int]) -> None:
    """Put as many items as each order asks for; 0 ends it."""
    while n_items := orders.get():
        for item in range(n_items):
            items.put(item)


def consume(orders: Queue[int], items: Queue[int], n_items: int) -> float:
    """Have n_items produced and take them all.

    Returns:
        float: Seconds from the order to the last item.
    """
    start = time.perf_counter()
    orders.put(n_items)
    for expected in range(n_items):
        if items.get() != expected:
            raise RuntimeError("an item is lost or out of order")
    return time.perf_counter() - start


def main() -> None:
    """Run the command line."""
    multiprocessing.set_start_method(sys.argv[1])
    repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    orders: Queue[int] = multiprocessing.Queue()
    items: Queue[int] = multiprocessing.Queue()
    producer = multiprocessing.Process(target=produce, args=(orders, items))
    producer.start()
    n_items = 1000
    while consume(orders, items, n_items) < WINDOW_S:
        n_items *= 2
    for _ in range(repeats):
        print(n_items / consume(orders, items, n_items), flush=True)
    orders.put(0)
    producer.join()


if __name__ == "__main__":
    main()
