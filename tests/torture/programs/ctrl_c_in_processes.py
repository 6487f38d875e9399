"""Ctrl-C while processes are joined"""

import multiprocessing
import time


def work(is_ready):
    is_ready.set()
    for _ in range(600):  # a signal just before time.sleep() is handled only after it, anywhere
        time.sleep(0.1)


if __name__ == "__main__":
    events = [multiprocessing.Event() for _ in range(3)]
    processes = [multiprocessing.Process(target=work, args=(event,)) for event in events]
    for process in processes:
        process.start()
    for event in events:
        event.wait()
    print("ready", flush=True)
    for process in processes:
        process.join()
