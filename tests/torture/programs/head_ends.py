"""The program ends while it has"""

import multiprocessing
import sys
import time
from multiprocessing.connection import Listener
from multiprocessing.shared_memory import SharedMemory


def nested():
    multiprocessing.Process(target=time.sleep, args=(60,)).start()
    time.sleep(60)


def sleep_and_raise():
    time.sleep(60)
    raise AssertionError


if __name__ == "__main__":
    what, how = sys.argv[1].split("+"), sys.argv[2]
    if "processes" in what:
        multiprocessing.Process(target=nested).start()
    if "daemons" in what:
        for _ in range(2):
            multiprocessing.Process(target=sleep_and_raise, daemon=True).start()
    if "pool" in what:
        pool = multiprocessing.Pool(2)
        pool.map(abs, range(10))
        pool.apply_async(sleep_and_raise)
    if "manager" in what:
        manager = multiprocessing.Manager()
        numbers = manager.list([1, 2, 3])
    if "listener" in what:
        listener = Listener(family="AF_UNIX")
    if "memory" in what:
        memory = SharedMemory(create=True, size=100)
    time.sleep(0.3)
    if how == "exit":
        sys.exit(3)
    if how == "exception":
        raise LookupError(how)
    if how != "return":
        print("ready", flush=True)
        time.sleep(60)
