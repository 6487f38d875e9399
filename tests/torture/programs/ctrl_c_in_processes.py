"""Ctrl-C while processes are joined"""

import multiprocessing
import time


def work(is_ready):
    is_ready.set()
    time.sleep(60)


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
