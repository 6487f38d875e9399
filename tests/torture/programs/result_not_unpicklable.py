"""A result cannot be unpickled"""

import multiprocessing


class Fragile:
    def __init__(self, text):
        self.text = text

    def __reduce__(self):
        return Fragile, ()


def work(x):
    return Fragile("text")


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.map(work, [1]))
