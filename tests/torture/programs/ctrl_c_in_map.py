"""Ctrl-C while a Pool works"""

import multiprocessing
import time


def work(x):
    if x == 0:
        print("ready", flush=True)
    time.sleep(60)


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        pool.map(work, range(4), chunksize=1)
