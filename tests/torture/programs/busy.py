"""Random members of a program with queues, pools and a manager are killed"""

import multiprocessing
import queue
import time


def square(x):
    time.sleep(0.005)
    return x * x


def relay(inbox, outbox, numbers):
    for item in iter(inbox.get, None):
        numbers[item % 10] = item
        outbox.put(item)


def receive(inbox, process):
    while True:
        try:
            return inbox.get(timeout=0.1)
        except queue.Empty:
            if process.exitcode is not None and inbox.empty():
                raise ChildProcessError(f"{process.name} ended: {process.exitcode}") from None


if __name__ == "__main__":
    with multiprocessing.Manager() as manager, multiprocessing.Pool(2) as pool:
        numbers = manager.dict()
        inbox, outbox = multiprocessing.Queue(), multiprocessing.Queue()
        process = multiprocessing.Process(target=relay, args=(inbox, outbox, numbers), daemon=True)
        process.start()
        print("ready", flush=True)
        for first in range(0, 600, 20):
            squares = pool.map_async(square, range(first, first + 20), chunksize=3)
            for number in range(first, first + 20):
                inbox.put(number)
            for number in range(first, first + 20):
                assert receive(outbox, process) == number
            assert squares.get() == [x * x for x in range(first, first + 20)]
        inbox.put(None)
        process.join()
        print(sorted(numbers.keys()))
