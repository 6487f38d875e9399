"""An exception cannot be pickled"""

import multiprocessing
import threading


def work(x):
    raise ValueError(threading.Lock())


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.map(work, [1]))
