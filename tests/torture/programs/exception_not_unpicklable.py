"""An exception cannot be unpickled: its class wants two arguments"""

import multiprocessing


class ServerError(Exception):
    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")


def work(x):
    raise ServerError(500, "out of order")


if __name__ == "__main__":
    with multiprocessing.Pool(1) as pool:
        print(pool.map(work, [1]))
