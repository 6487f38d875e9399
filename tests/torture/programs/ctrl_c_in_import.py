"""Ctrl-C while workers import the program"""

import multiprocessing
import time


def work(x):
    return x


if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool:
        print(pool.map(work, range(4)))
else:
    print("ready", flush=True)
    time.sleep(60)
