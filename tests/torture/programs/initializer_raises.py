"""The initializer of a pool raises"""

import multiprocessing


def prepare():
    raise FileNotFoundError("no such model")


if __name__ == "__main__":
    with multiprocessing.Pool(2, prepare) as pool:
        print(pool.map(abs, range(3)))
