"""Ctrl-C while a Pool works, and again while the program cleans up"""

import multiprocessing
import time


def work(x):
    if x == 0:
        print("ready", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        try:
            pool.map(work, range(4), chunksize=1)
        except KeyboardInterrupt:
            print("cleaning up", flush=True)
            for _ in range(600):  # a signal just before time.sleep() is handled only after it
                time.sleep(0.1)
